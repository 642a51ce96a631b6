"""Sending: one task for each peer that has something to get, over the rows of the outbox.

    outbox rows     what must arrive, whatever happens: events, messages for devices, device lists, receipts
    passing EDUs    what is worthless tomorrow: typing, presence; in memory, the newest of each kind

A peer gets one transaction at a time, at most 50 PDUs and 100 EDUs, everything in the order in which it happened, again
and again under the same id until it answers. One that cannot be reached is left alone for growing, jittered pauses;
they are kept in the store, and a signed request of the peer ends them. While our own line is down, no peer is blamed.
A peer that waits costs an entry in a dictionary: no task, no timer of its own.

Source: server-server API, "Transactions".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

from appliance.link.errors import RefusedByPeer, Unreachable
from appliance.matrix.ids import ServerName
from appliance.store import outbox
from appliance.store.changes import Commit
from appliance.store.connection import StoreUnavailable
from appliance.store.database import Store
from appliance.store.outbox import MOST_EDUS, MOST_ROWS, Flight, Trouble

log = logging.getLogger(__name__)

AT_ONCE: Final = 32
"""Transactions under way at the same time, each to another peer."""
MOST_PASSING: Final = 1000
"""Passing EDUs that wait for one peer; beyond it the oldest go."""
NO: Final = frozenset({401, 403, 404})
"""Refusals that concern us, not the transaction."""


class Send(Protocol):
    """Delivers one transaction (`federation.client.Client.send`); raises `Unreachable` or `RefusedByPeer`."""

    def __call__(
        self, peer: ServerName, txn_id: str, ts: int, pdus: Sequence[Mapping[str, Any]],
        edus: Sequence[Mapping[str, Any]] = (),
    ) -> Awaitable[object]:
        """Send; anything that is returned means that the peer has it."""
        ...


class Line(Protocol):
    """Our own way out."""

    def up(self) -> bool:
        """Tell whether it works at the moment."""
        ...

    async def back(self) -> None:
        """Return once it works (again)."""
        ...


class SteadyLine:
    """A way out that nobody watches: every failure is the peer's."""

    def up(self) -> bool:
        """Say yes."""
        return True

    async def back(self) -> None:
        """Return at once."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Pauses in milliseconds: after the first failure, the longest, after a refusal, between two lifted ones."""

    first: int = 1_000
    longest: int = 3_600_000
    refused: int = 3_600_000
    lifted: int = 5_000


@dataclass(slots=True, eq=False)
class _Peer:
    """What is in memory about one peer: its task, its passing EDUs, its trouble. Forgotten when it has none of them."""

    name: ServerName
    task: asyncio.Task[None] | None = None
    more: bool = False
    passing: dict[str, bytes] = field(default_factory=dict)
    trouble: Trouble | None = None
    tried: int = 0
    singly: int = 0


class Outbound:
    """Delivers while `run` runs."""

    def __init__(
        self, store: Store, send: Send, *, clock: Callable[[], int], chance: Callable[[], float],
        line: Line | None = None, pace: Pace | None = None,
    ) -> None:
        self._store = store
        self._send = send
        self._clock = clock
        self._chance = chance
        self._line = line or SteadyLine()
        self._pace = pace or Pace()
        self._peers: dict[str, _Peer] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._bell = asyncio.Event()
        self._tasks: asyncio.TaskGroup | None = None
        store.changes.listen(self._committed)

    # -- what wakes it ----------------------------------------------------------------------------------------------

    def _committed(self, commit: Commit) -> None:
        for name in commit.peers:
            self._wake(ServerName(name))

    def offer(self, peer: ServerName, key: str, edu: Mapping[str, Any]) -> None:
        """Tell a peer something in passing; it replaces what waits under `key`, and is lost if the peer is away."""
        known = self._peers.get(peer)
        if known is not None and known.trouble is not None:
            return
        entry = self._entry(peer)
        entry.passing.pop(key, None)
        entry.passing[key] = orjson.dumps(edu)
        if len(entry.passing) > MOST_PASSING:
            del entry.passing[next(iter(entry.passing))]
        self._wake(peer)

    def heard(self, peer: ServerName) -> None:
        """A proved request came from the peer: it is alive, so try again now (not more often than the pace allows)."""
        entry = self._peers.get(peer)
        if entry is None or entry.trouble is None or entry.task is not None:
            return
        soonest = min(entry.trouble.retry_at, entry.tried + self._pace.lifted)
        if soonest < entry.trouble.retry_at:
            entry.trouble = Trouble(entry.trouble.failures, soonest, entry.trouble.refused)
            self._bell.set()

    def nudge(self) -> None:
        """The clock has moved: look for pauses that are over."""
        self._bell.set()

    def troubles(self) -> dict[str, Trouble]:
        """Return the peers that fail at the moment."""
        return {name: entry.trouble for name, entry in self._peers.items() if entry.trouble is not None}

    def idle(self) -> bool:
        """Tell whether nothing is under way."""
        return all(entry.task is None for entry in self._peers.values())

    def _entry(self, peer: ServerName) -> _Peer:
        entry = self._peers.get(peer)
        if entry is None:
            entry = self._peers[peer] = _Peer(peer)
        return entry

    def _wake(self, peer: ServerName) -> None:
        entry = self._entry(peer)
        if entry.task is not None:
            entry.more = True
        elif entry.trouble is None or entry.trouble.retry_at <= self._clock():
            self._start(entry)

    def _start(self, entry: _Peer) -> None:
        if self._tasks is not None:
            entry.more = False
            entry.task = self._tasks.create_task(self._serve(entry))

    # -- its life ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until cancelled, beginning with what an earlier process left."""
        for name, trouble in (await self._store.read(outbox.peers)).items():
            self._entry(ServerName(name)).trouble = trouble if trouble.failures else None
        async with asyncio.TaskGroup() as self._tasks:
            for entry in list(self._peers.values()):
                self._wake(entry.name)
            try:
                while True:
                    await self._pause()
                    self._due()
            finally:
                self._tasks = None
                for entry in self._peers.values():
                    if entry.task is not None:
                        entry.task.cancel()

    async def _pause(self) -> None:
        """Wait for the bell or for the first pause to end."""
        waiting = [e.trouble.retry_at for e in self._peers.values() if e.trouble is not None and e.task is None]
        seconds = max(0.0, (min(waiting) - self._clock()) / 1000) if waiting else None
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._bell.wait()
        self._bell.clear()

    def _due(self) -> None:
        now = self._clock()
        for entry in list(self._peers.values()):
            if entry.task is None and entry.trouble is not None and entry.trouble.retry_at <= now:
                self._start(entry)

    # -- one peer ---------------------------------------------------------------------------------------------------

    async def _serve(self, entry: _Peer) -> None:
        """Send until nothing is owed, or the peer must be left alone."""
        try:
            await self._deliver(entry)
            while entry.more and (entry.trouble is None or entry.trouble.retry_at <= self._clock()):
                await self._deliver(entry)
        except StoreUnavailable:
            log.warning("outbox of %s: the store does not answer; trying again", entry.name)
            entry.trouble = Trouble(1, self._clock() + self._pace.first)
        finally:
            entry.task = None
            if entry.trouble is not None:
                self._bell.set()
            elif not entry.passing:
                self._peers.pop(entry.name, None)

    async def _deliver(self, entry: _Peer) -> None:
        """Send transaction after transaction, to the end of the rows or until one fails."""
        flight = await self._next(entry, None)
        if flight is None:
            entry.trouble = None  # only something passing had failed
        while flight is not None:
            async with self._slots:
                if not await self._try(entry, flight):
                    return
            entry.trouble = None
            flight = await self._next(entry, flight)

    async def _next(self, entry: _Peer, done: Flight | None) -> Flight | None:
        """Strike what has arrived and fix the next transaction."""
        entry.more = False
        passing = list(entry.passing.values())[:MOST_EDUS]
        entry.passing.clear()  # what does not fit is too much to be worth anything
        most = 1 if entry.singly else MOST_ROWS
        return await self._store.write(outbox.turn, entry.name, done, passing, self._clock(), most)

    async def _try(self, entry: _Peer, flight: Flight) -> bool:
        """Send one transaction; False when the peer must be left alone."""
        entry.tried = self._clock()
        try:
            await self._send(
                entry.name, flight.txn, flight.ts, [orjson.loads(raw) for raw in flight.pdus],
                [orjson.loads(raw) for raw in flight.edus],
            )
        except RefusedByPeer as error:
            return await self._refused(entry, flight, error)
        except Unreachable as error:
            await self._unreachable(entry, error)
            return False
        entry.singly = max(0, entry.singly - 1)
        return True

    async def _refused(self, entry: _Peer, flight: Flight, error: RefusedByPeer) -> bool:
        """The peer said no: to us (wait), or to something in the transaction (find out to what)."""
        status = error.status
        if status in NO:
            log.warning("%s refuses us with %d; nothing is lost, it is asked again in an hour", entry.name, status)
            await self._leave_alone(entry, self._pace.refused, refused=True)
            return False
        rows = len(flight.pdus) + len(flight.edus)
        if flight.upto and rows > 1:
            entry.singly = rows
            await self._store.write(outbox.abandon, entry.name)
            entry.more = True
            return False
        log.warning("%s refuses a single event with %d; dropped (transaction %s)", entry.name, status, flight.txn)
        return True

    async def _unreachable(self, entry: _Peer, error: Unreachable) -> None:
        if not self._line.up():
            log.info("our line is down; %s waits for it", entry.name)
            await self._line.back()
            entry.more = True
            return
        failures = entry.trouble.failures if entry.trouble is not None else 0
        pause = min(self._pace.longest, self._pace.first * 2 ** min(failures, 30))
        await self._leave_alone(entry, max(pause, error.retry_after_ms or 0))
        if not failures:
            log.info("%s cannot be reached: %s", entry.name, error.reason)

    async def _leave_alone(self, entry: _Peer, pause: int, *, refused: bool = False) -> None:
        """Remember when to try again: the pause, give or take a fifth."""
        failures = entry.trouble.failures + 1 if entry.trouble is not None else 1
        until = self._clock() + round(pause * (0.8 + 0.4 * self._chance()))
        entry.trouble = Trouble(failures, until, refused)
        entry.passing.clear()
        entry.more = False
        await self._store.write(outbox.set_trouble, entry.name, entry.trouble)


def spread(outbound: Outbound, peers: Iterable[str], key: str, edu: Mapping[str, Any]) -> None:
    """Offer the same passing EDU to several peers."""
    for peer in peers:
        outbound.offer(ServerName(peer), key, edu)

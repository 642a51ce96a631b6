"""Taking transactions in: each one once, whatever its sender repeats.

    repeated?    the same origin and id gets the stored answer, or shares the one still in the making
    limits       50 PDUs, 100 EDUs, else the whole is refused
    PDUs         by room: in order inside it, rooms at the same time                (rooms.receive)
    EDUs         those that need no event of this transaction beside the PDUs, receipts after them        (edus.py)
    answer       one result per event, on disk before it is given

What takes too long is not broken off: the peer is told to come back with the same transaction, which then finds the
work further on. So a room that is slow, or made slow, holds up nobody but the server that sends for it.

Source: server-server API, "Transactions".
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from appliance.matrix import canonical, ids
from appliance.matrix.errors import BadJson, InvalidParam, LimitExceeded
from appliance.matrix.ids import ServerName
from appliance.store import inbox
from appliance.store.database import Store

log = logging.getLogger(__name__)

MOST_PDUS: Final = 50
MOST_EDUS: Final = 100
ROOMS_AT_ONCE: Final = 16
"""Rooms of one transaction that are worked on at the same time."""
PER_ORIGIN: Final = 3
"""Transactions of one server in the making; it should send one at a time."""
ANSWER_SECONDS: Final = 40.0
COME_BACK_MS: Final = 10_000
REMEMBERED: Final = 500
"""Answers at hand; older ones are read from the store."""
LATE: Final = frozenset({"m.receipt"})

Json = Any
Answer = dict[str, Json]


class Outcome(Protocol):
    """What became of one event: its id (empty if it has none), whether we care for it now, and else why not."""

    @property
    def event_id(self) -> str:
        """Its id."""
        ...

    @property
    def kept(self) -> bool:
        """Whether the peer need not send it again."""
        ...

    @property
    def reason(self) -> str:
        """Why not, in our own words."""
        ...


class Receive(Protocol):
    """Takes in events of one room, in order (`rooms.receive.Receiver.receive_all`)."""

    def __call__(self, pdus: Sequence[dict[str, Json]], origin: ServerName, /) -> Awaitable[Sequence[Outcome]]:
        """Return what became of each; the kept ones are on disk."""
        ...


HandleEdus = Callable[[ServerName, Sequence[Mapping[str, Json]]], Awaitable[None]]
"""Takes in EDUs of a server, in order; what is wrong with one of them is its own affair (`edus.Edus.handle`)."""


class Inbound:
    """The transactions of all peers."""

    def __init__(
        self, store: Store, receive: Receive, edus: HandleEdus, clock: Callable[[], int], *,
        seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._store = store
        self._receive = receive
        self._edus = edus
        self._clock = clock
        self._seconds = seconds
        self._working: dict[tuple[ServerName, str], asyncio.Task[Answer]] = {}
        self._answers: OrderedDict[tuple[ServerName, str], Answer] = OrderedDict()

    async def accept(self, origin: ServerName, txn: str, content: Mapping[str, Json]) -> Answer:
        """Take in one transaction and return its answer.

        Raises `BadJson` and `InvalidParam` for what is none, `LimitExceeded` when it takes longer than a peer waits.
        """
        if not ids.fits(txn):
            raise InvalidParam("The transaction id must not exceed 255 bytes")
        key = (origin, txn)
        done = self._answers.get(key)
        if done is not None:
            return done
        task = self._working.get(key)
        if task is None:
            pdus, edus = _checked(origin, content)
            if sum(1 for server, _ in self._working if server == origin) >= PER_ORIGIN:
                raise LimitExceeded(COME_BACK_MS)
            task = self._working[key] = asyncio.create_task(self._work(key, pdus, edus))
            task.add_done_callback(lambda ended: self._ended(key, ended))
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(task)
        except TimeoutError:
            raise LimitExceeded(COME_BACK_MS) from None

    def _ended(self, key: tuple[ServerName, str], task: asyncio.Task[Answer]) -> None:
        self._working.pop(key, None)
        if task.cancelled():
            return
        failure = task.exception()
        if failure is not None:
            log.warning("transaction %s of %s was not taken in: %s", key[1], key[0], type(failure).__name__)
        else:
            self._answers[key] = task.result()
            if len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)

    async def close(self) -> None:
        """Break off what is in the making; the peers will repeat it."""
        tasks = list(self._working.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one transaction --------------------------------------------------------------------------------------------

    async def _work(
        self, key: tuple[ServerName, str], pdus: Sequence[dict[str, Json]], edus: Sequence[Mapping[str, Json]]
    ) -> Answer:
        origin, txn = key
        earlier = await self._store.read(inbox.answered, origin, txn)
        if earlier is not None:
            return canonical.decode_object(earlier)
        early = [edu for edu in edus if edu.get("edu_type") not in LATE]
        late = [edu for edu in edus if edu.get("edu_type") in LATE]
        results, _ = await asyncio.gather(self._events(origin, pdus), self._edus(origin, early))
        if late:
            await self._edus(origin, late)
        answer: Answer = {"pdus": results}
        await self._store.write(inbox.answer, origin, txn, canonical.dumps(answer), self._clock())
        return answer

    async def _events(self, origin: ServerName, pdus: Sequence[dict[str, Json]]) -> dict[str, Answer]:
        """Hand each room's events over, and collect a result for each that has an id."""
        by_room: dict[str, list[dict[str, Json]]] = {}
        for pdu in pdus:
            room_id = pdu.get("room_id")
            by_room.setdefault(room_id if isinstance(room_id, str) else "", []).append(pdu)
        slots = asyncio.Semaphore(ROOMS_AT_ONCE)
        results: dict[str, Answer] = {}

        async def one_room(events: Sequence[dict[str, Json]]) -> None:
            async with slots:
                for outcome in await self._receive(events, origin):
                    if outcome.event_id:
                        results[outcome.event_id] = {} if outcome.kept else {"error": outcome.reason or "Refused"}

        await asyncio.gather(*(one_room(events) for events in by_room.values()))
        return results


def _checked(origin: ServerName, content: Mapping[str, Json]) -> tuple[list[dict[str, Json]], list[dict[str, Json]]]:
    """Return PDUs and EDUs, as many as a transaction may have."""
    if content.get("origin", origin) != origin:
        raise InvalidParam("The transaction names another origin than its signature")
    return _objects(content, "pdus", MOST_PDUS), _objects(content, "edus", MOST_EDUS)


def _objects(content: Mapping[str, Json], name: str, most: int) -> list[dict[str, Json]]:
    found = content.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise BadJson(f"{name} must be a list of objects")
    if len(found) > most:
        raise InvalidParam(f"A transaction has at most {most} {name}")
    return found

"""Receiving an event of another server: the recipe.

     1  parse         form and size of the room's version                 else dropped      steps/parse.py
     2  verify        the signatures that it must carry                   else dropped      steps/parse.py
     3  hash          its content is what was signed                      else redacted     steps/parse.py
     4  fetch auth    what authorises it is at hand, fetched if not       else it waits     steps/fetch_auth.py
     5  auth          its auth events allow it                            else rejected     steps/auth.py
     6  fetch prev    what precedes it is at hand, fetched if not         else it waits     steps/fetch_prev.py
     7  state before  resolved from the states after what precedes it                       steps/state_before.py
     8  auth          the state before allows it                          else rejected     steps/state_before.py
     9  tips          what the room continues from, the event among them                    steps/place.py
    10  resolve       the room's state, resolved from its tips                              steps/resolve.py
    11  soft fail     the current state allows it                         else unseen       steps/soft_fail.py
    12  redactions    those that came before it, or that it makes                           steps/place.py
    13  append        the one way into the timeline, on disk                                store/append.py
    14  release       what waited for this event is taken up again

1 to 3 are done for a whole transaction at once. 7 to 12 are one look at the store while the room's head is held; so
events of our own users and of others go into a room one after the other, and nothing waits for the network there. 4
and 6 ask the network, in a line of their own for each room and peer, out of a budget. An event that simply continues
from the tips and cites the current state, as nearly all do, takes a short cut through memory: the checks of 5, 8 and 11
are then one and the same, and the next event need not wait for this one's commit.

An event that waits is kept on disk: what a peer was told we have, we have.

Source: server-server API, "Checks performed on receipt of a PDU".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Any, AsyncIterator, Final

import msgspec

from appliance.matrix import auth, canonical, versions
from appliance.matrix import event as matrix_event
from appliance.matrix.auth import CREATE, Rejected
from appliance.matrix.errors import MatrixError
from appliance.matrix.event import Event
from appliance.matrix.ids import ServerName, server_of
from appliance.rooms.head import Head, Heads
from appliance.rooms.ledger import Ledger
from appliance.rooms.members import Members
from appliance.rooms.queues import Lines
from appliance.rooms.steps import fetch_prev
from appliance.rooms.steps.admit import allowed
from appliance.rooms.steps.asking import Budget, Pdu, Peers, Signatures, Unobtainable
from appliance.rooms.steps.auth import Judged
from appliance.rooms.steps.fetch_auth import Archive, keep_outliers, survey
from appliance.rooms.steps.parse import parse, verify
from appliance.rooms.steps.place import Found, Placed, place
from appliance.rooms.steps.resolve import Incomplete
from appliance.store import graph, rooms
from appliance.store.append import New, Stale
from appliance.store.database import Store
from appliance.store.events import REJECTED, SOFT_FAILED, Row
from appliance.store.graph import Waiting
from appliance.store.readers import Rx
from appliance.store.rooms import RoomRow

Clock = Callable[[], int]
"""Milliseconds since the epoch."""

MOST_WAITING: Final = 1_000
"""Events of one room that wait for what they stand on."""
PLACES_AT_ONCE: Final = 2
"""Rooms whose state is looked at or resolved at the same time; one reader's thread stays free for everybody else."""
TRIED_AGAIN: Final = 20
FIRST_PAUSE_MS: Final = 30_000
LONGEST_PAUSE_MS: Final = 3_600_000
MOST_TRIES: Final = 100
"""After some four days nobody has what the event stands on; should it be needed, another event will ask for it."""


class Verdict(StrEnum):
    """What became of an event."""

    ACCEPTED = "accepted"
    SOFT_FAILED = "soft failed"
    REJECTED = "rejected"
    WAITING = "waiting"
    DROPPED = "dropped"


class Outcome(msgspec.Struct, frozen=True):
    """What became of one event. `event_id` is empty where it has none; `reason` is in our own words."""

    event_id: str
    verdict: Verdict
    reason: str = ""

    @property
    def kept(self) -> bool:
        """Whether the event is ours to care for now; a peer need not send it again."""
        return self.verdict is not Verdict.DROPPED


class NotHere(Exception):
    """The room is not one that this server takes part in."""


class Receiver:
    """Takes in events of other servers."""

    def __init__(self, store: Store, heads: Heads, ledger: Ledger, members: Members, peers: Peers,
                 signatures: Signatures, server: ServerName, clock: Clock) -> None:
        self.store = store
        self.heads = heads
        self.ledger = ledger
        self.members = members
        self.server = server
        self.clock = clock
        self.archive = Archive(store, peers, signatures)
        self._signatures = signatures
        self._lines = Lines()
        self._places = asyncio.Semaphore(PLACES_AT_ONCE)
        self._parked: set[int] | None = None

    # -- the door

    async def receive(self, pdu: Pdu, origin: ServerName) -> Outcome:
        """Take in one event that `origin` sent; returns when it is on disk, or why it will not be."""
        return (await self.receive_all([pdu], origin))[0]

    async def receive_all(self, pdus: Sequence[Pdu], origin: ServerName) -> list[Outcome]:
        """Take in the events of a transaction: those of one room in order, rooms at the same time."""
        by_room: dict[str, list[int]] = {}
        for index, pdu in enumerate(pdus):
            by_room.setdefault(_room_of(pdu), []).append(index)
        outcomes: dict[int, Outcome] = {}

        async def one_room(room_id: str, indexes: list[int]) -> None:
            found = await self._receive_room(room_id, [pdus[index] for index in indexes], origin)
            outcomes.update(zip(indexes, found, strict=True))

        await asyncio.gather(*(one_room(room_id, indexes) for room_id, indexes in by_room.items()))
        return [outcomes[index] for index in range(len(pdus))]

    async def _receive_room(self, room_id: str, pdus: Sequence[Pdu], origin: ServerName) -> list[Outcome]:
        try:
            async with self._lines.turn((room_id, origin)):
                room, head = await self._admit(room_id, origin)
                return await self._take_all(room, head, pdus, origin)
        except (MatrixError, NotHere) as error:
            return [Outcome("", Verdict.DROPPED, str(error))] * len(pdus)

    async def _admit(self, room_id: str, origin: ServerName) -> tuple[RoomRow, Head]:
        """Return the room and its end, if we know it and its list of servers lets the origin speak."""
        room = await self.store.read(rooms.find, room_id)
        head = await self.heads.get(room_id)
        if room is None or head is None:
            raise NotHere("nobody here is in this room")
        rule = ("m.room.server_acl", "")
        if rule in head.state:
            acl = (await self.heads.state_of(head, [rule]))[rule]
            if not allowed(acl.content, origin):
                raise NotHere("the room does not let this server speak")
        return room, head

    async def _concerns_us(self, head: Head, event: Event) -> bool:
        """Tell whether somebody of us is in the room, or might be: an event beside the end of a room that we were
        thrown out of may undo just that.
        """
        if await self.members.local_joined(head.room_id):
            return True
        ground = await self.store.read(survey, event)
        return not ground.missing and {event_id for event_id, _ in head.tips} != set(event.prev_events)

    async def _take_all(
        self, room: RoomRow, head: Head, pdus: Sequence[Pdu], origin: ServerName
    ) -> list[Outcome]:
        """Steps 1 to 3 for all, then each event in turn; waits for the commits at the end."""
        read = [_parsed(pdu, room) for pdu in pdus]
        verified = await verify(self._signatures, [event for event in read if isinstance(event, Event)])
        remarkable = await self.store.read(graph.remarkable, list(verified))
        results: list[Outcome | Awaitable[Outcome]] = []
        for event in read:
            checked = verified[event.event_id] if isinstance(event, Event) else event
            if isinstance(checked, Event) and not await self._concerns_us(head, checked):
                results.append(Outcome(checked.event_id, Verdict.DROPPED, "nobody here is in this room"))
            elif isinstance(checked, Event):
                results.append(await self._take(room, checked, origin, quick=checked.event_id not in remarkable))
            else:
                event_id = event.event_id if isinstance(event, Event) else ""
                results.append(Outcome(event_id, Verdict.DROPPED, checked.message))
        outcomes = [result if isinstance(result, Outcome) else await result for result in results]
        await self._release(room, [outcome.event_id for outcome in outcomes if outcome.kept])
        return outcomes

    # -- one event

    async def _take(
        self, room: RoomRow, event: Event, origin: ServerName, *, quick: bool
    ) -> Outcome | Awaitable[Outcome]:
        """Steps 4 to 13; an awaitable where only the commit is still to come."""
        future = await self._short_cut(room, event) if quick else None
        if future is not None:
            return self._committed(future, room, event, origin)
        return await self._long_way(room, event, origin)

    async def _committed(
        self, future: asyncio.Future[Row], room: RoomRow, event: Event, origin: ServerName
    ) -> Outcome:
        try:
            await future
        except Stale:
            return await self._long_way(room, event, origin)
        return Outcome(event.event_id, Verdict.ACCEPTED)

    async def _short_cut(self, room: RoomRow, event: Event) -> asyncio.Future[Row] | None:
        """Append an event that follows all tips and cites the current state; None where it is not that simple."""
        head = await self.heads.get(room.room_id)
        if head is None or event.type == "m.room.redaction":
            return None
        async with head.lock:
            tips = {event_id for event_id, _ in head.tips}
            if head.broken or tips != set(event.prev_events) or len(tips) != len(event.prev_events):
                return None
            keys = auth.auth_keys(event.version, event.type, event.sender, event.state_key, event.content)
            cited = {head.state[key] for key in keys if key in head.state}
            if cited != set(event.auth_events) or len(cited) != len(event.auth_events):
                return None
            state = await self.heads.state_of(head, {*keys, CREATE})
            try:
                auth.check(event, state)
            except Rejected:
                return None
            future = asyncio.ensure_future(self.ledger.append(room.rid, New(event)))
            head.advance(event)
            if event.state_key is not None:
                self.heads.remember(event)
            head.watch(future)
            return future

    async def _long_way(self, room: RoomRow, event: Event, origin: ServerName) -> Outcome:
        """Steps 4 to 13 with all their questions; an event whose ground cannot be had waits."""
        try:
            outcome = await self.settle(room, event, origin, Budget())
        except (Unobtainable, Incomplete) as error:
            return await self._park(room, event, origin, str(error))
        if self._parked is not None and room.rid in self._parked:
            await self.store.write(graph.unpark, event.event_id)
        return outcome

    async def settle(
        self, room: RoomRow, event: Event, origin: ServerName, budget: Budget, *, past: int | None = None,
        fetch: bool = True,
    ) -> Outcome:
        """Steps 4 to 13; raises `Unobtainable`. `past` is the place of an event of the past (see backfill.py)."""
        origins = [one for one in dict.fromkeys([origin, server_of(event.sender)]) if one != self.server]
        ground = await self.store.read(survey, event)
        if ground.held is not None and ground.held.sid is not None:
            return _outcome(event, ground.held.flags, "judged before")
        verdict = await self.archive.authorise(room, event, ground.below, origins, budget)
        missing = ground.missing
        if missing and verdict.rejected is not None:
            await self.store.write(keep_outliers, room.rid, [verdict])
            return Outcome(event.event_id, Verdict.REJECTED, verdict.rejected)
        if missing and fetch:
            await self._fill_in(room, event, origins, budget)
            missing = (await self.store.read(survey, event)).missing
        borrowed = await fetch_prev.borrow(self.archive, room, event, origins, budget) if missing else None
        return await self._append(room, verdict, Found(verdict.rejected, borrowed, past))

    async def _fill_in(self, room: RoomRow, event: Event, origins: Sequence[ServerName], budget: Budget) -> None:
        """Take in what lies between our tips and the event, oldest first."""
        commits: list[asyncio.Future[Row]] = []
        for older in await fetch_prev.between(self.archive, room, event, origins, budget):
            new = not await self.store.read(graph.remarkable, [older.event_id])
            future = await self._short_cut(room, older) if new else None
            if future is not None:
                commits.append(future)
                continue
            try:
                await self.settle(room, older, origins[0], budget, fetch=False)
            except (Unobtainable, Incomplete):
                continue  # then it stays missing, and the event itself decides what to do about that
        await asyncio.gather(*commits, return_exceptions=True)

    async def _append(self, room: RoomRow, verdict: Judged, found: Found) -> Outcome:
        """Steps 7 to 13 while nothing else moves the room's end."""
        event = verdict.event
        async with self.standing(room.room_id) as head:
            async with self._places:
                placed = await self.store.read(place, room.room_id, event, found)
            if placed.new is not None:
                future = asyncio.ensure_future(self.ledger.append_placed(lambda tx: room.rid, placed.prepare))
                head.watch(future)  # should it fail, the head is read anew
                await future
                _follow(head, placed)
        return _outcome(event, placed.flags, placed.reason or "")

    @asynccontextmanager
    async def standing(self, room_id: str) -> AsyncIterator[Head]:
        """Hold a room's head while everything that was built on it is on disk."""
        while True:
            head = await self.heads.get(room_id)
            if head is None:
                raise NotHere(room_id)
            async with head.lock:
                await head.settled.wait()
                if head.broken:
                    continue
                yield head
                return

    # -- events that wait

    async def _park(self, room: RoomRow, event: Event, origin: ServerName, reason: str) -> Outcome:
        held = await self.store.read(graph.parked_one, event.event_id)
        if held is not None and held.tries >= MOST_TRIES:
            await self.store.write(graph.unpark, event.event_id)
            return Outcome(event.event_id, Verdict.DROPPED, reason)
        pause = min(FIRST_PAUSE_MS * 2 ** min(held.tries if held else 0, 7), LONGEST_PAUSE_MS)
        until = self.clock() + pause
        if not await self.store.write(graph.park, room.rid, event, origin, until, MOST_WAITING):
            return Outcome(event.event_id, Verdict.DROPPED, "too many events of this room are waiting")
        (await self._parked_rooms()).add(room.rid)
        return Outcome(event.event_id, Verdict.WAITING, reason)

    async def _parked_rooms(self) -> set[int]:
        if self._parked is None:
            found = set(await self.store.read(graph.rooms_with_parked))
            if self._parked is None:
                self._parked = found
        return self._parked

    async def _release(self, room: RoomRow, arrived: Iterable[str]) -> None:
        """Step 14: take up again what waited for these events, and what has waited long enough."""
        if room.rid not in await self._parked_rooms():
            return
        queue = list(arrived)
        while queue:
            event_id = queue.pop()
            for waiting in await self.store.read(graph.parked_on, room.rid, event_id, MOST_WAITING):
                if await self._again(room, waiting):
                    queue.append(waiting.event_id)
        await self.retry(room)

    async def retry_all(self) -> None:
        """Try once more what has waited long enough anywhere; to be called now and then."""
        for rid in list(await self._parked_rooms()):
            room = (await self.store.read(rooms.by_rid, [rid])).get(rid)
            if room is not None:
                await self.retry(room)

    async def retry(self, room: RoomRow) -> None:
        """Try once more what has waited long enough in a room."""
        for waiting in await self.store.read(_due, room.rid, self.clock()):
            await self._again(room, waiting)
        if not await self.store.read(_due, room.rid, 2**62):
            (await self._parked_rooms()).discard(room.rid)

    async def _again(self, room: RoomRow, waiting: Waiting) -> bool:
        """Try an event that waits; True if it waits no longer."""
        event = matrix_event.parse(canonical.decode_object(waiting.json), versions.get(room.version))
        outcome = await self._long_way(room, event, ServerName(waiting.origin))
        return outcome.verdict is not Verdict.WAITING


def _due(rx: Rx, rid: int, now: int) -> list[Waiting]:
    return graph.parked(rx, rid, due=now, limit=TRIED_AGAIN)


def _room_of(pdu: Mapping[str, Any]) -> str:
    room_id = pdu.get("room_id")
    return room_id if isinstance(room_id, str) else ""


def _parsed(pdu: Pdu, room: RoomRow) -> Event | MatrixError:
    try:
        return parse(pdu, versions.get(room.version), room.room_id)
    except MatrixError as error:
        return error


def _follow(head: Head, placed: Placed) -> None:
    """Let the head in memory be what the disk is."""
    if placed.tips is not None:
        head.tips = placed.tips
    if placed.current is not None:
        head.state = placed.current


def _outcome(event: Event, flags: int, reason: str) -> Outcome:
    if flags & REJECTED:
        return Outcome(event.event_id, Verdict.REJECTED, reason)
    if flags & SOFT_FAILED:
        return Outcome(event.event_id, Verdict.SOFT_FAILED, reason)
    return Outcome(event.event_id, Verdict.ACCEPTED)

"""The past of a room, fetched when somebody reads back to a gap.

The events before a gap are asked for from the servers in the room, one after the other; they go through the same
recipe as live ones, but get places before the beginning of the timeline and change nothing about the present. What
nobody can give is left alone for a while.

Source: server-server API, "Backfilling and retrieving missing events".
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Final

from appliance.matrix import versions
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, RoomId, ServerName, server_of
from appliance.rooms.queues import Lines
from appliance.rooms.receive import Receiver
from appliance.rooms.steps.asking import Budget, Unobtainable
from appliance.rooms.steps.auth import ordered
from appliance.rooms.steps.parse import genuine
from appliance.rooms.steps.resolve import Incomplete
from appliance.store import graph, rooms
from appliance.store.readers import Rx
from appliance.store.rooms import RoomRow

PAGE: Final = 100
"""Events asked for at once."""
NAMED: Final = 20
MOST_PEERS: Final = 5
SECONDS: Final = 30.0
"""How long somebody who reads back waits for other servers."""
PAUSE_MS: Final = 300_000
ROUNDS: Final = 5
"""Pages fetched for one request."""
LAST: Final = 2**62


class Backfill:
    """Fills gaps."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._store = receiver.store
        self._lines = Lines()

    async def reach(self, user_id: str, room_id: str, start: int | None, count: int) -> None:
        """Have `count` events before the position `start` (None: the end) for somebody in the room, if a peer has them.
        """
        standing = (await self._receiver.members.rooms_of(user_id)).get(RoomId(room_id))
        if standing is None or standing.membership != "join":
            return
        upto = LAST if start is None else start
        for _ in range(ROUNDS):
            if await self._store.read(_enough, room_id, self._receiver.clock(), upto, count):
                return
            if not await self.fill(room_id, upto):
                return

    async def fill(self, room_id: str, upto: int = LAST) -> int:
        """Fetch a page of what lies before the gaps at or below the position `upto`; return how many events came."""
        if await self._store.read(_gapless, room_id, self._receiver.clock(), upto):
            return 0
        async with self._lines.turn(room_id):
            room, missing = await self._store.read(_gaps, room_id, self._receiver.clock(), upto)
            if room is None or not missing:
                return 0
            try:
                async with asyncio.timeout(SECONDS):
                    return await self._ask_around(room, missing)
            except TimeoutError:
                return 0

    async def _ask_around(self, room: RoomRow, missing: Sequence[EventId]) -> int:
        for peer in await self._store.read(_peers, room.rid, self._receiver.server):
            try:
                came = await self._ask(room, peer, missing)
            except Unobtainable:
                continue
            if came:
                return came
        await self._store.write(graph.put_off, room.rid, missing, self._receiver.clock() + PAUSE_MS)
        return 0

    async def _ask(self, room: RoomRow, peer: ServerName, missing: Sequence[EventId]) -> int:
        budget = Budget(seconds=SECONDS)
        archive = self._receiver.archive
        pdus = await budget.ask(archive.peers.backfill(peer, room.room_id, missing, PAGE))
        found = await genuine(archive.signatures, pdus[:PAGE], versions.get(room.version), room.room_id)
        known = await self._store.read(graph.known, found)
        fresh = {e: event for e, event in _connected(found, missing).items() if e not in known or known[e].sid is None}
        line = ordered(fresh, lambda event: event.prev_events)
        first = await self._store.read(graph.earliest, room.rid) - len(line)
        came = 0
        for index, event in enumerate(line):
            came += await self._take(room, event, peer, budget, first + index)
        return came

    async def _take(self, room: RoomRow, event: Event, peer: ServerName, budget: Budget, past: int) -> bool:
        try:
            outcome = await self._receiver.settle(room, event, peer, budget, past=past, fetch=False)
        except (Unobtainable, Incomplete):
            return False
        return outcome.kept


def _connected(found: dict[EventId, Event], missing: Sequence[EventId]) -> dict[EventId, Event]:
    """Return those of the events that are missing, or precede a missing one."""
    result: dict[EventId, Event] = {}
    stack = [event_id for event_id in missing if event_id in found]
    while stack:
        event_id = stack.pop()
        if event_id not in result:
            result[event_id] = found[event_id]
            stack.extend(parent for parent in found[event_id].prev_events if parent in found)
    return result


def _gaps(rx: Rx, room_id: str, now: int, upto: int) -> tuple[RoomRow | None, list[EventId]]:
    room = rooms.find(rx, room_id)
    if room is None:
        return None, []
    return room, [EventId(event_id) for event_id in graph.gaps(rx, room.rid, now, NAMED, upto=upto)]


def _gapless(rx: Rx, room_id: str, now: int, upto: int) -> bool:
    return not _gaps(rx, room_id, now, upto)[1]


def _enough(rx: Rx, room_id: str, now: int, upto: int, count: int) -> bool:
    """Tell whether nothing must be fetched: there are so many events (and one more, to go on from), or no gap."""
    room, missing = _gaps(rx, room_id, now, upto)
    return room is None or not missing or graph.reaches(rx, room.rid, upto, count + 1)


def _peers(rx: Rx, rid: int, own: ServerName) -> list[ServerName]:
    """Return the servers in the room, those with the most people first."""
    count = Counter(server_of(member.user_id) for member in rooms.members(rx, rid, "join"))
    return [server for server, _ in count.most_common(MOST_PEERS + 1) if server != own][:MOST_PEERS]

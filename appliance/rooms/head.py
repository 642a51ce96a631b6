"""The end of a room's graph that new events are attached to: tips and state, in memory.

A local event must follow the tips and cite the current state. Reading both from the store for every message would
cost more than the message. `Heads` keeps them for the rooms in use. A head runs ahead of the disk: when an event is
handed to the writer, the head moves on at once, so that the next event of the same room can be built while the first
is being committed, and both share one commit. Should a commit fail, everything that was built on it fails as well
(`Stale`), the head is thrown away and read again once the last of them has settled.

Only the writing side uses heads. Readers ask the store, and so never see what is not on disk.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from appliance.matrix import versions
from appliance.matrix.event import MAX_PREV_EVENTS, Event
from appliance.matrix.ids import EventId, RoomId
from appliance.matrix.versions import RoomVersion
from appliance.store import events, rooms, state
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.state import Key

ROOMS = 500
EVENTS = 5000


class Head:
    """Where one room continues: `tips` as (event id, depth), `state` as key -> event id."""

    __slots__ = ("broken", "lock", "pending", "rid", "room_id", "settled", "state", "tips", "version")

    def __init__(self, rid: int, room_id: RoomId, version: RoomVersion, tips: list[tuple[EventId, int]],
                 current: dict[Key, EventId]) -> None:
        self.rid = rid
        self.room_id = room_id
        self.version = version
        self.tips = tips
        self.state = current
        self.lock = asyncio.Lock()
        self.pending = 0
        self.broken = False
        self.settled = asyncio.Event()
        self.settled.set()

    def advance(self, event: Event) -> None:
        """Continue after `event`, which follows as many of the tips, the oldest first, as an event may name."""
        self.tips = [*self.tips[MAX_PREV_EVENTS:], (event.event_id, event.depth)]
        if event.state_key is not None:
            self.state[event.key] = event.event_id

    def watch(self, future: asyncio.Future[Any]) -> None:
        """Count a write on this head as pending until it settles; a failed one breaks the head."""
        self.pending += 1
        self.settled.clear()
        future.add_done_callback(self._done)

    def _done(self, future: asyncio.Future[Any]) -> None:
        self.pending -= 1
        if not self.pending:
            self.settled.set()
        if future.cancelled() or future.exception() is not None:
            self.broken = True


class Heads:
    """The heads of the rooms in use, and the events that their state names; both bounded."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._heads: OrderedDict[str, Head] = OrderedDict()
        self._loading: dict[str, asyncio.Lock] = {}
        self._events: OrderedDict[str, Event] = OrderedDict()

    async def get(self, room_id: str) -> Head | None:
        """Return the head of a room, None for a room that this server does not take part in."""
        head = self._heads.get(room_id)
        if head is not None and not head.broken:
            self._heads.move_to_end(room_id)
            return head
        lock = self._loading.setdefault(room_id, asyncio.Lock())
        async with lock:
            head = await self._fresh(room_id)
        self._loading.pop(room_id, None)
        return head

    async def _fresh(self, room_id: str) -> Head | None:
        head = self._heads.get(room_id)
        if head is not None:
            if not head.broken:
                return head
            await head.settled.wait()
        loaded = await self._store.read(_load, room_id)
        other = self._heads.get(room_id)
        if other is not None and not other.broken:
            return other  # a room must never have two heads: they would fork it
        if loaded is not None:
            self._heads[room_id] = loaded
            self._trim()
        else:
            self._heads.pop(room_id, None)
        return loaded

    def put(self, head: Head) -> None:
        """Take in the head of a room that was just created, unless somebody found the room already."""
        self._heads.setdefault(head.room_id, head)
        self._trim()

    def _trim(self) -> None:
        """Drop the rooms not used for longest; one in use stays (a second head of a room would fork it)."""
        for room_id in list(self._heads):
            if len(self._heads) <= ROOMS:
                return
            head = self._heads[room_id]
            if not head.pending and not head.lock.locked():
                del self._heads[room_id]

    # -- events by id ---------------------------------------------------------------------------------------------

    def remember(self, event: Event) -> None:
        """Keep a state event at hand; the next events of the room will cite it."""
        self._events[event.event_id] = event
        if len(self._events) > EVENTS:
            self._events.popitem(last=False)

    def committed(self, row: Row, pruned_id: str | None) -> None:
        """Follow the ledger: a redacted event must not be remembered in its old form."""
        if pruned_id is not None:
            self._events.pop(pruned_id, None)

    async def events(self, ids: Iterable[EventId]) -> Mapping[EventId, Event]:
        """Return events by id; all of them must be in the store or on the way into it."""
        wanted = list(ids)
        found = {event_id: event for event_id in wanted if (event := self._events.get(event_id)) is not None}
        missing = [event_id for event_id in wanted if event_id not in found]
        if missing:
            for event_id, row in (await self._store.read(events.fetch, missing)).items():
                found[EventId(event_id)] = row.event
                self.remember(row.event)
        return found

    async def state_of(self, head: Head, keys: Iterable[Key]) -> dict[Key, Event]:
        """Return the events of the given state keys, as far as the room has them."""
        named = {key: event_id for key in keys if (event_id := head.state.get(key)) is not None}
        by_id = await self.events(named.values())
        return {key: by_id[event_id] for key, event_id in named.items()}


def _load(rx: Rx, room_id: str) -> Head | None:
    room = rooms.find(rx, room_id)
    if room is None or room.sid is None:
        return None
    tips = [(EventId(event_id), depth) for event_id, depth in events.tips(rx, room.rid)]
    current = {key: EventId(event_id) for key, event_id in state.current_ids(rx, room.rid).items()}
    return Head(room.rid, room.room_id, versions.get(room.version), tips, current)

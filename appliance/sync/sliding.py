"""The simplified sliding sync: a window on a user's rooms, and patience until something happens in it.

    at       what the client holds at its pos (sliding_connections.py)
    look     in memory (sliding_quick.py) or, where that does not reach, in one read of the store: which rooms the
             request is about (sliding_lists.py), what of each is new (sliding_rooms.py), what goes beside them
             (sliding_extensions.py)
    empty?   wait for the user's hub to be woken, look again, until the client's time is up
    issue    remember what the client holds with this answer

Messages for the device have a position of their own (`extensions.to_device.since`) and are deleted when it shows that
they arrived.

Source: MSC4186.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from appliance.rooms.live import Live
from appliance.store import sync, to_device
from appliance.store.database import Store
from appliance.store.readers import Rx
from appliance.store.rooms import Membership
from appliance.sync.ask import Ask
from appliance.sync.ephemeral import Ephemeral, Typing
from appliance.sync.known import KnownEvents
from appliance.sync.lazy import Marks
from appliance.sync.own_data import Defaults, no_defaults
from appliance.sync.presence import Presence
from appliance.sync.room import RoomReader, Shelf
from appliance.sync.sliding_ask import SlidingAsk
from appliance.sync.sliding_connections import Connections, Sent, State
from appliance.sync.sliding_extensions import ExtraReader, Extras
from appliance.sync.sliding_lists import Catalogue, Window
from appliance.sync.sliding_quick import SlidingQuick, Trail
from appliance.sync.sliding_rooms import Found, SlidingRooms
from appliance.sync.sync import MAX_WAIT_MS, Unread
from appliance.sync.waiters import Hub, Hubs

Json = Any
Members = dict[str, Membership]


@dataclass(slots=True)
class Look:
    """What one look found; `upto` is the stream position it saw, `serial` that of what is only in memory."""

    upto: int
    window: Window
    rooms: list[Found]
    extras: Extras
    inside: frozenset[str]
    ignored: frozenset[str]
    serial: int = 0
    typing: dict[str, Json] | None = None
    wakes: int = -1
    trail: Trail | None = None
    """Of a look that memory answered: what it went by."""

    @property
    def empty(self) -> bool:
        """Whether there is no news."""
        return all(room.silent for room in self.rooms) and self.extras.empty and not self.typing


def look(rx: Rx, ask: SlidingAsk, held: State, shelf: Shelf) -> Look:
    """Read what is new for a client that holds `held`, on one snapshot of the store."""
    upto = sync.position(rx)
    reader = RoomReader(rx, Ask(ask.requester), upto, shelf)
    catalogue = Catalogue(rx, reader, ask.requester.user_id, held.rooms)
    window = catalogue.window(ask)
    sections = SlidingRooms(rx, reader, held, upto, shelf)
    found = []
    members: Members = {member.room_id: member for member in catalogue.memberships}
    for room_id, config in window.configs.items():
        member = members[room_id]
        room = sections.room(member, config, catalogue.activity(member), room_id in catalogue.dms)
        if room is not None:
            found.append(room)
    extras = ExtraReader(rx, ask, held, upto, shelf.defaults).read(window, catalogue, found)
    inside = frozenset(room_id for room_id in window.configs if members[room_id].membership == "join")
    return Look(upto, window, found, extras, inside, reader.renderer.ignored())


class SlidingSync:
    """Answers the simplified sliding sync."""

    def __init__(
        self, store: Store, live: Live, hubs: Hubs, ephemeral: Ephemeral, typing: Typing, presence: Presence,
        unread: Unread, known: KnownEvents, clock: Callable[[], int], defaults: Defaults = no_defaults,
    ) -> None:
        self._defaults = defaults
        self._store = store
        self._live = live
        self._hubs = hubs
        self._ephemeral = ephemeral
        self._typing = typing
        self._presence = presence
        self._unread = unread
        self._known = known
        self._clock = clock
        self._quick = SlidingQuick(live, hubs)
        self._connections = Connections(clock())

    async def answer(self, ask: SlidingAsk) -> dict[str, Json]:
        """Return the response body. Raises `UnknownPos`."""
        requester = ask.requester
        key = (requester.user_id, requester.session, ask.conn_id)
        held = self._connections.at(key, ask.pos)
        await self._presence.syncing(requester.user_id, ask.presence)
        hub = await self._hubs.of(requester.user_id)
        hub.active += 1
        try:
            found = await self._wait(ask, held, hub)
        finally:
            hub.active -= 1
        body = await self._render(ask, found)
        body["pos"] = self._connections.issue(key, _after(ask, held, found))
        return body

    async def _wait(self, ask: SlidingAsk, held: State, hub: Hub) -> Look:
        end = asyncio.get_running_loop().time() + min(ask.timeout, MAX_WAIT_MS) / 1000
        look, first = lambda: self._look(ask, held, hub), held.first
        return await self._hubs.wait(hub, end, look, lambda found: first or not found.empty)

    async def _look(self, ask: SlidingAsk, held: State, hub: Hub) -> Look:
        serial = self._ephemeral.serial
        found = self._from_memory(ask, held, hub)
        if found is None:
            found = await self._from_store(ask, held, hub)
        found.serial = serial
        if ask.extensions.typing is not None:
            inside = [room_id for room_id in found.window.scope(ask.extensions.typing) if room_id in found.inside]
            found.typing = self._typists(inside, held, found.ignored)
        return found

    def _from_memory(self, ask: SlidingAsk, held: State, hub: Hub) -> Look | None:
        upto, trail = self._store.changes.position, held.trail
        found = self._quick.look(ask, held, hub, upto, self._clock())
        if found is None or trail is None:
            return None
        return Look(
            upto, found.window, found.rooms, found.extras, trail.inside, trail.ignored, wakes=trail.wakes, trail=trail
        )

    async def _from_store(self, ask: SlidingAsk, held: State, hub: Hub) -> Look:
        wakes = hub.wakes
        shelf = Shelf(self._known, Marks(), self._live, self._store.changes, self._clock(), self._defaults)
        found = await self._store.read(look, ask, held, shelf)
        await self._store.changes.reached(found.upto)
        acknowledged = found.extras.acknowledged
        if acknowledged is not None:
            requester = ask.requester
            await self._store.write(to_device.acknowledge, requester.user_id, requester.device_id, acknowledged)
        found.wakes = wakes
        return found

    def _typists(self, rooms: list[str], held: State, ignored: frozenset[str]) -> dict[str, Json]:
        """Return who types where that changed, and where anybody types in rooms that are new to the window."""
        changed = set(self._ephemeral.typing.after(held.serial)) if not held.first else set()
        typing = {}
        for room_id in rooms:
            new = room_id not in held.window
            if new or room_id in changed:
                users = [user for user in self._typing.users(room_id) if user not in ignored]
                if users or not new:
                    typing[room_id] = {"type": "m.typing", "content": {"user_ids": users}}
        return typing

    async def _render(self, ask: SlidingAsk, found: Look) -> dict[str, Json]:
        rooms = {}
        rids = [room.rid for room in found.rooms if room.room_id in found.inside]
        if len(rids) > 1:
            await self._unread.prepare(ask.requester.user_id, rids, found.upto)
        for room in found.rooms:
            if room.silent:
                continue
            section = rooms[room.room_id] = room.section
            if room.room_id in found.inside:
                counts = await self._unread.counts(ask.requester.user_id, room.room_id, found.upto)
                section["notification_count"] = counts.notification
                section["highlight_count"] = counts.highlight
        return {
            "lists": {name: {"count": count} for name, count in found.window.counts.items()},
            "rooms": rooms,
            "extensions": found.extras.render(found.typing),
        }


def _after(ask: SlidingAsk, held: State, found: Look) -> State:
    """Return what the client holds once it has the answer."""
    trail = _trail(ask, found)
    if held.trail is not None and held.trail.window is found.window and not found.rooms:
        return State(found.upto, found.serial, held.rooms, held.window, trail)
    rooms: dict[str, Sent] = dict(held.rooms)
    window = frozenset(found.window.configs)
    for room_id in held.window - window:
        if room_id in rooms:
            rooms[room_id] = replace(rooms[room_id], upto=held.stream)
    for room in found.rooms:
        rooms[room.room_id] = room.sent
    return State(found.upto, found.serial, rooms, window, trail)


def _trail(ask: SlidingAsk, found: Look) -> Trail:
    """Return what makes the next look quick."""
    # The window was cut out of these very values: then its configs can be told by identity.
    asked = found.trail if found.trail is not None else ask
    letters, wanted = found.extras.letters, ask.extensions.to_device
    since = wanted.since if wanted is not None and letters is not None and not letters.messages else -1
    return Trail(
        asked.lists, asked.subscriptions, ask.extensions, found.window, found.inside, found.ignored,
        found.extras.counts, since, found.wakes,
    )

"""The classic sync: what happened since the client last asked, and patience until something does.

    look      in memory (quick.py) or, where that does not reach, in the store in one read (delta.py)
    empty?    wait for the user's hub to be woken, look again, until the client's time is up
    render    rooms, unread counts, typing, presence, messages for the device, keys
    token     everything up to `next_batch` has been said

A client that repeats a request with the same `since` gets the same messages for its device: they are deleted only when
a later token shows that the answer arrived.

Source: client-server API, "Syncing".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, Protocol

import msgspec
import orjson

from appliance.matrix.tokens import StreamToken, timeline_token
from appliance.rooms.live import Live
from appliance.store import to_device
from appliance.store.database import Store
from appliance.sync import delta as deltas
from appliance.sync import devices
from appliance.sync.ask import Ask
from appliance.sync.delta import Delta
from appliance.sync.devices import DeviceLists, KeyCounts
from appliance.sync.ephemeral import Ephemeral, Typing
from appliance.sync.known import KnownEvents
from appliance.sync.lazy import LazyMembers
from appliance.sync.own_data import Defaults, no_defaults
from appliance.sync.presence import Presence
from appliance.sync.quick import Quick
from appliance.sync.room import Part, Shelf
from appliance.sync.waiters import Hub, Hubs

Json = Any
MAX_WAIT_MS: Final = 10 * 60_000
OWN: Final = 5000
REST_SECONDS: Final = 0.02
"""How long a busy reader's answers gather events. An answer costs more than an event in it, on both sides."""
_NONE: Final[frozenset[str]] = frozenset()


class Counts(Protocol):
    """Unread counts of one user in one room."""

    @property
    def notification(self) -> int: ...
    @property
    def highlight(self) -> int: ...
    @property
    def threads(self) -> Mapping[str, tuple[int, int]]: ...


class Unread(Protocol):
    """Who works the unread counts out (`push.unread`)."""

    def counts(self, user_id: str, room_id: str, upto: int) -> Awaitable[Counts]:
        """Return the counts as of a stream position."""
        ...

    def prepare(self, user_id: str, rids: Iterable[int], upto: int) -> Awaitable[None]:
        """Get ready to tell the counts of many rooms."""
        ...


class _Own(msgspec.Struct, frozen=True):
    """What an answer from memory needs of the user's own; good as long as the user's hub was not woken since."""

    wakes: int
    counts: KeyCounts
    ignored: frozenset[str]


class _Found(msgspec.Struct, frozen=True):
    """One look: the news, the serial of what is in memory, typing by room, and presence."""

    delta: Delta
    serial: int
    typing: dict[str, list[str]]
    presence: list[tuple[str, dict[str, Json]]]

    @property
    def empty(self) -> bool:
        return self.delta.empty and not self.typing and not self.presence


class Sync:
    """Answers the classic sync."""

    def __init__(
        self, store: Store, live: Live, hubs: Hubs, ephemeral: Ephemeral, typing: Typing, presence: Presence,
        unread: Unread, known: KnownEvents, clock: Callable[[], int], defaults: Defaults = no_defaults,
    ) -> None:
        self._defaults = defaults
        self._store = store
        self._hubs = hubs
        self._ephemeral = ephemeral
        self._typing = typing
        self._presence = presence
        self._unread = unread
        self._known = known
        self._clock = clock
        self._live = live
        self._quick = Quick(live, hubs)
        self._lazy = LazyMembers()
        self._own: OrderedDict[tuple[str, str], _Own] = OrderedDict()

    async def answer(self, ask: Ask) -> dict[str, Json]:
        """Return the response body. Raises `InvalidParam` for a token from the future."""
        requester = ask.requester
        if ask.since is None:
            self._lazy.of(requester.user_id, requester.device_id).clear()
        await self._presence.syncing(requester.user_id, ask.presence)
        hub = await self._hubs.of(requester.user_id)
        hub.active += 1
        try:
            found = await self._wait(ask, hub)
        finally:
            hub.active -= 1
        self._pace(hub, found.delta)
        return await self._render(ask, found, hub)

    async def key_changes(self, user_id: str, since: StreamToken, upto: StreamToken) -> DeviceLists:
        """Return whose devices changed for this user between two sync tokens."""
        return await self._store.read(devices.changes, user_id, since.stream, upto.stream)

    def _pace(self, hub: Hub, delta: Delta) -> None:
        """After an answer with events, let the next one gather some: what follows a silence goes out at once."""
        if any(part.timeline for part in delta.join):
            hub.rest = asyncio.get_running_loop().time() + REST_SECONDS

    async def _wait(self, ask: Ask, hub: Hub) -> _Found:
        now = ask.since is None or ask.full_state
        end = asyncio.get_running_loop().time() + min(ask.timeout, MAX_WAIT_MS) / 1000
        return await self._hubs.wait(hub, end, lambda: self._look(ask, hub), lambda found: now or not found.empty)

    async def _look(self, ask: Ask, hub: Hub) -> _Found:
        serial = self._ephemeral.serial
        found = self._from_memory(ask, hub)
        if found is None:
            found = await self._from_store(ask, hub)
        since = ask.since.ephemeral if ask.since is not None else None
        if since is not None and since > serial:
            since = 0  # the clock was set back between two starts: everything since this start is news
        presence = []
        if ask.filter.presence.wants_kind("m.presence"):
            presence = self._presence.news(hub.user_id, hub.joined, since)
        return _Found(found, serial, self._typists(ask, hub, found, since), presence)

    def _from_memory(self, ask: Ask, hub: Hub) -> Delta | None:
        requester = ask.requester
        own = self._own.get((requester.user_id, requester.device_id))
        if own is None or own.wakes != hub.wakes:
            return None
        upto = self._store.changes.position
        marks = self._lazy.of(requester.user_id, requester.device_id)
        parts = self._quick.read(ask, hub, marks, own.ignored, upto, self._clock())
        return Delta(upto, join=parts, counts=own.counts, ignored=own.ignored) if parts is not None else None

    async def _from_store(self, ask: Ask, hub: Hub) -> Delta:
        requester, wakes = ask.requester, hub.wakes
        marks = self._lazy.of(requester.user_id, requester.device_id)
        shelf = Shelf(self._known, marks, self._live, self._store.changes, self._clock(), self._defaults)
        delta = await self._store.read(deltas.read, ask, shelf)
        if delta.stale:
            # A token of a file that was restored from a backup: the client must start anew rather than miss news.
            marks.clear()
            delta = await self._store.read(deltas.read, _anew(ask), shelf)
        # The read may have seen a commit that the caches are only about to hear of: an answer never runs ahead of them.
        await self._store.changes.reached(delta.upto)
        for part in delta.join:
            marks.sent(part.rid, part.shown, delta.upto)
        if delta.acknowledged is not None:
            await self._store.write(to_device.acknowledge, requester.user_id, requester.device_id, delta.acknowledged)
        if delta.letters.messages:
            wakes = -1  # the next request shows whether they arrived, which is for the store to know
        self._own[requester.user_id, requester.device_id] = _Own(wakes, delta.counts, delta.ignored)
        if len(self._own) > OWN:
            self._own.popitem(last=False)
        return delta

    def _typists(self, ask: Ask, hub: Hub, delta: Delta, since: int | None) -> dict[str, list[str]]:
        """Return who types, in the joined rooms where that changed (or where the client starts from scratch)."""
        wanted = ask.filter.ephemeral
        if not wanted.wants_kind("m.typing"):
            return {}
        fresh = {part.room_id for part in delta.join if part.fresh}
        typing = {room_id: list(self._typing.users(room_id)) for room_id in fresh}
        typing = {room_id: users for room_id, users in typing.items() if users}
        if since is not None:
            changed = (room_id for room_id in self._ephemeral.typing.after(since) if room_id in hub.joined)
            typing.update((room_id, list(self._typing.users(room_id))) for room_id in changed)
        return {
            room_id: [user for user in users if user not in delta.ignored]
            for room_id, users in typing.items()
            if wanted.wants_room(room_id) and ask.filter.room.wants_room(room_id)
        }

    # -- rendering -----------------------------------------------------------------------------------------------------

    async def _render(self, ask: Ask, found: _Found, hub: Hub) -> dict[str, Json]:
        delta, rooms = found.delta, {}
        join = await self._joined(ask, found)
        leave = {part.room_id: _room(ask, part) for part in delta.leave}
        for name, section in (("join", join), ("invite", delta.invite), ("knock", delta.knock), ("leave", leave)):
            if section:
                rooms[name] = section
        letters = delta.letters.upto if delta.letters.more else -1
        answer: dict[str, Json] = {
            "next_batch": str(StreamToken(delta.upto, found.serial, letters)),
            "device_one_time_keys_count": delta.counts.one_time,
            "device_unused_fallback_key_types": delta.counts.fallback,
        }
        if rooms:
            answer["rooms"] = rooms
        if found.presence:
            answer["presence"] = {"events": [_presence(who, content) for who, content in found.presence]}
        if delta.account_data:
            answer["account_data"] = {"events": delta.account_data}
        if delta.letters.messages:
            answer["to_device"] = {"events": [orjson.Fragment(message) for message in delta.letters.messages]}
        if delta.device_lists != DeviceLists():
            answer["device_lists"] = {
                "changed": sorted(delta.device_lists.changed), "left": sorted(delta.device_lists.left)
            }
        return answer

    async def _joined(self, ask: Ask, found: _Found) -> dict[str, Json]:
        join: dict[str, Json] = {}
        if len(found.delta.join) > 1:
            rids = [part.rid for part in found.delta.join]
            await self._unread.prepare(ask.requester.user_id, rids, found.delta.upto)
        for part in found.delta.join:
            room = join[part.room_id] = _room(ask, part)
            room["summary"] = part.summary
            room["ephemeral"] = {"events": part.ephemeral}
            counts = await self._unread.counts(ask.requester.user_id, part.room_id, found.delta.upto)
            room.update(_unread(counts, ask.filter.threads))
        for room_id, users in found.typing.items():
            room = join.setdefault(room_id, {"ephemeral": {"events": []}})
            room["ephemeral"]["events"].append({"type": "m.typing", "content": {"user_ids": users}})
        return join


def _anew(ask: Ask) -> Ask:
    return Ask(ask.requester, None, ask.filter, ask.full_state, ask.state_after, ask.unstable_names, 0, ask.presence)


def _room(ask: Ask, part: Part) -> dict[str, Json]:
    """Return what joined and left rooms have in common."""
    state = "state"
    if ask.state_after:
        state = "org.matrix.msc4222.state_after" if ask.unstable_names else "state_after"
    return {
        "timeline": {
            "events": part.timeline,
            "limited": part.stretch.limited,
            "prev_batch": timeline_token(part.stretch.prev),
        },
        state: {"events": part.state},
        "account_data": {"events": part.account_data},
    }


def _unread(counts: Counts, threads: bool) -> dict[str, Json]:
    """Return the unread counts, those of threads apart if the client asked for that."""
    notification, highlight = counts.notification, counts.highlight
    if not threads:
        return {"unread_notifications": {"notification_count": notification, "highlight_count": highlight}}
    for n, h in counts.threads.values():
        notification, highlight = notification - n, highlight - h
    return {
        "unread_notifications": {"notification_count": notification, "highlight_count": highlight},
        "unread_thread_notifications": {
            root: {"notification_count": n, "highlight_count": h} for root, (n, h) in counts.threads.items()
        },
    }


def _presence(user_id: str, content: dict[str, Json]) -> dict[str, Json]:
    return {"type": "m.presence", "sender": user_id, "content": content}

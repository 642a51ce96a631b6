"""The lists of a sliding sync: a user's rooms by latest activity, filtered, and the part of them that is wanted.

A room the user left of their own accord is in the list only if the client has it; one from which they were kicked or
banned always, as they may not know. Rooms they were never let into vanish with the invitation.

Source: MSC4186, "Lists", "Subscriptions" and `SlidingRoomFilter`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from appliance.store import account_data, rooms, sliding, sync
from appliance.store.readers import Rx
from appliance.store.rooms import Membership
from appliance.sync.room import RoomReader
from appliance.sync.sliding_ask import ListAsk, ListFilter, RoomConfig, Scope, SlidingAsk


@dataclass(slots=True)
class Window:
    """Which rooms a request is about: `configs` says what of each, in order; `counts` how long the lists are."""

    configs: dict[str, RoomConfig] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    lists: dict[str, set[str]] = field(default_factory=dict)
    orders: Mapping[str, list[str]] = field(default_factory=dict)
    """The lists in full, the room with the latest activity first."""
    subscribed: frozenset[str] = frozenset()

    def add(self, room_id: str, config: RoomConfig) -> None:
        """Take a room in, united with what other rules say of it."""
        before = self.configs.get(room_id)
        self.configs[room_id] = config if before is None else before | config

    def scope(self, wanted: Scope) -> list[str]:
        """Return the rooms in which an extension applies."""
        return [room_id for room_id in self.configs if self._within(room_id, wanted)]

    def _within(self, room_id: str, wanted: Scope) -> bool:
        if room_id in self.subscribed and (wanted.rooms is None or room_id in wanted.rooms):
            return True
        return any(
            room_id in found and (wanted.lists is None or name in wanted.lists) for name, found in self.lists.items()
        )


def windowed(
    lists: Mapping[str, ListAsk], subscriptions: Mapping[str, RoomConfig], orders: Mapping[str, list[str]],
    subscribed: frozenset[str],
) -> Window:
    """Cut the wanted parts out of lists in full (`orders`) and add those subscriptions that the user may have."""
    window = Window(orders=orders, subscribed=subscribed)
    for name, wanted in lists.items():
        found = orders[name]
        window.counts[name] = len(found)
        if wanted.ranges is not None:
            found = [room_id for start, end in wanted.ranges for room_id in found[start : end + 1]]
        window.lists[name] = set(found)
        for room_id in found:
            window.add(room_id, wanted.config)
    for room_id, config in subscriptions.items():
        if room_id in subscribed:
            window.add(room_id, config)
    return window


class Catalogue:
    """The rooms of one user within one read. `held` are the rooms the client was sent before."""

    def __init__(self, rx: Rx, reader: RoomReader, user_id: str, held: Collection[str]) -> None:
        self._rx = rx
        self._reader = reader
        self._user = user_id
        self._held = held
        self.memberships = rooms.memberships(rx, user_id)
        self._last = sync.last_positions(rx, user_id)
        listed = [member for member in self.memberships if self._listed(member)]
        self.listed = sorted(listed, key=self.activity, reverse=True)
        self._types: dict[int, str | None] | None = None
        self._encrypted: set[int] | None = None
        self._dms: frozenset[str] | None = None
        self._tags: dict[str, frozenset[str]] | None = None
        self._spaces: dict[frozenset[str], set[str]] = {}

    def activity(self, member: Membership) -> int:
        """Return the position of the latest activity that the user may know of."""
        return self._last.get(member.rid, member.pos) if member.membership == "join" else member.pos

    def active(self, after: int) -> set[int]:
        """Return the joined rooms (rid) in which an event arrived after a position."""
        return {m.rid for m in self.memberships if m.membership == "join" and self.activity(m) > after}

    def window(self, ask: SlidingAsk) -> Window:
        """Return which rooms the request is about."""
        orders: dict[str, list[str]] = {
            name: [member.room_id for member in self.listed if self._passes(member, wanted.filter)]
            for name, wanted in ask.lists.items()
        }
        subscribed: frozenset[str] = frozenset()
        if ask.subscriptions:
            subscribed = frozenset(
                member.room_id for member in self.memberships
                if member.room_id in ask.subscriptions and self._open(member)
            )
        return windowed(ask.lists, ask.subscriptions, orders, subscribed)

    # -- which rooms there are -----------------------------------------------------------------------------------------

    def _listed(self, member: Membership) -> bool:
        if member.membership == "join":
            return True
        if member.forgotten:
            return False
        if member.membership in ("invite", "knock"):
            return self._sender(member) not in self._reader.renderer.ignored()
        if member.room_id in self._held:
            return True
        return self._sender(member) != self._user and self._was_in(member)

    def _open(self, member: Membership) -> bool:
        """Tell whether the user may know the room at all."""
        if member.forgotten:
            return False
        return member.membership in ("join", "invite", "knock") or member.room_id in self._held or self._was_in(member)

    def _was_in(self, member: Membership) -> bool:
        return self._reader.renderer.sight(member.rid).until >= 0

    def _sender(self, member: Membership) -> str | None:
        found = self._reader.known([member.eid]).get(member.eid)
        return None if found is None else found.sender

    # -- filters -------------------------------------------------------------------------------------------------------

    def _passes(self, member: Membership, wanted: ListFilter) -> bool:
        if wanted.is_invite is not None and (member.membership == "invite") != wanted.is_invite:
            return False
        if wanted.is_dm is not None and (member.room_id in self.dms) != wanted.is_dm:
            return False
        if wanted.is_encrypted is not None and (member.rid in self._is_encrypted()) != wanted.is_encrypted:
            return False
        if wanted.room_types is not None or wanted.not_room_types:
            kind = self._room_types().get(member.rid)
            if kind in wanted.not_room_types or (wanted.room_types is not None and kind not in wanted.room_types):
                return False
        if wanted.tags is not None or wanted.not_tags:
            tags = self._room_tags().get(member.room_id, frozenset())
            if tags & wanted.not_tags or (wanted.tags is not None and not tags & wanted.tags):
                return False
        return wanted.spaces is None or member.room_id in self._children(wanted.spaces)

    @property
    def dms(self) -> frozenset[str]:
        """Return the rooms that the user calls direct chats."""
        if self._dms is None:
            raw = account_data.get(self._rx, self._user, account_data.GLOBAL, "m.direct")
            chats = orjson.loads(raw).values() if raw else ()
            self._dms = frozenset(
                room_id for found in chats if isinstance(found, list) for room_id in found if isinstance(room_id, str)
            )
        return self._dms

    def _is_encrypted(self) -> set[int]:
        if self._encrypted is None:
            self._encrypted = sliding.encrypted(self._rx, self._user)
            for member in self._strangers():
                if self._shown(member, "m.room.encryption") is not None:
                    self._encrypted.add(member.rid)
        return self._encrypted

    def _room_types(self) -> Mapping[int, str | None]:
        if self._types is None:
            self._types = sliding.room_types(self._rx, self._user)
            for member in self._strangers():
                kind = (self._shown(member, "m.room.create") or {}).get("type")
                self._types[member.rid] = kind if isinstance(kind, str) else None
        return self._types

    def _room_tags(self) -> Mapping[str, frozenset[str]]:
        if self._tags is None:
            self._tags = {room_id: _names(raw) for room_id, raw in sliding.tags(self._rx, self._user)}
        return self._tags

    def _children(self, spaces: frozenset[str]) -> set[str]:
        found = self._spaces.get(spaces)
        if found is None:
            joined = [m.rid for m in self.memberships if m.membership == "join" and m.room_id in spaces]
            found = self._spaces[spaces] = sliding.space_children(self._rx, joined)
        return found

    def _strangers(self) -> list[Membership]:
        return [member for member in self.listed if member.membership in ("invite", "knock")]

    def _shown(self, member: Membership, kind: str) -> Mapping[str, Any] | None:
        """Return the content of a piece of state that somebody who is not in the room was shown."""
        for event in rooms.stripped(self._rx, self._user, member.rid):
            content = event.get("content")
            if event.get("type") == kind and event.get("state_key") == "" and isinstance(content, dict):
                return content
        return None


def _names(raw: bytes) -> frozenset[str]:
    tags = orjson.loads(raw).get("tags")
    return frozenset(tags) if isinstance(tags, dict) else frozenset()

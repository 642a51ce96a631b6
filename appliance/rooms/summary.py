"""A room in a few words, for people who are not in it: directory entries, previews, spaces.

Source: client-server API, `GET /room_summary/{roomIdOrAlias}`, `/publicRooms`, `/rooms/{roomId}/hierarchy`,
definitions `PublishedRoomsChunk` and `RoomSummary`; "Restricted rooms" for who may know of a room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from appliance.matrix import versions
from appliance.matrix.errors import NotFound, UnsupportedRoomVersion
from appliance.matrix.ids import is_room_id
from appliance.rooms.visibility import WORLD_READABLE
from appliance.store import directory, events, rooms
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.rooms import Membership, RoomRow

_KEYS: Final = tuple(
    (f"m.room.{name}", "")
    for name in (
        "create", "name", "topic", "avatar", "canonical_alias", "join_rules", "history_visibility", "guest_access",
        "encryption",
    )
)  # fmt: skip
_TEXTS: Final = (
    ("name", "m.room.name", "name"),
    ("avatar_url", "m.room.avatar", "url"),
    ("canonical_alias", "m.room.canonical_alias", "alias"),
    ("room_type", "m.room.create", "type"),
)
_ALGORITHM: Final = "m.megolm.v1.aes-sha2"
MAX_ALLOWED: Final = 100
"""Rooms of a restricted join rule that are looked at."""


class Facts(msgspec.Struct, frozen=True):
    """What a summary is made of: the room, its describing state by type, how many are joined."""

    room: RoomRow
    state: Mapping[str, Row]
    joined: int

    def content(self, type: str) -> Mapping[str, Any]:
        """Return the content of a describing state event, empty if there is none."""
        row = self.state.get(type)
        return row.event.content if row is not None else {}

    def text(self, type: str, field: str) -> str | None:
        """Return a non-empty string of a describing state event."""
        value = self.content(type).get(field)
        return value if isinstance(value, str) and value else None

    @property
    def join_rule(self) -> str:
        """The join rule; `invite` where there is none, as the authorisation rules read it."""
        return self.text("m.room.join_rules", "join_rule") or "invite"

    @property
    def is_space(self) -> bool:
        """Whether the room is a space."""
        return self.content("m.room.create").get("type") == "m.space"

    @property
    def world_readable(self) -> bool:
        """Whether everybody may read the room now."""
        return self.content("m.room.history_visibility").get("history_visibility") == WORLD_READABLE

    @property
    def allowed(self) -> list[str]:
        """Return the rooms whose members may join a restricted room."""
        if self.join_rule not in ("restricted", "knock_restricted"):
            return []
        allow = self.content("m.room.join_rules").get("allow")
        found = [
            str(entry.get("room_id"))
            for entry in (allow[:MAX_ALLOWED] if isinstance(allow, list) else [])
            if isinstance(entry, dict) and entry.get("type") == "m.room_membership" and is_room_id(entry.get("room_id"))
        ]
        return list(dict.fromkeys(found))


def facts(rx: Rx, room: RoomRow, joined: int | None = None) -> Facts:
    """Read what a summary needs."""
    rows = events.current_events(rx, room.rid, _KEYS)
    count = directory.joined_count(rx, room.rid) if joined is None else joined
    return Facts(room, {row.event.type: row for row in rows}, count)


def listing(found: Facts) -> dict[str, Any]:
    """Return the entry of the public directory."""
    entry: dict[str, Any] = {
        "room_id": found.room.room_id,
        "num_joined_members": found.joined,
        "world_readable": found.world_readable,
        "guest_can_join": found.content("m.room.guest_access").get("guest_access") == "can_join",
        "join_rule": found.join_rule,
    }
    for name, type, field in _TEXTS:
        value = found.text(type, field)
        if value is not None:
            entry[name] = value
    words = topic(found.content("m.room.topic"))
    if words is not None:
        entry["topic"] = words
    if not str(entry.get("avatar_url", "mxc://")).startswith("mxc://"):
        del entry["avatar_url"]
    return entry


def summary(found: Facts) -> dict[str, Any]:
    """Return the full summary, which adds what a client needs to decide about joining."""
    entry = listing(found)
    entry["room_version"] = found.room.version
    if found.content("m.room.encryption").get("algorithm") == _ALGORITHM:
        entry["encryption"] = _ALGORITHM
    if found.allowed:
        entry["allowed_room_ids"] = found.allowed
    return entry


def topic(content: Mapping[str, Any]) -> str | None:
    """Return the plain text of a topic: the `text/plain` representation if there are any, else the old field."""
    block = content.get("m.topic")
    texts = block.get("m.text") if isinstance(block, dict) else None
    for text in texts[:20] if isinstance(texts, list) else []:
        if isinstance(text, dict) and text.get("mimetype", "text/plain") == "text/plain":
            body = text.get("body")
            if isinstance(body, str):
                return body or None
    value = content.get("topic")
    return value if isinstance(value, str) and value else None


def may_know(rx: Rx, found: Facts, standing: Membership | None, joined_to: Sequence[str] | None = None) -> bool:
    """Tell whether somebody may see the summary: a member, somebody invited, or somebody who could join, knock or
    look in.

    `standing` is None for anonymous callers. `joined_to` are the rooms the person is joined to (None: anonymous).
    """
    kind = standing.membership if standing is not None else None
    if kind in ("join", "invite"):
        return True
    if kind == "ban":
        return False
    if found.world_readable or found.join_rule == "public" or _knockable(found):
        return True
    return bool(found.allowed) and joined_to is not None and not set(found.allowed).isdisjoint(joined_to)


def _knockable(found: Facts) -> bool:
    try:
        version = versions.get(found.room.version)
    except UnsupportedRoomVersion:
        return False
    if found.join_rule == "knock":
        return version.knocking
    return found.join_rule == "knock_restricted" and version.knock_restricted


def joined_ids(rx: Rx, user_id: str) -> list[str]:
    """Return the ids of the rooms a user is joined to."""
    return [member.room_id for member in rooms.memberships(rx, user_id) if member.membership == "join"]


def preview(rx: Rx, user_id: str | None, room_id_or_alias: str) -> dict[str, Any]:
    """Return the summary of one room with the caller's membership; raises `NotFound`, also for what they may not
    know.
    """
    by_alias = room_id_or_alias.startswith("#")
    room = rooms.alias_target(rx, room_id_or_alias) if by_alias else rooms.find(rx, room_id_or_alias)
    if room is None or room.sid is None:
        raise NotFound("Room not found")
    found = facts(rx, room)
    standing = rooms.membership(rx, user_id, room.rid) if user_id is not None else None
    joined_to = joined_ids(rx, user_id) if user_id is not None and found.allowed else None
    if not may_know(rx, found, standing, joined_to):
        raise NotFound("Room not found")
    result = summary(found)
    if user_id is not None:
        result["membership"] = standing.membership if standing is not None else "leave"
    return result

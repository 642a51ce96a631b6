"""What a sync tells one device: messages for it alone, whose devices changed, and how many of its keys are left.

Source: client-server API, "Send-to-Device messaging" and "End-to-End Encryption", extensions to /sync.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from appliance.store import events, keys, rooms, state, sync, to_device
from appliance.store.readers import Rx
from appliance.store.rooms import Membership
from appliance.store.timeline import key_ids

TO_DEVICE_LIMIT: Final = 100
"""Messages in one answer, as the specification recommends; the rest follows with the next."""


class Stretch(msgspec.Struct, frozen=True):
    """A stretch of the stream, and the user's joined rooms (rid) in which something happened in it."""

    after: int
    upto: int
    active: Collection[int]


class KeyCounts(msgspec.Struct, frozen=True):
    """What is left of a device's published keys."""

    one_time: dict[str, int]
    fallback: list[str]


class Letters(msgspec.Struct, frozen=True):
    """Messages for one device. `upto` is the position the answer covers; `more` says that it is not the end."""

    messages: list[bytes] = msgspec.field(default_factory=list)
    upto: int = 0
    more: bool = False


class DeviceLists(msgspec.Struct, frozen=True):
    """Users whose devices must be looked up anew, and users with whom no room is shared any more."""

    changed: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()


def key_counts(rx: Rx, user_id: str, device_id: str) -> KeyCounts:
    """Return what is left of a device's keys, zeros included."""
    return KeyCounts(keys.one_time_counts(rx, user_id, device_id), keys.unused_fallback(rx, user_id, device_id))


def letters(rx: Rx, user_id: str, device_id: str, after: int, upto: int, limit: int = TO_DEVICE_LIMIT) -> Letters:
    """Return the messages for a device after a position, oldest first."""
    found = to_device.pending(rx, user_id, device_id, after, upto, limit + 1)
    more = len(found) > limit
    found = found[:limit]
    return Letters([message for _, message in found], found[-1][0] if more and found else upto, more)


def device_lists(rx: Rx, user_id: str, memberships: Iterable[Membership], stretch: Stretch) -> DeviceLists:
    """Return whose devices changed for this user: by new keys or devices, by meeting, by parting."""
    past = _Past(rx, stretch.after)
    mine = [m for m in memberships if m.pos > stretch.after]
    entered = [m.rid for m in mine if m.membership == "join" and not past.joined(m.rid, user_id)]
    moved = sync.members_moved(rx, user_id, stretch.active, stretch.after)
    met = {who for rid, who, kind in moved if kind == "join" and not past.joined(rid, who)}
    parted = {who for rid, who, kind in moved if kind != "join" and past.joined(rid, who)}
    if entered:
        met |= sync.joined_members(rx, entered)
    for member in mine:
        if member.membership in ("leave", "ban") and past.joined(member.rid, user_id):
            people = rooms.members(rx, member.rid)
            parted |= {other.user_id for other in people if other.membership == "join" or other.pos > stretch.after}
    announced = sync.device_changes(rx, user_id, stretch.after, stretch.upto)
    if not (met or parted or announced):
        return DeviceLists()
    sharing = rooms.users_sharing(rx, user_id)
    met = (met & sharing) - (sync.sharing_before(rx, user_id, met, stretch.after) if met else set())
    changed = (announced & (sharing | {user_id})) | met
    return DeviceLists(frozenset(changed), frozenset(parted - sharing - {user_id}))


def changes(rx: Rx, user_id: str, after: int, upto: int) -> DeviceLists:
    """Return whose devices changed for this user after one moment and up to another (GET /keys/changes)."""
    active = sync.active_rooms(rx, user_id, after, upto)
    return device_lists(rx, user_id, rooms.memberships(rx, user_id), Stretch(after, upto, active))


def changes_between(rx: Rx, user_id: str, after: int, upto: int) -> DeviceLists:
    """Return what the syncs between two positions told or would have told (`GET /keys/changes`)."""
    stretch = Stretch(after, min(upto, sync.position(rx)), sync.active_rooms(rx, user_id, after, upto))
    if stretch.after >= stretch.upto:
        return DeviceLists()
    return device_lists(rx, user_id, rooms.memberships(rx, user_id), stretch)


class _Past:
    """Who was joined to which room at one moment."""

    def __init__(self, rx: Rx, pos: int) -> None:
        self._rx = rx
        self._pos = pos
        self._states: dict[int, dict[int, int]] = {}

    def joined(self, rid: int, user_id: str) -> bool:
        """Tell whether somebody was joined then."""
        found = self._states.get(rid)
        if found is None:
            sid = state.sid_at(self._rx, rid, self._pos)
            found = self._states[rid] = state.pairs(self._rx, sid) if sid is not None else {}
        if not found:
            return False
        sk = key_ids(self._rx, [("m.room.member", user_id)])[0]
        eid = found.get(sk) if sk is not None else None
        row = events.by_eids(self._rx, [eid]).get(eid) if eid is not None else None
        return row is not None and row.event.content.get("membership") == "join"

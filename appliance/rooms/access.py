"""Who may read a room at all, and as of when.

Somebody who is joined reads the present. Somebody who was joined and has not forgotten the room reads what was there
until they left. Where the present state says `world_readable` everybody may look in. Everybody else is told the same
as about a room that does not exist: 403, so that nothing can be learnt by guessing room ids.

Source: client-server API, "Room History Visibility", "Leaving rooms", and the 403 rows of the room endpoints.
"""

from __future__ import annotations

import msgspec

from appliance.matrix.errors import Forbidden, NotFound
from appliance.rooms.visibility import WORLD_READABLE, last_joined
from appliance.store import events, rooms
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.rooms import Membership, RoomRow
from appliance.store.writer import Tx

_REFUSAL = "You are not in this room"


class Reader(msgspec.Struct, frozen=True):
    """A room as one person may read it.

    `sid` is the state snapshot they may see: the current one, or that of the moment they left (`left` is then the event
    that ended their membership).
    """

    room: RoomRow
    membership: Membership | None
    sid: int
    left: Row | None = None

    @property
    def joined(self) -> bool:
        """Whether the person is in the room now."""
        return self.membership is not None and self.membership.membership == "join"


def require_member(rx: Rx | Tx, user_id: str, room_id: str) -> RoomRow:
    """Return the room if the user is joined to it; raises `Forbidden`, also for a room that does not exist."""
    room = rooms.find(rx, room_id)
    standing = rooms.membership(rx, user_id, room.rid) if room is not None else None
    if room is None or standing is None or standing.membership != "join":
        raise Forbidden(_REFUSAL)
    return room


def require_room(rx: Rx | Tx, room_id: str) -> RoomRow:
    """Return a room this server knows the state of; raises `NotFound`."""
    room = rooms.find(rx, room_id)
    if room is None or room.sid is None:
        raise NotFound("Room not found")
    return room


def world_readable(rx: Rx | Tx, rid: int) -> bool:
    """Tell whether the room can be read without joining it now."""
    found = events.current_events(rx, rid, [("m.room.history_visibility", "")])
    return bool(found) and found[0].event.content.get("history_visibility") == WORLD_READABLE


def reader(rx: Rx | Tx, user_id: str, room_id: str) -> Reader:
    """Return the room as the user may read it; raises `Forbidden` for all others and for unknown rooms."""
    room = rooms.find(rx, room_id)
    if room is None or room.sid is None:
        raise Forbidden(_REFUSAL)
    standing = rooms.membership(rx, user_id, room.rid)
    if standing is not None and standing.membership == "join":
        return Reader(room, standing, room.sid)
    left = last_joined(rx, standing)
    if world_readable(rx, room.rid):
        return Reader(room, standing, room.sid, left)
    if left is None or left.sid is None:
        raise Forbidden(_REFUSAL)
    return Reader(room, standing, left.sid, left)

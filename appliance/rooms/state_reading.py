"""Reading a room's state: all of it, one event, the members; for former members as it was when they left.

Source: client-server API, `GET /rooms/{roomId}/state`, `/state/{eventType}/{stateKey}`, `/members`,
`/joined_members`, `/aliases`, `GET /joined_rooms`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appliance.matrix.errors import Forbidden, NotFound
from appliance.matrix.requester import Requester
from appliance.rooms.access import Reader, reader, require_member, world_readable
from appliance.rooms.render import Renderer
from appliance.store import directory, events, rooms, state
from appliance.store.events import Row
from appliance.store.readers import Rx

MEMBERSHIPS: Final = ("join", "invite", "knock", "leave", "ban")


def whole(rx: Rx, requester: Requester, room_id: str, now: int) -> list[dict[str, Any]]:
    """Return every state event the requester may see; raises `Forbidden`."""
    access = reader(rx, requester.user_id, room_id)
    return Renderer(rx, requester, now).render(_rows(rx, access), bundle=False)


def one(
    rx: Rx, requester: Requester, room_id: str, key: tuple[str, str], full: bool, now: int
) -> Mapping[str, Any]:
    """Return the content of one state event, or with `full` the event; raises `Forbidden`, `NotFound`."""
    access = reader(rx, requester.user_id, room_id)
    if access.sid == access.room.sid:
        rows = events.current_events(rx, access.room.rid, [key])
    else:
        eid = state.entry(rx, access.sid, key)
        rows = [] if eid is None else list(events.by_eids(rx, [eid]).values())
    if not rows:
        raise NotFound("The room has no such state")
    if full:
        return Renderer(rx, requester, now).render(rows, bundle=False)[0]
    return rows[0].event.content


def _rows(rx: Rx, access: Reader) -> list[Row]:
    if access.sid == access.room.sid:
        return events.current_events(rx, access.room.rid)
    return events.events_of(rx, access.sid)


def members(
    rx: Rx,
    requester: Requester,
    room_id: str,
    at: int | None,
    membership: str | None,
    not_membership: str | None,
    now: int,
) -> dict[str, Any]:
    """Return the membership events, at the timeline point `at` or now; raises `Forbidden`.

    With both conditions an event passes that meets either of them, as the specification says.
    """
    access = reader(rx, requester.user_id, room_id)
    sid: int | None = access.sid
    if at is not None:
        past = state.sid_at(rx, access.room.rid, at)
        limit = access.left.pos if access.left is not None and access.sid != access.room.sid else None
        sid = past if limit is None or at <= (limit or 0) else access.sid
    rows = _members_in(rx, access, sid)
    wanted = [row for row in rows if _passes(row, membership, not_membership)]
    return {"chunk": Renderer(rx, requester, now).render(wanted, bundle=False)}


def _members_in(rx: Rx, access: Reader, sid: int | None) -> list[Row]:
    if sid is None:
        return []
    if sid == access.room.sid:
        eids = [member.eid for member in rooms.members(rx, access.room.rid)]
        found = events.by_eids(rx, eids)
        return [found[eid] for eid in eids if eid in found]
    keys = [key for key in state.snapshot(rx, sid) if key[0] == "m.room.member"]
    return events.events_of(rx, sid, keys)


def _passes(row: Row, membership: str | None, not_membership: str | None) -> bool:
    if membership is None and not_membership is None:
        return True
    value = row.event.content.get("membership")
    return (membership is not None and value == membership) or (not_membership is not None and value != not_membership)


def joined_members(rx: Rx, requester: Requester, room_id: str) -> dict[str, Any]:
    """Return who is joined, with display name and avatar as in this room; only for joined people."""
    room = require_member(rx, requester.user_id, room_id)
    eids = [member.eid for member in rooms.members(rx, room.rid, "join")]
    found = events.by_eids(rx, eids)
    return {"joined": {str(row.event.state_key): _profile(row) for row in (found[eid] for eid in eids if eid in found)}}


def _profile(row: Row) -> dict[str, str]:
    content = row.event.content
    profile = {"display_name": content.get("displayname"), "avatar_url": content.get("avatar_url")}
    return {name: value for name, value in profile.items() if isinstance(value, str)}


def joined_rooms(rx: Rx, requester: Requester) -> dict[str, Any]:
    """Return the ids of the rooms the requester is joined to."""
    mine = rooms.memberships(rx, requester.user_id)
    return {"joined_rooms": [member.room_id for member in mine if member.membership == "join"]}


def aliases(rx: Rx, requester: Requester, room_id: str) -> dict[str, Any]:
    """Return the local aliases of a room; for joined people, or everybody where the room is world readable."""
    room = rooms.find(rx, room_id)
    standing = rooms.membership(rx, requester.user_id, room.rid) if room is not None else None
    if room is None or not (
        (standing is not None and standing.membership == "join") or world_readable(rx, room.rid)
    ):
        raise Forbidden("You are not in this room")
    return {"aliases": directory.aliases_of(rx, room.rid)}

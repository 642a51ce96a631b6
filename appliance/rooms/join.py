"""Joining and knocking.

Source: client-server API, `POST /join/{roomIdOrAlias}`, `POST /knock/{roomIdOrAlias}`; room version 8 for restricted
rooms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.matrix.auth import CREATE, JOIN_RULES, POWER_LEVELS
from appliance.matrix.errors import Forbidden, NotFound
from appliance.matrix.event import Event
from appliance.matrix.ids import RoomId, UserId, server_of
from appliance.matrix.membership import join_rule_of, membership_of
from appliance.matrix.power import Power
from appliance.matrix.requester import Requester, require_active
from appliance.rooms.author import Author, Draft
from appliance.rooms.head import Head
from appliance.rooms.invite import shown_state
from appliance.rooms.members import Members
from appliance.rooms.profiles import member_content
from appliance.store import rooms


class NobodyMayLetIn(Forbidden):
    """In a restricted room, no member of this server may invite, and so none may authorise a join."""


async def find(author: Author, room_or_alias: str) -> RoomId:
    """Return the room that an id or a local alias names; raises `NotFound`."""
    if room_or_alias.startswith("#"):
        room = await author.store.read(rooms.alias_target, room_or_alias)
        if room is None:
            raise NotFound(f"There is no room {room_or_alias}")
        return room.room_id
    if await author.heads.get(room_or_alias) is None:
        raise NotFound("There is no such room here")
    return RoomId(room_or_alias)


async def join(
    author: Author, members: Members, requester: Requester, room_id: RoomId, *, reason: str | None = None,
    extra: Mapping[str, Any] | None = None
) -> RoomId:
    """Join a room; joining again is not an error. Raises `Forbidden` if its rules refuse it."""
    require_active(requester)
    mine = (await members.rooms_of(requester.user_id)).get(room_id)
    if mine is not None and mine.membership == "join":
        return room_id
    head = await author.head(room_id)
    content = {**(extra or {}), **await member_content(author, requester.user_id, "join", reason)}
    authoriser = await authoriser_of(author, members, head, requester.user_id)
    if authoriser is not None:
        content["join_authorised_via_users_server"] = authoriser
    await author.add(room_id, Draft("m.room.member", requester.user_id, content, requester.user_id))
    return room_id


async def knock(author: Author, requester: Requester, room_id: RoomId, reason: str | None = None) -> RoomId:
    """Ask to be let in; raises `Forbidden` if the room does not take knocks."""
    require_active(requester)
    head = await author.head(room_id)
    content = await member_content(author, requester.user_id, "knock", reason)
    shown = await shown_state(author, head, requester.user_id)
    await author.add(room_id, Draft("m.room.member", requester.user_id, content, requester.user_id, shown=shown))
    return room_id


async def authoriser_of(author: Author, members: Members, head: Head, user_id: UserId) -> UserId | None:
    """In a restricted room: if the user is in one of the allowed rooms, name a local member who may invite."""
    member = ("m.room.member", user_id)
    state = await author.heads.state_of(head, [CREATE, JOIN_RULES, POWER_LEVELS, member])
    rules = state.get(JOIN_RULES)
    if rules is None or join_rule_of(rules) not in ("restricted", "knock_restricted"):
        return None
    if membership_of(state.get(member)) in ("invite", "join"):
        return None
    theirs = await members.rooms_of(user_id)
    allowed = allowed_rooms(rules)
    if not any((m := theirs.get(room_id)) is not None and m.membership == "join" for room_id in allowed):
        raise Forbidden("You are in none of the rooms whose members may join")
    power = Power(head.version, state.get(CREATE), state.get(POWER_LEVELS))
    for candidate in sorted(await members.local_joined(head.room_id)):
        if power.of(candidate) >= power.invite and server_of(candidate) == author.server:
            return candidate
    raise NobodyMayLetIn("Nobody on this server may let you in")


def allowed_rooms(rules: Event) -> list[RoomId]:
    """Return the rooms whose members may join by themselves."""
    allow = rules.content.get("allow")
    entries = [entry for entry in (allow if isinstance(allow, list) else []) if isinstance(entry, dict)]
    named = [entry.get("room_id") for entry in entries if entry.get("type") == "m.room_membership"]
    return [RoomId(room_id) for room_id in named if isinstance(room_id, str)]

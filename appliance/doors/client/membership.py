"""Joining, inviting, leaving, banning, forgetting."""

from __future__ import annotations

from typing import Any

from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.matrix import ids
from appliance.matrix.errors import InvalidParam
from appliance.matrix.ids import RoomId, UserId
from appliance.rooms import invite, join, leave
from appliance.rooms.author import Author
from appliance.rooms.members import Members

CLIENT = "/_matrix/client/v3"
REASON_LIMIT = 2000


def routes(author: Author, members: Members) -> list[Route]:
    """Return the operations on memberships."""

    async def post_join(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        room_id = await join.find(author, _room_or_alias(call))
        return {"room_id": await join.join(author, members, call.requester, room_id, reason=_reason(body))}

    async def post_knock(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        room_id = await join.find(author, _room_or_alias(call))
        return {"room_id": await join.knock(author, call.requester, room_id, _reason(body))}

    async def post_invite(call: Call) -> dict[str, Any]:
        body = await call.json()
        if "medium" in body or "id_server" in body:
            raise InvalidParam("Invitations by e-mail or telephone are not offered here")
        await invite.invite(author, call.requester, _room(call), _user(body), reason=_reason(body))
        return {}

    async def post_leave(call: Call) -> dict[str, Any]:
        reason = _reason(await call.json(optional=True))
        await leave.leave(author, members, call.requester, _room(call), reason)
        return {}

    async def post_kick(call: Call) -> dict[str, Any]:
        body = await call.json()
        await leave.kick(author, call.requester, _room(call), _user(body), _reason(body))
        return {}

    async def post_ban(call: Call) -> dict[str, Any]:
        body = await call.json()
        await leave.ban(author, call.requester, _room(call), _user(body), _reason(body))
        return {}

    async def post_unban(call: Call) -> dict[str, Any]:
        body = await call.json()
        await leave.unban(author, call.requester, _room(call), _user(body), _reason(body))
        return {}

    async def post_forget(call: Call) -> dict[str, Any]:
        await leave.forget(author, members, call.requester, _room(call))
        return {}

    room = CLIENT + "/rooms/{room_id}"
    return [
        Route("POST", CLIENT + "/join/{room}", post_join, rate="join"),
        Route("POST", room + "/join", post_join, rate="join"),
        Route("POST", CLIENT + "/knock/{room}", post_knock, rate="join"),
        Route("POST", room + "/invite", post_invite, rate="invite"),
        Route("POST", room + "/leave", post_leave),
        Route("POST", room + "/kick", post_kick),
        Route("POST", room + "/ban", post_ban),
        Route("POST", room + "/unban", post_unban),
        Route("POST", room + "/forget", post_forget),
    ]


def _room(call: Call) -> RoomId:
    return ids.room_id(call.path("room_id"))


def _room_or_alias(call: Call) -> str:
    text = call.request.match_info.get("room")
    if text is None:
        return _room(call)
    return ids.room_alias(text) if text.startswith("#") else ids.room_id(text)


def _user(body: dict[str, Any]) -> UserId:
    return ids.user_id(fields.string(body, "user_id"))


def _reason(body: dict[str, Any]) -> str | None:
    return fields.optional_string(body, "reason", maximum=REASON_LIMIT)

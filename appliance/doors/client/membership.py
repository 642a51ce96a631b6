"""Joining, inviting, leaving, banning, forgetting."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
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
    door = _Door(author, members)
    room = CLIENT + "/rooms/{room_id}"
    return [
        Route("POST", CLIENT + "/join/{room}", door.join, rate="join"),
        Route("POST", room + "/join", door.join, rate="join"),
        Route("POST", CLIENT + "/knock/{room}", door.knock, rate="join"),
        Route("POST", room + "/invite", door.invite, rate="invite"),
        Route("POST", room + "/leave", door.leave),
        Route("POST", room + "/kick", door.kick),
        Route("POST", room + "/ban", door.ban),
        Route("POST", room + "/unban", door.unban),
        Route("POST", room + "/forget", door.forget),
    ]


class _Door:
    def __init__(self, author: Author, members: Members) -> None:
        self._author = author
        self._members = members

    async def join(self, call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        room_id = await join.find(self._author, _room_or_alias(call))
        reason = _reason(body)
        return {"room_id": await join.join(self._author, self._members, call.requester, room_id, reason=reason)}

    async def knock(self, call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        room_id = await join.find(self._author, _room_or_alias(call))
        return {"room_id": await join.knock(self._author, call.requester, room_id, _reason(body))}

    async def invite(self, call: Call) -> dict[str, Any]:
        body = await call.json()
        if "medium" in body or "id_server" in body:
            raise InvalidParam("Invitations by e-mail or telephone are not offered here")
        await invite.invite(self._author, call.requester, _room(call), _user(body), reason=_reason(body))
        return {}

    async def leave(self, call: Call) -> dict[str, Any]:
        reason = _reason(await call.json(optional=True))
        await leave.leave(self._author, self._members, call.requester, _room(call), reason)
        return {}

    async def kick(self, call: Call) -> dict[str, Any]:
        return await self._move(call, leave.kick)

    async def ban(self, call: Call) -> dict[str, Any]:
        return await self._move(call, leave.ban)

    async def unban(self, call: Call) -> dict[str, Any]:
        return await self._move(call, leave.unban)

    async def _move(self, call: Call, how: Callable[..., Awaitable[None]]) -> dict[str, Any]:
        """Change somebody else's membership."""
        body = await call.json()
        await how(self._author, call.requester, _room(call), _user(body), _reason(body))
        return {}

    async def forget(self, call: Call) -> dict[str, Any]:
        await leave.forget(self._author, self._members, call.requester, _room(call))
        return {}


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

"""People of other servers who join, leave or knock: the template, and the completed event.

Source: server-server API, "Joining Rooms", "Leaving Rooms (Rejecting Invites)", "Knocking upon a room".
"""

from __future__ import annotations

from typing import Any, Final

from appliance.doors.federation.entry import PeerCall, PeerHandler, PeerRoute
from appliance.matrix import ids
from appliance.matrix.ids import ServerName
from appliance.rooms.handshakes import Coming, Handshakes

V1: Final = "/_matrix/federation/v1"
V2: Final = "/_matrix/federation/v2"
UNNAMED: Final = ["1"]
"""Versions that somebody knows who names none."""


def routes(handshakes: Handshakes, home: ServerName) -> list[PeerRoute]:
    """List the operations."""

    def make(membership: str) -> PeerHandler:
        async def handler(call: PeerCall) -> dict[str, Any]:
            user_id = ids.user_id(call.call.path("user_id"))
            offered = call.call.query_all("ver") or UNNAMED
            return await handshakes.template(_coming(call, membership), user_id, offered)

        return handler

    async def send_join(call: PeerCall) -> dict[str, Any]:
        omit = call.call.query_bool("omit_members")
        found = await handshakes.join(_coming(call, "join"), _event(call), call.content, omit_members=omit)
        answer: dict[str, Any] = {
            "origin": home, "event": found.event, "state": found.state, "auth_chain": found.auth_chain,
            "members_omitted": found.omitted,
        }  # fmt: skip
        return {**answer, "servers_in_room": found.servers} if found.omitted else answer

    async def send_leave(call: PeerCall) -> dict[str, Any]:
        await handshakes.leave(_coming(call, "leave"), _event(call), call.content)
        return {}

    async def send_knock(call: PeerCall) -> dict[str, Any]:
        return {"knock_room_state": await handshakes.knock(_coming(call, "knock"), _event(call), call.content)}

    return [
        *(PeerRoute("GET", f"{V1}/make_{kind}/{{room_id}}/{{user_id}}", make(kind))
          for kind in ("join", "leave", "knock")),
        PeerRoute("PUT", V2 + "/send_join/{room_id}/{event_id}", send_join),
        PeerRoute("PUT", V2 + "/send_leave/{room_id}/{event_id}", send_leave),
        PeerRoute("PUT", V1 + "/send_knock/{room_id}/{event_id}", send_knock),
    ]  # fmt: skip


def _coming(call: PeerCall, membership: str) -> Coming:
    return Coming(call.peer, ids.room_id(call.call.path("room_id")), membership)


def _event(call: PeerCall) -> str:
    return ids.event_id(call.call.path("event_id"))

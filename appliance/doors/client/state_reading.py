"""Reading a room's state and members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.doors.client.timeline import ROOM, encoded, point, room
from appliance.doors.web import Call, Route
from appliance.rooms import state_reading
from appliance.rooms.state_reading import MEMBERSHIPS
from appliance.store.database import Store


def routes(store: Store, clock: Callable[[], int]) -> list[Route]:
    """Return the operations that read state."""

    async def whole(call: Call) -> bytes:
        return await store.read(encoded, state_reading.whole, call.requester, room(call), clock())

    async def one(call: Call) -> Any:
        full = call.query_choice("format", ("content", "event"), "content") == "event"
        key = call.path("type"), call.request.match_info.get("state_key", "")
        return await store.read(state_reading.one, call.requester, room(call), key, full, clock())

    async def members(call: Call) -> bytes:
        return await store.read(
            encoded,
            state_reading.members,
            call.requester,
            room(call),
            point(call, "at"),
            _membership(call, "membership"),
            _membership(call, "not_membership"),
            clock(),
        )

    async def joined_members(call: Call) -> bytes:
        return await store.read(encoded, state_reading.joined_members, call.requester, room(call))

    async def joined_rooms(call: Call) -> dict[str, Any]:
        return await store.read(state_reading.joined_rooms, call.requester)

    async def aliases(call: Call) -> dict[str, Any]:
        return await store.read(state_reading.aliases, call.requester, room(call))

    return [
        Route("GET", ROOM + "/state", whole),
        Route("GET", ROOM + "/state/{type}", one),
        Route("GET", ROOM + "/state/{type}/{state_key:(?s:.*)}", one),
        Route("GET", ROOM + "/members", members),
        Route("GET", ROOM + "/joined_members", joined_members),
        Route("GET", ROOM + "/aliases", aliases),
        Route("GET", "/_matrix/client/v3/joined_rooms", joined_rooms),
    ]


def _membership(call: Call, name: str) -> str | None:
    return call.query_choice(name, MEMBERSHIPS) if call.query(name) is not None else None

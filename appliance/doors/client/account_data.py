"""What clients keep for themselves: account data, global and per room, and tags."""

from __future__ import annotations

from typing import Any

from appliance.accounts.account_data import ENTRY_BYTES, AccountData
from appliance.accounts.devices import require_own
from appliance.doors.web import Call, Route
from appliance.matrix.ids import UserId

USER = "/_matrix/client/v3/user/{user_id}"
ROOM = USER + "/rooms/{room_id}"
GLOBAL = ""
BODY_LIMIT = 2 * ENTRY_BYTES
"""Room for white space around what is kept."""


def routes(account_data: AccountData) -> list[Route]:
    """Return the operations on account data and tags."""

    def where(call: Call) -> tuple[UserId, str]:
        require_own(call.requester, call.path("user_id"))
        return call.requester.user_id, call.request.match_info.get("room_id", GLOBAL)

    async def get(call: Call) -> bytes:
        return await account_data.get(*where(call), call.path("type"))

    async def put(call: Call) -> dict[str, Any]:
        await account_data.put(*where(call), call.path("type"), await call.json())
        return {}

    async def get_tags(call: Call) -> dict[str, Any]:
        return {"tags": await account_data.tags(*where(call))}

    async def put_tag(call: Call) -> dict[str, Any]:
        await account_data.put_tag(*where(call), call.path("tag"), await call.json(optional=True))
        return {}

    async def delete_tag(call: Call) -> dict[str, Any]:
        await account_data.remove_tag(*where(call), call.path("tag"))
        return {}

    return [
        Route("GET", USER + "/account_data/{type}", get),
        Route("PUT", USER + "/account_data/{type}", put, body_limit=BODY_LIMIT),
        Route("GET", ROOM + "/account_data/{type}", get),
        Route("PUT", ROOM + "/account_data/{type}", put, body_limit=BODY_LIMIT),
        Route("GET", ROOM + "/tags", get_tags),
        Route("PUT", ROOM + "/tags/{tag}", put_tag),
        Route("DELETE", ROOM + "/tags/{tag}", delete_tag),
    ]

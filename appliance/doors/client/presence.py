"""Who is online."""

from __future__ import annotations

from typing import Any

from appliance.accounts.devices import require_own
from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.matrix import ids
from appliance.sync.presence import Presence

PATH = "/_matrix/client/v3/presence/{user_id}/status"
STATUS_LIMIT = 512


def routes(presence: Presence) -> list[Route]:
    """Return the operations on presence."""

    async def get(call: Call) -> dict[str, Any]:
        return await presence.get(call.requester.user_id, ids.user_id(call.path("user_id")))

    async def put(call: Call) -> dict[str, Any]:
        require_own(call.requester, call.path("user_id"))
        body = await call.json()
        state = fields.choice(body, "presence", ("online", "offline", "unavailable"))
        status = fields.optional_string(body, "status_msg", maximum=STATUS_LIMIT)
        await presence.put(call.requester.user_id, state, status)
        return {}

    return [Route("GET", PATH, get), Route("PUT", PATH, put)]

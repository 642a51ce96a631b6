"""Messages from device to device."""

from __future__ import annotations

from typing import Any

from appliance.accounts.to_device import ToDevice
from appliance.doors import fields
from appliance.doors.web import Call, Route

BODY_LIMIT = 4 * 1024 * 1024
"""A room key goes to every device of a large room in one request."""


def routes(to_device: ToDevice) -> list[Route]:
    """Return the one operation."""

    async def put(call: Call) -> dict[str, Any]:
        messages = fields.mapping(await call.json(), "messages")
        await to_device.send(call.requester, call.path("type"), call.path("txn"), messages)
        return {}

    path = "/_matrix/client/v3/sendToDevice/{type}/{txn}"
    return [Route("PUT", path, put, body_limit=BODY_LIMIT)]

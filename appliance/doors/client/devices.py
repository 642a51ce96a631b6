"""A person's own devices."""

from __future__ import annotations

from typing import Any

from appliance.accounts.devices import Devices
from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.store.devices import Device

CLIENT = "/_matrix/client/v3"
NAME_LIMIT = 100
AT_ONCE = 1000


def routes(devices: Devices) -> list[Route]:
    """Return the operations on devices."""

    async def get_all(call: Call) -> dict[str, Any]:
        return {"devices": [_rendered(device) for device in await devices.of(call.requester.user_id)]}

    async def get_one(call: Call) -> dict[str, Any]:
        return _rendered(await devices.one(call.requester.user_id, call.path("device_id")))

    async def put_one(call: Call) -> dict[str, Any]:
        name = fields.optional_string(await call.json(), "display_name", maximum=NAME_LIMIT)
        if name is None:
            await devices.one(call.requester.user_id, call.path("device_id"))
        else:
            await devices.rename(call.requester.user_id, call.path("device_id"), name)
        return {}

    async def delete_one(call: Call) -> dict[str, Any]:
        auth = fields.optional_mapping(await call.json(optional=True), "auth")
        device_id = call.path("device_id")
        await devices.delete_confirmed(call.requester, [device_id], auth, f"devices/{device_id}")
        return {}

    async def post_delete(call: Call) -> dict[str, Any]:
        body = await call.json()
        auth = fields.optional_mapping(body, "auth")
        ids = fields.strings(body, "devices", maximum=AT_ONCE)
        await devices.delete_confirmed(call.requester, ids, auth, f"delete_devices {sorted(ids)}")
        return {}

    return [
        Route("GET", CLIENT + "/devices", get_all),
        Route("GET", CLIENT + "/devices/{device_id}", get_one),
        Route("PUT", CLIENT + "/devices/{device_id}", put_one),
        Route("DELETE", CLIENT + "/devices/{device_id}", delete_one, rate="login"),
        Route("POST", CLIENT + "/delete_devices", post_delete, rate="login"),
    ]


def _rendered(device: Device) -> dict[str, Any]:
    found: dict[str, Any] = {"device_id": device.device_id}
    if device.display_name is not None:
        found["display_name"] = device.display_name
    if device.seen_ip is not None:
        found["last_seen_ip"] = device.seen_ip
    found["last_seen_ts"] = device.seen
    return found

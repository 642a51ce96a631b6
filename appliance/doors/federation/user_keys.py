"""Devices and keys of our users, for users of other servers who write to them.

Source: server-server API, "End-to-End Encryption", "Device Management".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appliance.accounts import e2ee_keys
from appliance.accounts.e2ee_keys import KeyServer
from appliance.doors import fields
from appliance.doors.federation.entry import PeerCall, PeerRoute
from appliance.matrix import ids
from appliance.matrix.errors import InvalidParam, NotFound
from appliance.matrix.ids import ServerName
from appliance.store import device_lists, directory
from appliance.store.database import Store
from appliance.store.readers import Rx

USER: Final = "/_matrix/federation/v1/user"
MOST_USERS: Final = 1_000
MOST_DEVICES: Final = 1_000
ANYBODY: Final = ""
"""Somebody elsewhere, as `published` names the viewer: sees no user-signing key and nobody's private signatures."""


def routes(store: Store, home: ServerName, keys: KeyServer) -> list[PeerRoute]:
    """List the operations; only users of this server are answered for."""

    async def query(call: PeerCall) -> dict[str, Any]:
        found = await store.read(e2ee_keys.published, _queried(call.content, home), ANYBODY)
        return {part: found[part] for part in ("device_keys", "master_keys", "self_signing_keys")}

    async def claim(call: PeerCall) -> dict[str, Any]:
        return {"one_time_keys": (await keys.claim(_claimed(call.content, home)))["one_time_keys"]}

    async def devices(call: PeerCall) -> dict[str, Any]:
        user_id = ids.user_id(call.call.path("user_id"))
        _require_ours(user_id, home)
        return await store.read(_devices, user_id)

    return [
        PeerRoute("POST", USER + "/keys/query", query),
        PeerRoute("POST", USER + "/keys/claim", claim),
        PeerRoute("GET", USER + "/devices/{user_id}", devices),
    ]


def _devices(rx: Rx, user_id: str) -> dict[str, Any]:
    """Return a user's whole device list with its version, from one and the same moment."""
    if not directory.account_exists(rx, user_id):
        raise NotFound("There is no such user here")
    found = e2ee_keys.published(rx, {user_id: ()}, ANYBODY)
    answer: dict[str, Any] = {
        "user_id": user_id,
        "stream_id": device_lists.version(rx, user_id),
        "devices": [_device(device_id, value) for device_id, value in found["device_keys"][user_id].items()],
    }
    for usage in ("master", "self_signing"):
        if user_id in found[f"{usage}_keys"]:
            answer[f"{usage}_key"] = found[f"{usage}_keys"][user_id]
    return answer


def _device(device_id: str, value: Mapping[str, Any]) -> dict[str, Any]:
    device: dict[str, Any] = {"device_id": device_id, "keys": {k: v for k, v in value.items() if k != "unsigned"}}
    name = value.get("unsigned", {}).get("device_display_name")
    return device if name is None else {**device, "device_display_name": name}


def _require_ours(user_id: str, home: ServerName) -> None:
    if ids.server_of(ids.user_id(user_id)) != home:
        raise InvalidParam(f"{user_id} belongs to another server")


def _users(body: Mapping[str, Any], name: str, home: ServerName) -> dict[str, Any]:
    users = fields.mapping(body, name)
    if len(users) > MOST_USERS:
        raise InvalidParam(f"At most {MOST_USERS} users can be asked about at once")
    for user_id in users:
        _require_ours(user_id, home)
    return users


def _queried(body: Mapping[str, Any], home: ServerName) -> dict[str, list[str]]:
    users = _users(body, "device_keys", home)
    return {user_id: fields.strings(users, user_id, maximum=MOST_DEVICES) for user_id in users}


def _claimed(body: Mapping[str, Any], home: ServerName) -> dict[str, dict[str, str]]:
    users = _users(body, "one_time_keys", home)
    wanted = {user_id: fields.as_mapping(part, user_id) for user_id, part in users.items()}
    if sum(map(len, wanted.values())) > MOST_DEVICES:
        raise InvalidParam(f"Keys of at most {MOST_DEVICES} devices can be claimed at once")
    return {user: {device: fields.string(part, device) for device in part} for user, part in wanted.items()}

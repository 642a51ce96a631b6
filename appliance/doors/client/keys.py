"""Keys for end-to-end encryption: devices', one-time, fallback and cross-signing keys; the dehydrated device."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, TypeVar

from appliance.accounts.cross_signing import CrossSigning
from appliance.accounts.dehydrated import Dehydrated
from appliance.accounts.e2ee_keys import KeyServer
from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.matrix import ids, tokens
from appliance.matrix.errors import InvalidParam, MissingParam
from appliance.store.database import Store
from appliance.sync.devices import changes_between

Few = TypeVar("Few", bound=Sized)

CLIENT = "/_matrix/client/v3"
DEHYDRATED = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"
BODY_LIMIT = 2 * 1024 * 1024
AT_ONCE = 10_000
"""Users, or devices of one user, that one query names; devices in one claim."""


def routes(keys: KeyServer, cross_signing: CrossSigning, store: Store) -> list[Route]:
    """Return the operations on keys."""

    async def get_changes(call: Call) -> dict[str, Any]:
        since, to = (_token(call, name) for name in ("from", "to"))
        found = await store.read(changes_between, call.requester.user_id, since, to)
        return {"changed": sorted(found.changed), "left": sorted(found.left)}

    async def post_upload(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        counts = await keys.upload(
            call.requester, body.get("device_keys"), body.get("one_time_keys"), body.get("fallback_keys")
        )
        return {"one_time_key_counts": counts}

    async def post_query(call: Call) -> dict[str, Any]:
        wanted = _few(fields.mapping(await call.json(), "device_keys"))
        lists = {user: fields.strings(wanted, user, maximum=AT_ONCE) for user in wanted}
        return dict(await keys.query(call.requester, lists))

    async def post_claim(call: Call) -> dict[str, Any]:
        wanted = fields.mapping(await call.json(), "one_time_keys")
        devices = {user: fields.mapping(wanted, user) for user in wanted}
        _few([device for algorithms in devices.values() for device in algorithms])
        claims = {
            user: {device: fields.string(algorithms, device) for device in algorithms}
            for user, algorithms in devices.items()
        }
        return dict(await keys.claim(claims))

    return [
        Route("POST", CLIENT + "/keys/upload", post_upload, body_limit=BODY_LIMIT),
        Route("POST", CLIENT + "/keys/query", post_query, body_limit=BODY_LIMIT),
        Route("POST", CLIENT + "/keys/claim", post_claim, body_limit=BODY_LIMIT),
        Route("GET", CLIENT + "/keys/changes", get_changes),
        *_signing_routes(cross_signing),
    ]


def _signing_routes(cross_signing: CrossSigning) -> list[Route]:
    async def post_signing_keys(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        given = {
            usage: body[f"{usage}_key"]
            for usage in ("master", "self_signing", "user_signing")
            if body.get(f"{usage}_key") is not None
        }
        await cross_signing.upload(call.requester, given, fields.optional_mapping(body, "auth"))
        return {}

    async def post_signatures(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        given = {user: fields.mapping(body, user) for user in body}
        return {"failures": await cross_signing.sign(call.requester, given)}

    return [
        Route("POST", CLIENT + "/keys/device_signing/upload", post_signing_keys),
        Route("POST", CLIENT + "/keys/signatures/upload", post_signatures, body_limit=BODY_LIMIT),
    ]


def _few(wanted: Few) -> Few:
    if len(wanted) > AT_ONCE:
        raise InvalidParam(f"At most {AT_ONCE} users or devices at once")
    return wanted


def _token(call: Call, name: str) -> int:
    text = call.query(name)
    if text is None:
        raise MissingParam(f"Missing query parameter {name}")
    return tokens.stream_token(text).stream


def dehydrated_routes(dehydrated: Dehydrated) -> list[Route]:
    """Return the operations on the dehydrated device (MSC3814)."""

    async def put(call: Call) -> dict[str, Any]:
        body = await call.json()
        device_id = ids.device_id(fields.string(body, "device_id"))
        await dehydrated.put(
            call.requester.user_id, device_id, fields.optional_string(body, "initial_device_display_name"),
            fields.mapping(body, "device_data"), body.get("device_keys"), body.get("one_time_keys"),
            body.get("fallback_keys"),
        )
        return {"device_id": device_id}

    async def get(call: Call) -> dict[str, Any]:
        device_id, data = await dehydrated.get(call.requester.user_id)
        return {"device_id": device_id, "device_data": data}

    async def delete(call: Call) -> dict[str, Any]:
        return {"device_id": await dehydrated.remove(call.requester.user_id)}

    async def post_events(call: Call) -> dict[str, Any]:
        batch = fields.optional_string(await call.json(optional=True), "next_batch")
        if batch is not None and not (batch.isascii() and batch.isdigit() and len(batch) <= 18):
            raise InvalidParam("Unknown next_batch")
        after = int(batch) if batch else 0
        events, upto = await dehydrated.events(call.requester.user_id, call.path("device_id"), after)
        return {"events": events, "next_batch": str(upto)}

    return [
        Route("PUT", DEHYDRATED, put, body_limit=BODY_LIMIT),
        Route("GET", DEHYDRATED, get),
        Route("DELETE", DEHYDRATED, delete),
        Route("POST", DEHYDRATED + "/{device_id}/events", post_events),
    ]

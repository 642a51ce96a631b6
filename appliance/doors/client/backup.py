"""The key backup: versions, and the keys in them by room and session."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from appliance.accounts.key_backup import Changed, Info, KeyBackups
from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.matrix import canonical, ids
from appliance.matrix.errors import MissingParam, TooLarge
from appliance.store.key_backup import BackedUpKey

CLIENT = "/_matrix/client/v3/room_keys"
BODY_LIMIT = 16 * 1024 * 1024
SESSION_LIMIT = 64 * 1024


def routes(backups: KeyBackups) -> list[Route]:
    """Return the fourteen operations of the backup."""

    async def post_version(call: Call) -> dict[str, Any]:
        body = await call.json()
        algorithm = fields.string(body, "algorithm")
        auth_data = canonical.dumps(fields.mapping(body, "auth_data"))
        return {"version": await backups.create(call.requester.user_id, algorithm, auth_data)}

    async def get_version(call: Call) -> dict[str, Any]:
        return _info(await backups.info(call.requester.user_id, call.request.match_info.get("version")))

    async def put_version(call: Call) -> dict[str, Any]:
        body = await call.json()
        algorithm = fields.string(body, "algorithm")
        auth_data = canonical.dumps(fields.mapping(body, "auth_data"))
        stated = fields.optional_string(body, "version")
        await backups.update(call.requester.user_id, call.path("version"), algorithm, auth_data, stated)
        return {}

    async def delete_version(call: Call) -> dict[str, Any]:
        await backups.remove(call.requester.user_id, call.path("version"))
        return {}

    return [
        Route("POST", CLIENT + "/version", post_version),
        Route("GET", CLIENT + "/version", get_version),
        Route("GET", CLIENT + "/version/{version}", get_version),
        Route("PUT", CLIENT + "/version/{version}", put_version),
        Route("DELETE", CLIENT + "/version/{version}", delete_version),
        *_key_routes(backups),
    ]


def _key_routes(backups: KeyBackups) -> list[Route]:
    async def put_keys(call: Call) -> dict[str, Any]:
        version, body = _version(call), await call.json()
        return _changed(await backups.put(call.requester.user_id, version, list(_parsed(call, body))))

    async def get_keys(call: Call) -> dict[str, Any]:
        room_id, session_id = _where(call)
        found = await backups.keys(call.requester.user_id, _version(call), room_id, session_id)
        if session_id is not None:
            return _key(found[0])
        if room_id is not None:
            return {"sessions": {key.session_id: _key(key) for key in found}}
        rooms: dict[str, Any] = {}
        for key in found:
            rooms.setdefault(key.room_id, {"sessions": {}})["sessions"][key.session_id] = _key(key)
        return {"rooms": rooms}

    async def delete_keys(call: Call) -> dict[str, Any]:
        return _changed(await backups.delete(call.requester.user_id, _version(call), *_where(call)))

    return [
        route
        for path in ("/keys", "/keys/{room_id}", "/keys/{room_id}/{session_id}")
        for route in (
            Route("PUT", CLIENT + path, put_keys, body_limit=BODY_LIMIT),
            Route("GET", CLIENT + path, get_keys),
            Route("DELETE", CLIENT + path, delete_keys),
        )
    ]


def _version(call: Call) -> str:
    version = call.query("version")
    if version is None:
        raise MissingParam("Missing query parameter version")
    return version


def _where(call: Call) -> tuple[str | None, str | None]:
    return call.request.match_info.get("room_id"), call.request.match_info.get("session_id")


def _parsed(call: Call, body: dict[str, Any]) -> Iterable[BackedUpKey]:
    """Yield the keys of a request, whichever of the three depths it has."""
    room_id, session_id = _where(call)
    if room_id is None:
        rooms = fields.mapping(body, "rooms")
        sessions = {room: fields.mapping(fields.mapping(rooms, room), "sessions") for room in rooms}
    elif session_id is None:
        sessions = {room_id: fields.mapping(body, "sessions")}
    else:
        sessions = {room_id: {session_id: body}}
    for room, by_session in sessions.items():
        for session in by_session:
            yield _one(ids.room_id(room), session, fields.mapping(by_session, session))


def _one(room_id: str, session_id: str, key: dict[str, Any]) -> BackedUpKey:
    data = canonical.dumps(fields.mapping(key, "session_data"))
    if len(data) > SESSION_LIMIT:
        raise TooLarge(f"session_data must not exceed {SESSION_LIMIT} bytes")
    return BackedUpKey(
        room_id=room_id,
        session_id=fields.string({"session_id": session_id}, "session_id"),
        first_message_index=fields.integer(key, "first_message_index"),
        forwarded_count=fields.integer(key, "forwarded_count"),
        is_verified=fields.boolean(key, "is_verified"),
        session_data=data,
    )


def _key(key: BackedUpKey) -> dict[str, Any]:
    return {
        "first_message_index": key.first_message_index,
        "forwarded_count": key.forwarded_count,
        "is_verified": key.is_verified,
        "session_data": canonical.decode_object(key.session_data),
    }


def _info(info: Info) -> dict[str, Any]:
    return {
        "algorithm": info.algorithm,
        "auth_data": canonical.decode_object(info.auth_data),
        "count": info.count,
        "etag": info.etag,
        "version": info.version,
    }


def _changed(changed: Changed) -> dict[str, Any]:
    return {"count": changed.count, "etag": changed.etag}

"""Aliases and the public directory of rooms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from appliance.doors import fields
from appliance.doors.client.timeline import room
from appliance.doors.web import Access, Call, Route
from appliance.matrix import ids
from appliance.matrix.errors import BadJson, Forbidden, InvalidParam, NotFound
from appliance.matrix.ids import ServerName
from appliance.rooms import directory
from appliance.rooms.directory import DEFAULT_LIMIT, MAX_LIMIT, Listing
from appliance.store.database import Store

CLIENT = "/_matrix/client/v3"
TERM_LIMIT = 255


def routes(
    store: Store, server: ServerName, public_rooms: bool, clock: Callable[[], int], *, anonymous: bool = False
) -> list[Route]:
    """Return the operations on aliases and published rooms.

    `public_rooms` says whether rooms may be published, `anonymous` whether the listing is for everybody on the network
    or only for people with an account (which is what a hospital wants).
    """
    listing = Access.NONE if anonymous else Access.USER
    return [*_aliases(store, server, clock), *_published(store, server, public_rooms, listing)]


def _aliases(store: Store, server: ServerName, clock: Callable[[], int]) -> list[Route]:
    async def get_alias(call: Call) -> dict[str, Any]:
        return await store.read(directory.resolve, _alias(call), server)

    async def put_alias(call: Call) -> dict[str, Any]:
        alias = _alias(call)
        if ids.server_of(alias) != server:
            raise InvalidParam("An alias can only be made on its own server")
        room_id = ids.room_id(fields.string(await call.json(), "room_id"))
        await store.write(directory.add, call.requester, alias, room_id, clock())
        return {}

    async def delete_alias(call: Call) -> dict[str, Any]:
        await store.write(directory.remove, call.requester, _alias(call))
        return {}

    path = CLIENT + "/directory/room/{alias}"
    return [
        Route("GET", path, get_alias, Access.NONE),
        Route("PUT", path, put_alias),
        Route("DELETE", path, delete_alias),
    ]


def _published(store: Store, server: ServerName, public_rooms: bool, access: Access) -> list[Route]:
    async def get_visibility(call: Call) -> dict[str, Any]:
        return await store.read(directory.visibility, room(call))

    async def put_visibility(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        public = fields.choice(body, "visibility", ("public", "private"), "public") == "public"
        if public and not public_rooms:
            raise Forbidden("Rooms are not published on this server")
        await store.write(directory.set_visibility, call.requester, room(call), public)
        return {}

    async def get_published(call: Call) -> dict[str, Any]:
        _local(call, server)
        limit = call.query_int("limit", DEFAULT_LIMIT, 0, MAX_LIMIT) or DEFAULT_LIMIT
        return await store.read(directory.published, Listing(limit, call.query("since") or None))

    async def post_published(call: Call) -> dict[str, Any]:
        _local(call, server)
        return await store.read(directory.published, listing(await call.json(optional=True)))

    listed = CLIENT + "/directory/list/room/{room_id}"
    return [
        Route("GET", listed, get_visibility, Access.NONE),
        Route("PUT", listed, put_visibility),
        Route("GET", CLIENT + "/publicRooms", get_published, access),
        Route("POST", CLIENT + "/publicRooms", post_published),
    ]


def _alias(call: Call) -> str:
    return ids.room_alias(call.path("alias"))


def _local(call: Call, server: ServerName) -> None:
    """Refuse the directories of other servers, which cannot be asked from here."""
    wanted = call.query("server")
    if wanted and ids.server_name(wanted) != server:
        raise NotFound("The directory of that server cannot be read from here")


def listing(body: Mapping[str, Any]) -> Listing:
    """Read a request for a filtered part of the directory."""
    wanted = fields.optional_mapping(body, "filter") or {}
    limit = fields.optional_integer(body, "limit")
    return Listing(
        limit=min(limit or DEFAULT_LIMIT, MAX_LIMIT),
        since=fields.optional_string(body, "since") or None,
        term=fields.optional_string(wanted, "generic_search_term", maximum=TERM_LIMIT) or "",
        room_types=_room_types(wanted),
    )


def _room_types(wanted: Mapping[str, Any]) -> list[str | None] | None:
    if wanted.get("room_types") is None:
        return None
    entries = fields.array(wanted, "room_types", maximum=50)
    if not all(entry is None or isinstance(entry, str) for entry in entries):
        raise BadJson("room_types must hold strings and null")
    return entries

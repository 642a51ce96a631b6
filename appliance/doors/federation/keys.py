"""Signing keys: our own, and as a notary those of others.

Source: server-server API, "Publishing Keys", "Querying Keys Through Another Server".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appliance.doors import fields
from appliance.doors.web import Access, Call, Route
from appliance.federation.keyring import Asked, Keyring
from appliance.matrix.canonical import MAX_INTEGER
from appliance.matrix.errors import InvalidParam
from appliance.matrix.ids import ServerName, server_name

MOST_SERVERS: Final = 100
MOST_KEYS: Final = 50
BODY_LIMIT: Final = 64 * 1024


def routes(keyring: Keyring) -> list[Route]:
    """List the operations; nobody needs to prove who they are to read keys."""

    async def own(call: Call) -> Mapping[str, Any]:
        return keyring.own.published()

    async def one(call: Call) -> dict[str, Any]:
        until = call.query_int("minimum_valid_until_ts", 0)
        return {"server_keys": await keyring.notarise({server_name(call.path("server")): Asked(until=until)})}

    async def many(call: Call) -> dict[str, Any]:
        return {"server_keys": await keyring.notarise(_wanted(await call.json()))}

    return [
        Route("GET", "/_matrix/key/v2/server", own, Access.NONE, rate="keys"),
        Route("GET", "/_matrix/key/v2/server/{key_id}", own, Access.NONE, rate="keys"),  # before Matrix 1.6
        Route("GET", "/_matrix/key/v2/query/{server}", one, Access.NONE, rate="keys"),
        Route("POST", "/_matrix/key/v2/query", many, Access.NONE, BODY_LIMIT, rate="keys"),
    ]


def _wanted(body: Mapping[str, Any]) -> dict[ServerName, Asked]:
    servers = fields.mapping(body, "server_keys")
    if len(servers) > MOST_SERVERS:
        raise InvalidParam(f"At most {MOST_SERVERS} servers can be asked about at once")
    return {server_name(server): _asked(fields.as_mapping(keys, server)) for server, keys in servers.items()}


def _asked(keys: Mapping[str, Any]) -> Asked:
    if len(keys) > MOST_KEYS:
        raise InvalidParam(f"At most {MOST_KEYS} keys of a server can be asked about at once")
    times = [
        fields.optional_integer(fields.as_mapping(criteria, key_id), "minimum_valid_until_ts", maximum=MAX_INTEGER)
        for key_id, criteria in keys.items()
    ]
    return Asked(frozenset(keys), max((time or 0 for time in times), default=0))

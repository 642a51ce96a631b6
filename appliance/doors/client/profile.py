"""Profiles: display name, avatar, and further fields."""

from __future__ import annotations

from typing import Any

from appliance.accounts.profile import Profiles
from appliance.doors.web import Access, Call, Route
from appliance.matrix.errors import MissingParam

USER = "/_matrix/client/v3/profile/{user_id}"


def routes(profiles: Profiles) -> list[Route]:
    """Return the operations on profiles."""

    async def get_all(call: Call) -> dict[str, Any]:
        return await profiles.get(call.path("user_id"))

    async def get_field(call: Call) -> dict[str, Any]:
        return await profiles.field(call.path("user_id"), call.path("key"))

    async def put_field(call: Call) -> dict[str, Any]:
        body, key = await call.json(), call.path("key")
        if key not in body:
            raise MissingParam(f"Missing {key}")
        await profiles.set(call.requester, call.path("user_id"), key, body[key])
        return {}

    async def delete_field(call: Call) -> dict[str, Any]:
        await profiles.remove(call.requester, call.path("user_id"), call.path("key"))
        return {}

    found = [Route("GET", USER, get_all, access=Access.OPTIONAL)]
    for base in (USER, "/_matrix/client/unstable/uk.tcpip.msc4133/profile/{user_id}"):
        found += [
            Route("GET", base + "/{key}", get_field, access=Access.OPTIONAL),
            Route("PUT", base + "/{key}", put_field),
            Route("DELETE", base + "/{key}", delete_field),
        ]
    return found

"""Questions about our users and aliases.

Source: server-server API, "Querying for information".
"""

from __future__ import annotations

from typing import Any, Final

from appliance.accounts.profile import Profiles
from appliance.doors.federation.entry import PeerCall, PeerRoute
from appliance.matrix import ids
from appliance.matrix.errors import InvalidParam, MissingParam, NotFound
from appliance.matrix.ids import ServerName
from appliance.rooms import directory
from appliance.store.database import Store

QUERY: Final = "/_matrix/federation/v1/query"
SHOWN: Final = frozenset({"displayname", "avatar_url"})


def routes(store: Store, home: ServerName, profiles: Profiles) -> list[PeerRoute]:
    """List the operations. Only what is at home here is answered, so that nobody can ask others through us."""

    async def profile(call: PeerCall) -> dict[str, Any]:
        user_id = ids.user_id(_required(call, "user_id"))
        if ids.server_of(user_id) != home:
            raise InvalidParam("The user belongs to another server")
        field = call.call.query("field")
        found = await profiles.get(user_id)
        if field is None:
            return found
        if field not in found and field not in SHOWN:
            raise NotFound("The profile has no such field")
        return {field: found[field]} if field in found else {}

    async def alias(call: PeerCall) -> dict[str, Any]:
        name = ids.room_alias(_required(call, "room_alias"))
        if ids.server_of(name) != home:
            raise NotFound("The alias belongs to another server")
        return await store.read(directory.resolve, name, home)

    return [PeerRoute("GET", QUERY + "/profile", profile), PeerRoute("GET", QUERY + "/directory", alias)]


def _required(call: PeerCall, name: str) -> str:
    text = call.call.query(name)
    if text is None:
        raise MissingParam(f"{name} is missing")
    return text

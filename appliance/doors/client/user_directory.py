"""Finding people."""

from __future__ import annotations

from typing import Any

from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.matrix.ids import ServerName
from appliance.rooms import user_directory
from appliance.store.database import Store


def routes(store: Store, server: ServerName) -> list[Route]:
    """Return the one operation of the user directory."""

    async def search(call: Call) -> dict[str, Any]:
        body = await call.json()
        term = fields.string(body, "search_term", maximum=user_directory.MAX_TERM)
        limit = fields.optional_integer(body, "limit")
        limit = min(user_directory.DEFAULT_LIMIT if limit is None else limit, user_directory.MAX_LIMIT)
        return await store.read(user_directory.search, call.requester.user_id, server, term, limit)

    return [Route("POST", "/_matrix/client/v3/user_directory/search", search, rate="search")]

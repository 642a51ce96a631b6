"""The published directory, for people of other servers.

Source: server-server API, "Public Room Directory".
"""

from __future__ import annotations

from typing import Any, Final

from appliance.doors.client.directory import listing
from appliance.doors.federation.entry import PeerCall, PeerRoute
from appliance.matrix.errors import Forbidden
from appliance.rooms import directory
from appliance.rooms.directory import DEFAULT_LIMIT, MAX_LIMIT, Listing
from appliance.store.database import Store

PATH: Final = "/_matrix/federation/v1/publicRooms"


def routes(store: Store, *, shown: bool) -> list[PeerRoute]:
    """List the operations; `shown` says whether others may read this server's directory at all."""

    async def page(wanted: Listing) -> dict[str, Any]:
        if not shown:
            raise Forbidden("The directory of this server is not for others")
        return await store.read(directory.published, wanted)

    async def get(call: PeerCall) -> dict[str, Any]:
        limit = call.call.query_int("limit", DEFAULT_LIMIT, 0, MAX_LIMIT) or DEFAULT_LIMIT
        return await page(Listing(limit, call.call.query("since") or None))

    async def post(call: PeerCall) -> dict[str, Any]:
        return await page(listing(call.content))

    return [PeerRoute("GET", PATH, get), PeerRoute("POST", PATH, post)]

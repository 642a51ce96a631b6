"""Looking at rooms from outside: the tree of a space, the summary of a room."""

from __future__ import annotations

from typing import Any

from appliance.doors.client.timeline import ROOM_V1, room
from appliance.doors.web import Access, Call, Route
from appliance.matrix import ids
from appliance.rooms import hierarchy, summary
from appliance.rooms.hierarchy import Walk
from appliance.store.database import Store

UNSTABLE = "/_matrix/client/unstable/im.nheko.summary"


def routes(store: Store, *, anonymous: bool = False) -> list[Route]:
    """Return the operations that describe rooms to people who are not in them.

    `anonymous` says whether summaries of open rooms are for everybody on the network, or only for people with an
    account.
    """
    access = Access.OPTIONAL if anonymous else Access.USER

    async def tree(call: Call) -> dict[str, Any]:
        walk = Walk(
            limit=call.query_int("limit", hierarchy.DEFAULT_LIMIT, 1, hierarchy.MAX_LIMIT),
            max_depth=call.query_int("max_depth", hierarchy.MAX_DEPTH, 0, hierarchy.MAX_DEPTH),
            suggested_only=call.query_bool("suggested_only"),
        )
        walk = hierarchy.resume(walk, call.query("from"))
        return await store.read(hierarchy.hierarchy, call.requester.user_id, room(call), walk)

    async def preview(call: Call) -> dict[str, Any]:
        text = call.path("room")
        name = ids.room_alias(text) if text.startswith("#") else ids.room_id(text)
        user_id = call.visitor.user_id if call.visitor is not None else None
        return await store.read(summary.preview, user_id, name)

    return [
        Route("GET", ROOM_V1 + "/hierarchy", tree),
        Route("GET", "/_matrix/client/v1/room_summary/{room}", preview, access),
        # Element X and others ask where the proposal had it (MSC3266).
        Route("GET", UNSTABLE + "/summary/{room}", preview, access),
        Route("GET", UNSTABLE + "/rooms/{room}/summary", preview, access),
    ]

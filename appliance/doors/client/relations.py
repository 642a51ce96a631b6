"""Relations of an event, threads of a room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.doors.client.timeline import ROOM_V1, backwards, event, point, room
from appliance.doors.web import Call, Route
from appliance.rooms import relation_pages, threads
from appliance.rooms.relation_pages import Kin
from appliance.store.database import Store


def routes(store: Store, clock: Callable[[], int]) -> list[Route]:
    """Return the operations on relations."""

    async def related(call: Call) -> dict[str, Any]:
        kin = Kin(
            parent=event(call),
            rel_type=call.request.match_info.get("rel_type"),
            type=call.request.match_info.get("type"),
            backwards=backwards(call, "b"),
            start=point(call, "from"),
            stop=point(call, "to"),
            limit=call.query_int("limit", relation_pages.DEFAULT_LIMIT, 1, relation_pages.MAX_LIMIT),
            recurse=call.query_bool("recurse"),
        )
        return await store.read(relation_pages.page, call.requester, room(call), kin, clock())

    async def list_threads(call: Call) -> dict[str, Any]:
        participated = call.query_choice("include", ("all", "participated"), "all") == "participated"
        limit = call.query_int("limit", threads.DEFAULT_LIMIT, 1, threads.MAX_LIMIT)
        wanted = threads.Wanted(participated, point(call, "from"), limit)
        return await store.read(threads.listing, call.requester, room(call), wanted, clock())

    base = ROOM_V1 + "/relations/{event_id}"
    return [
        Route("GET", base, related),
        Route("GET", base + "/{rel_type}", related),
        Route("GET", base + "/{rel_type}/{type}", related),
        Route("GET", ROOM_V1 + "/threads", list_threads),
    ]

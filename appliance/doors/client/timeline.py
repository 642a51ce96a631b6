"""Reading history: messages, context, single events, the event nearest to a moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, ParamSpec

from appliance.doors.web import Call, Route
from appliance.matrix import canonical, ids
from appliance.matrix.errors import MissingParam
from appliance.matrix.tokens import timeline_point
from appliance.rooms import event_filter, timeline
from appliance.rooms.timeline import DEFAULT_LIMIT, MAX_CONTEXT, MAX_LIMIT, Page
from appliance.store.database import Store
from appliance.store.readers import Rx

P = ParamSpec("P")

ROOM = "/_matrix/client/v3/rooms/{room_id}"
ROOM_V1 = "/_matrix/client/v1/rooms/{room_id}"


Reach = Callable[[str, str, int | None, int], Awaitable[None]]
"""Has (user, room, start, count) events before a position fetched from other servers (`rooms.backfill`)."""


def routes(store: Store, clock: Callable[[], int], reach: Reach | None = None) -> list[Route]:
    """Return the operations that read a room's history."""

    async def messages(call: Call) -> bytes:
        wanted = event_filter.parse_text(call.query("filter"))
        page = Page(
            backwards=backwards(call),
            start=point(call, "from"),
            stop=point(call, "to"),
            limit=call.query_int("limit", min(wanted.limit or DEFAULT_LIMIT, MAX_LIMIT), 0, MAX_LIMIT),
            filter=wanted,
        )
        if reach is not None and page.backwards:
            await reach(call.requester.user_id, room(call), page.start, page.limit)
        return await store.read(encoded, timeline.messages, call.requester, room(call), page, clock())

    async def context(call: Call) -> bytes:
        limit = call.query_int("limit", DEFAULT_LIMIT, 0, MAX_CONTEXT)
        wanted = event_filter.parse_text(call.query("filter"))
        room_id, event_id = room(call), event(call)
        return await store.read(encoded, timeline.context, call.requester, room_id, event_id, limit, wanted, clock())

    async def one_event(call: Call) -> dict[str, Any]:
        return await store.read(timeline.one_event, call.requester, room(call), event(call), clock())

    async def nearest(call: Call) -> dict[str, Any]:
        if call.query("ts") is None:
            raise MissingParam("Missing query parameter ts")
        ts = call.query_int("ts", 0)
        return await store.read(timeline.nearest, call.requester, room(call), ts, not backwards(call))

    return [
        Route("GET", ROOM + "/messages", messages),
        Route("GET", ROOM + "/context/{event_id}", context),
        Route("GET", ROOM + "/event/{event_id}", one_event),
        Route("GET", ROOM_V1 + "/timestamp_to_event", nearest),
    ]


def encoded(rx: Rx, question: Callable[Concatenate[Rx, P], object], *args: P.args, **kwargs: P.kwargs) -> bytes:
    """Ask `question(rx, *args)` and turn the answer into JSON where it was read: a large one would hold up the loop."""
    return canonical.dumps(question(rx, *args, **kwargs))


def room(call: Call) -> str:
    """Return the room named in the path."""
    return ids.room_id(call.path("room_id"))


def event(call: Call) -> str:
    """Return the event named in the path."""
    return ids.event_id(call.path("event_id"))


def point(call: Call, name: str) -> int | None:
    """Return the timeline point of a pagination token in the query, or None."""
    text = call.query(name)
    return timeline_point(text) if text else None


def backwards(call: Call, default: str | None = None) -> bool:
    """Return whether the parameter `dir` says `b`; it is required unless there is a default."""
    return call.query_choice("dir", ("b", "f"), default) == "b"

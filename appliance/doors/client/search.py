"""Searching messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.matrix.errors import InvalidParam
from appliance.rooms import event_filter, search
from appliance.rooms.search import KEYS, Context, Search, Wish

GROUPS = ("room_id", "sender")
DEFAULT_CONTEXT = 5


def routes(finder: Search, clock: Callable[[], int]) -> list[Route]:
    """Return the one operation of server-side search."""

    async def post(call: Call) -> dict[str, Any]:
        body = await call.json()
        categories = fields.mapping(body, "search_categories")
        criteria = fields.optional_mapping(categories, "room_events")
        if criteria is None:
            return {"search_categories": {}}
        found = await finder.search(call.requester, _wish(criteria, call.query("next_batch")), clock())
        return {"search_categories": {"room_events": found}}

    return [Route("POST", "/_matrix/client/v3/search", post, rate="search")]


def _wish(criteria: Mapping[str, Any], token: str | None) -> Wish:
    keys = fields.optional_strings(criteria, "keys", maximum=10)
    unknown = set(keys or ()) - set(KEYS)
    if unknown:
        raise InvalidParam("keys may only name content.body, content.name and content.topic")
    return Wish(
        term=fields.string(criteria, "search_term", maximum=search.MAX_TERM),
        kinds=tuple(KEYS[key] for key in dict.fromkeys(keys or KEYS)),
        filter=event_filter.parse(fields.optional_mapping(criteria, "filter") or {}),
        recent=fields.choice(criteria, "order_by", ("rank", "recent"), "rank") == "recent",
        context=_context(fields.optional_mapping(criteria, "event_context")),
        include_state=fields.boolean(criteria, "include_state", False),
        group_by=_groups(fields.optional_mapping(criteria, "groupings") or {}),
        token=token or None,
    )


def _context(wanted: Mapping[str, Any] | None) -> Context | None:
    if wanted is None:
        return None
    before, after = fields.optional_integer(wanted, "before_limit"), fields.optional_integer(wanted, "after_limit")
    return Context(
        min(DEFAULT_CONTEXT if before is None else before, search.MAX_CONTEXT),
        min(DEFAULT_CONTEXT if after is None else after, search.MAX_CONTEXT),
        fields.boolean(wanted, "include_profile", False),
    )


def _groups(groupings: Mapping[str, Any]) -> tuple[str, ...]:
    if groupings.get("group_by") is None:
        return ()
    entries = fields.array(groupings, "group_by", maximum=10)
    keys = [fields.choice(fields.as_mapping(entry, "group_by"), "key", GROUPS) for entry in entries]
    return tuple(dict.fromkeys(keys))

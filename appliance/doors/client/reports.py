"""Reporting rooms, events and people."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.doors import fields
from appliance.doors.client.timeline import ROOM, event, room
from appliance.doors.web import Call, Route
from appliance.matrix import ids
from appliance.rooms import reports
from appliance.rooms.reports import MAX_REASON
from appliance.store.database import Store


def routes(store: Store, clock: Callable[[], int]) -> list[Route]:
    """Return the three kinds of reports."""

    async def report_room(call: Call) -> dict[str, Any]:
        reason = fields.string(await call.json(), "reason", maximum=MAX_REASON)
        await store.write(reports.room, call.requester.user_id, room(call), reason, clock())
        return {}

    async def report_event(call: Call) -> dict[str, Any]:
        reason = fields.optional_string(await call.json(optional=True), "reason", maximum=MAX_REASON) or ""
        await store.write(reports.event, call.requester.user_id, room(call), event(call), reason, clock())
        return {}

    async def report_user(call: Call) -> dict[str, Any]:
        reason = fields.string(await call.json(), "reason", maximum=MAX_REASON)
        user_id = ids.user_id(call.path("user_id"))
        await store.write(reports.user, call.requester.user_id, user_id, reason, clock())
        return {}

    return [
        Route("POST", ROOM + "/report", report_room, rate="report"),
        Route("POST", ROOM + "/report/{event_id}", report_event, rate="report"),
        Route("POST", "/_matrix/client/v3/users/{user_id}/report", report_user, rate="report"),
    ]

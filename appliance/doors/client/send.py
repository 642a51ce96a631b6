"""Sending: messages, state, redactions."""

from __future__ import annotations

from typing import Any

from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.matrix import canonical, ids
from appliance.rooms import send
from appliance.rooms.author import Author

ROOM = "/_matrix/client/v3/rooms/{room_id}"
TXN_LIMIT = 255


def routes(author: Author) -> list[Route]:
    """Return the operations that add events to a room."""

    async def put_message(call: Call) -> dict[str, Any]:
        content = await _content(call)
        event_id = await send.message(
            author, call.requester, ids.room_id(call.path("room_id")), call.path("type"), content, _txn(call)
        )
        return {"event_id": event_id}

    async def put_state(call: Call) -> dict[str, Any]:
        content = await _content(call)
        room_id = ids.room_id(call.path("room_id"))
        key = call.request.match_info.get("state_key", "")
        return {"event_id": await send.state(author, call.requester, room_id, call.path("type"), key, content)}

    async def put_redaction(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        reason = fields.optional_string(body, "reason", maximum=2000)
        target = ids.event_id(call.path("event_id"))
        room_id = ids.room_id(call.path("room_id"))
        content = {} if reason is None else {"reason": reason}
        return {"event_id": await send.redact(author, call.requester, room_id, target, content, _txn(call))}

    return [
        Route("PUT", ROOM + "/send/{type}/{txn}", put_message, rate="message"),
        Route("PUT", ROOM + "/state/{type}", put_state, rate="message"),
        Route("PUT", ROOM + "/state/{type}/{state_key:(?s:.*)}", put_state, rate="message"),
        Route("PUT", ROOM + "/redact/{event_id}/{txn}", put_redaction, rate="message"),
    ]


async def _content(call: Call) -> dict[str, Any]:
    """Read an event's content; what has no canonical form is refused before anything else is looked at."""
    content = await call.json()
    canonical.check_canonical(content)
    return content


def _txn(call: Call) -> str:
    return fields.string({"txnId": call.path("txn")}, "txnId", maximum=TXN_LIMIT)

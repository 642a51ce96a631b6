"""What others may know of a reader: receipts, read markers, typing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from appliance.doors import fields
from appliance.doors.client.timeline import ROOM, event, room
from appliance.doors.web import Call, Route
from appliance.matrix import ids
from appliance.matrix.errors import BadJson, Forbidden, InvalidParam
from appliance.rooms import access, receipts
from appliance.rooms.receipts import FULLY_READ, KINDS, Markers, Owe
from appliance.rooms.typing import DEFAULT_MS, Typing
from appliance.store.database import Store
from appliance.store.receipts import UNTHREADED


def routes(store: Store, typing: Typing, clock: Callable[[], int], owe: Owe | None = None) -> list[Route]:
    """Return the operations on receipts, markers and typing; `owe` tells other servers of receipts."""

    async def post_receipt(call: Call) -> dict[str, Any]:
        kind = call.path("kind")
        if kind not in KINDS:
            raise InvalidParam(f"The receipt type must be one of: {', '.join(KINDS)}")
        thread_id = _thread(await call.json(optional=True))
        if kind == FULLY_READ and thread_id:
            raise InvalidParam("thread_id is not compatible with m.fully_read")
        markers = Markers({kind: event(call)}, thread_id)
        await store.write(receipts.move, call.requester.user_id, room(call), markers, clock(), owe)
        return {}

    async def post_markers(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        wanted = {kind: fields.optional_string(body, kind) for kind in KINDS}
        named = {kind: ids.event_id(event_id) for kind, event_id in wanted.items() if event_id is not None}
        await store.write(receipts.move, call.requester.user_id, room(call), Markers(named), clock(), owe)
        return {}

    async def put_typing(call: Call) -> dict[str, Any]:
        room_id, user_id = room(call), ids.user_id(call.path("user_id"))
        if user_id != call.requester.user_id:
            raise Forbidden("You can only type for yourself")
        body = await call.json()
        now = fields.boolean(body, "typing")
        timeout = body.get("timeout", DEFAULT_MS)
        if isinstance(timeout, bool) or not isinstance(timeout, int):
            raise BadJson("timeout must be an integer")
        await store.read(access.require_member, user_id, room_id)
        typing.set(room_id, user_id, timeout if now else 0)
        return {}

    return [
        Route("POST", ROOM + "/receipt/{kind}/{event_id}", post_receipt, rate="ephemeral"),
        Route("POST", ROOM + "/read_markers", post_markers, rate="ephemeral"),
        Route("PUT", ROOM + "/typing/{user_id}", put_typing, rate="ephemeral"),
    ]


def _thread(body: dict[str, Any]) -> str:
    """Return the thread a receipt is for, "" for an unthreaded one; raises `InvalidParam` for anything else."""
    if "thread_id" not in body:
        return UNTHREADED
    value = body["thread_id"]
    if not isinstance(value, str) or not value or len(value) > ids.MAX_BYTES:
        raise InvalidParam("thread_id field must be a non-empty string")
    return value

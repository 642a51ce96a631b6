"""Events as clients see them.

A client gets an event without the fields that only servers need (hashes, signatures, edges, depth). `Encoded` keeps the
finished bytes of that form, so that a message is serialised once and shared by everybody who syncs it; only what
depends on the moment and on the reader goes between: `unsigned`.

Source: client-server API, "Room event format" and "Types of room events"; `unsigned` in `ClientEvent`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from appliance.matrix.event import Event


def render(event: Event, *, room_id: bool, unsigned: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the client format; `room_id` belongs to it everywhere but inside a sync response.

    Redactions carry their target both ways (top level and content), so that old and new clients find it.
    """
    result: dict[str, Any] = {
        "content": event.content,
        "event_id": event.event_id,
        "origin_server_ts": event.origin_server_ts,
        "sender": event.sender,
        "type": event.type,
    }
    if event.state_key is not None:
        result["state_key"] = event.state_key
    if event.redacts is not None:
        result["redacts"] = event.redacts
        if "redacts" not in event.content:
            result["content"] = {**event.content, "redacts": event.redacts}
    if room_id:
        result["room_id"] = event.room_id
    if unsigned:
        result["unsigned"] = unsigned
    return result


def stripped(event: Event) -> dict[str, Any]:
    """Return the form in which state is shown to somebody who is not in the room (yet)."""
    return {"content": event.content, "sender": event.sender, "state_key": event.state_key, "type": event.type}


class Encoded:
    """The client format of one event as bytes, without room id, open for `unsigned`."""

    __slots__ = ("_prefix", "_ts")

    def __init__(self, event: Event) -> None:
        self._prefix = orjson.dumps(render(event, room_id=False))[:-1]
        self._ts = event.origin_server_ts

    def fragment(self, now_ms: int, unsigned: bytes = b"") -> orjson.Fragment:
        """Close the object for a reader: `age` and, spliced in, further members of `unsigned` (b'"key":value,...')."""
        age = max(0, now_ms - self._ts)
        extra = b"," + unsigned if unsigned else b""
        return orjson.Fragment(b'%b,"unsigned":{"age":%d%b}}' % (self._prefix, age, extra))

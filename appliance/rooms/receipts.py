"""Read receipts and the fully-read marker.

A receipt only moves forward. A threaded one must name an event of that thread; events that belong to no thread, and
the thread roots, are in the thread `main`. (A root is accepted under its own thread as well, because clients that
opened just the thread acknowledge it there.)

Source: client-server API, "Receipts", "Read and unread markers".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from appliance.matrix import canonical
from appliance.matrix.errors import InvalidParam
from appliance.rooms.access import require_member
from appliance.rooms.relations import thread_root
from appliance.store import account_data, events, receipts, timeline
from appliance.store.events import Row
from appliance.store.receipts import PRIVATE, READ, UNTHREADED
from appliance.store.rooms import RoomRow
from appliance.store.writer import Tx

FULLY_READ: Final = "m.fully_read"
KINDS: Final = (READ, PRIVATE, FULLY_READ)
MAIN: Final = "main"

Owe = Callable[[Tx, int, str, str, str, str, int], None]
"""Owes a public receipt to other servers, in the same commit: (tx, rid, room id, user, thread or "", event, ms)."""


class Markers(msgspec.Struct, frozen=True):
    """What a request moves: kinds of `KINDS` with the event each moves to; `thread_id` is "" for unthreaded receipts.
    """

    events: Mapping[str, str]
    thread_id: str = UNTHREADED


def move(tx: Tx, user_id: str, room_id: str, markers: Markers, now: int, owe: Owe | None = None) -> None:
    """Move receipts and marker of a joined user, all or none.

    Raises `Forbidden` for others, `InvalidParam` for events that are not in the room or not in the thread.
    """
    room = require_member(tx, user_id, room_id)
    rows = events.fetch(tx, markers.events.values())
    for event_id in markers.events.values():
        row = rows.get(event_id)
        if row is None or row.rid != room.rid or row.pos is None or row.flags:
            raise InvalidParam("The event does not belong to the room")
        _check_thread(tx, row, markers.thread_id)
    for kind, event_id in markers.events.items():
        if kind == FULLY_READ:
            _move_marker(tx, user_id, room, event_id)
        else:
            moved = receipts.put(tx, room.rid, room_id, user_id, kind, markers.thread_id, event_id, now)
            if owe is not None and kind == READ and moved is not None:
                owe(tx, room.rid, room_id, user_id, markers.thread_id, event_id, now)


def _check_thread(tx: Tx, row: Row, thread_id: str) -> None:
    if thread_id in (UNTHREADED, row.event.event_id):
        return
    if (thread_root(tx, row) or MAIN) != thread_id:
        raise InvalidParam("The event is not in the thread named by thread_id")


def _move_marker(tx: Tx, user_id: str, room: RoomRow, event_id: str) -> None:
    raw = account_data.get(tx, user_id, room.room_id, FULLY_READ)
    before = canonical.decode_object(raw).get("event_id") if raw else None
    if isinstance(before, str):
        places = timeline.positions(tx, [before, event_id])
        if places.get(before, -(2**62)) >= places[event_id]:
            return
    account_data.put(tx, user_id, room.room_id, FULLY_READ, canonical.dumps({"event_id": event_id}))

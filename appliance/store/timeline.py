"""Questions about the timeline that are not a plain range: by time, by kind of event, over several rooms.

The plain range scan is `events.timeline`; the tables are those of events.py. The partial index belongs here because
only readers of history need it: it finds every history visibility a room ever had without touching another event.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import orjson

from appliance.store.events import REJECTED, SOFT_FAILED, Row, by_eids
from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE INDEX event_history_visibility ON event (rid) WHERE type='m.room.history_visibility';
"""

HIDDEN = REJECTED | SOFT_FAILED
"""Flags of events that no client may see."""


def position(rx: Rx | Tx) -> int:
    """Return the stream position of the snapshot that `rx` reads."""
    return int(rx.execute("SELECT pos FROM stream").fetchone()[0])


def history_visibilities(rx: Rx | Tx, rid: int) -> frozenset[object]:
    """Return every value `history_visibility` ever had in the room, whatever became of the event; malformed ones
    included.
    """
    found = rx.execute(
        "SELECT json FROM event WHERE rid=? AND type='m.room.history_visibility' AND sk IS NOT NULL", (rid,)
    )
    values = (orjson.loads(row[0])["content"].get("history_visibility") for row in found)
    return frozenset(value if isinstance(value, str) else None for value in values)


def nearest(rx: Rx | Tx, rid: int, ts: int, *, forwards: bool, skip: int, limit: int) -> list[int]:
    """Return eids of timeline events at or after `ts` (milliseconds), or at or before it, the nearest in time first."""
    if forwards:
        sql = (
            "SELECT eid FROM event WHERE rid=? AND ts>=? AND pos IS NOT NULL AND flags&?=0 "
            "ORDER BY ts, pos LIMIT ? OFFSET ?"
        )
    else:
        sql = (
            "SELECT eid FROM event WHERE rid=? AND ts<=? AND pos IS NOT NULL AND flags&?=0 "
            "ORDER BY ts DESC, pos DESC LIMIT ? OFFSET ?"
        )
    return [int(row[0]) for row in rx.execute(sql, (rid, ts, HIDDEN, limit, skip))]


def positions(rx: Rx | Tx, event_ids: Sequence[str]) -> dict[str, int]:
    """Return the timeline positions of events; unknown ones and outliers are left out."""
    marks = ",".join("?" * len(event_ids))
    sql = f"SELECT event_id, pos FROM event WHERE event_id IN ({marks}) AND pos IS NOT NULL"
    return dict(rx.execute(sql, tuple(event_ids)).fetchall())


def snapshot_step(rx: Rx | Tx, sid: int) -> tuple[int | None, dict[int, int]]:
    """Return (parent, what this snapshot changes as sk -> eid); parent None where the whole state is spelled out."""
    parent, hops, data = rx.execute("SELECT parent, hops, data FROM snapshot WHERE sid=?", (sid,)).fetchone()
    return (parent if hops else None), dict(struct.iter_unpack("<qq", data))


def key_ids(rx: Rx | Tx, keys: Sequence[tuple[str, str]]) -> list[int | None]:
    """Return the short ids of state keys, None for a key that no room ever had."""
    found = (rx.execute("SELECT sk FROM state_key WHERE type=? AND state_key=?", key).fetchone() for key in keys)
    return [None if row is None else int(row[0]) for row in found]


def state_of_type(rx: Rx | Tx, rid: int, type: str, limit: int) -> list[Row]:
    """Return current state events of one type, at most `limit`."""
    found = rx.execute(
        "SELECT c.eid FROM current_state c JOIN state_key k ON k.sk=c.sk WHERE c.rid=? AND k.type=? LIMIT ?",
        (rid, type, limit),
    )
    return list(by_eids(rx, [int(row[0]) for row in found]).values())

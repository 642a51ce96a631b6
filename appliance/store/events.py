"""Events: the rows of the timeline (append.py is the one way into it), and reading them.

`eid` is an event's short id for ever. `pos` is its place in the timeline: the stream position for what arrived live, a
negative number for what was fetched from the past later, NULL for an event that is known but not part of the timeline
(an outlier: auth events, state of a room joined over federation). Timeline reads are range scans over (rid, pos).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from appliance.matrix import event as matrix_event
from appliance.matrix import versions
from appliance.matrix.event import Event
from appliance.store import state
from appliance.store.readers import Rx
from appliance.store.state import Key
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE event (
    eid INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL UNIQUE,
    rid INTEGER NOT NULL,
    pos INTEGER,
    type TEXT NOT NULL,
    sender TEXT NOT NULL,
    sk INTEGER,
    ts INTEGER NOT NULL,
    depth INTEGER NOT NULL,
    sid INTEGER,
    flags INTEGER NOT NULL,
    replaces INTEGER,
    redacts TEXT NOT NULL DEFAULT '',
    redacted_by INTEGER,
    session INTEGER,
    txn TEXT,
    json BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_timeline ON event (rid, pos) WHERE pos IS NOT NULL;
CREATE INDEX event_ts ON event (rid, ts) WHERE pos IS NOT NULL;
CREATE UNIQUE INDEX event_txn ON event (session, txn, rid, type, redacts) WHERE session IS NOT NULL;
CREATE TABLE tip (
    rid INTEGER NOT NULL,
    eid INTEGER NOT NULL,
    PRIMARY KEY (rid, eid)
) STRICT, WITHOUT ROWID;
CREATE TABLE relation (
    parent_id TEXT NOT NULL,
    eid INTEGER NOT NULL,
    rid INTEGER NOT NULL,
    rel_type TEXT NOT NULL,
    type TEXT NOT NULL,
    sender TEXT NOT NULL,
    key TEXT,
    PRIMARY KEY (parent_id, eid)
) STRICT, WITHOUT ROWID;
CREATE INDEX relation_room ON relation (rid, rel_type, eid);
CREATE TABLE pending_redaction (
    target_id TEXT NOT NULL,
    eid INTEGER NOT NULL,
    PRIMARY KEY (target_id, eid)
) STRICT, WITHOUT ROWID;
"""

SOFT_FAILED = 1
REJECTED = 2


class Row(msgspec.Struct, frozen=True):
    """An event as stored: the event itself and what only this server knows about it.

    `eid` short id; `pos` place in the timeline (None: outlier); `sid` snapshot of the state after it; `replaces` eid of
    the state event it replaced; `redacted_by` eid of the redaction that pruned it; (`session`, `txn`) the local device
    and transaction id that sent it, shown to that device only.
    """

    eid: int
    rid: int
    pos: int | None
    sid: int | None
    flags: int
    replaces: int | None
    redacted_by: int | None
    session: int | None
    txn: str | None
    event: Event


_COLUMNS = """
SELECT e.eid, e.rid, e.pos, e.sid, e.flags, e.replaces, e.redacted_by, e.session, e.txn, e.event_id, e.json, r.version
FROM event e JOIN room r ON r.rid = e.rid
"""


def _row(record: tuple[Any, ...]) -> Row:
    event = matrix_event.stored(record[9], record[10], versions.get(record[11]))
    eid, rid, pos, sid, flags, replaces, redacted_by, session, txn = record[:9]
    return Row(eid, rid, pos, sid, flags, replaces, redacted_by, session, txn, event)


# -- reading --------------------------------------------------------------------------------------------------------


def fetch(rx: Rx | Tx, event_ids: Iterable[str]) -> dict[str, Row]:
    """Return the known ones of these events by their ids (outliers and rejected ones included)."""
    query = _COLUMNS + "WHERE e.event_id IN (SELECT value FROM json_each(CAST(? AS TEXT)))"
    rows = map(_row, rx.execute(query, (orjson.dumps(list(event_ids)),)))
    return {row.event.event_id: row for row in rows}


def by_eids(rx: Rx | Tx, eids: Iterable[int]) -> dict[int, Row]:
    """Return events by their short ids."""
    query = _COLUMNS + "WHERE e.eid IN (SELECT value FROM json_each(CAST(? AS TEXT)))"
    return {row.eid: row for row in map(_row, rx.execute(query, (orjson.dumps(list(eids)),)))}


def timeline(rx: Rx, rid: int, *, after: int, upto: int, limit: int, backwards: bool) -> list[Row]:
    """Return at most `limit` events with after < pos <= upto, oldest first or (`backwards`) newest first.

    Rejected and soft-failed events are not part of anybody's timeline.
    """
    order = "DESC" if backwards else "ASC"
    query = f"{_COLUMNS}WHERE e.rid=? AND e.pos>? AND e.pos<=? AND e.flags=0 ORDER BY e.pos {order} LIMIT ?"
    return [_row(record) for record in rx.execute(query, (rid, after, upto, limit))]


def current_events(rx: Rx | Tx, rid: int, keys: Iterable[Key] | None = None) -> list[Row]:
    """Return the events of the current state, all or those of the given keys."""
    if keys is None:
        query = _COLUMNS + "JOIN current_state c ON c.eid = e.eid WHERE c.rid=?"
        return [_row(record) for record in rx.execute(query, (rid,))]
    query = (
        _COLUMNS + "JOIN current_state c ON c.eid = e.eid JOIN state_key k ON k.sk = c.sk "
        "WHERE c.rid=? AND k.type=? AND k.state_key=?"
    )
    found = (rx.execute(query, (rid, *key)).fetchone() for key in keys)
    return [_row(record) for record in found if record is not None]


def events_of(rx: Rx, sid: int, keys: Iterable[Key] | None = None) -> list[Row]:
    """Return the events of a snapshot, all or those of the given keys."""
    whole = state.snapshot(rx, sid)
    eids = whole.values() if keys is None else [whole[key] for key in keys if key in whole]
    return list(by_eids(rx, eids).values())


def sid_before(rx: Rx | Tx, row: Row) -> int | None:
    """Return the snapshot of the state before an event (None before the create event)."""
    if row.event.state_key is None or row.flags & REJECTED or row.sid is None:
        return row.sid
    return state.parent_of(rx, row.sid)


def tips(rx: Rx | Tx, rid: int) -> list[tuple[str, int]]:
    """Return the forward extremities of a room as (event id, depth)."""
    query = "SELECT e.event_id, e.depth FROM tip t JOIN event e ON e.eid = t.eid WHERE t.rid=? ORDER BY e.eid"
    return [(row[0], row[1]) for row in rx.execute(query, (rid,))]

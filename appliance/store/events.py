"""Events: the rows of the timeline, and the one way into it (`append`).

`eid` is an event's short id for ever. `pos` is its place in the timeline: the stream position for what arrived live, a negative
number for what was fetched from the past later, NULL for an event that is known but not part of the timeline (an outlier: auth
events, state of a room joined over federation). Timeline reads are range scans over (rid, pos).
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.matrix.event import Event

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
    redacted_by INTEGER,
    session INTEGER,
    txn TEXT,
    json BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX event_timeline ON event (rid, pos) WHERE pos IS NOT NULL;
CREATE INDEX event_ts ON event (rid, ts) WHERE pos IS NOT NULL;
CREATE UNIQUE INDEX event_txn ON event (session, txn, rid, type) WHERE session IS NOT NULL;
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


@dataclass(frozen=True, slots=True)
class Row:
    """An event as stored: the event itself and what only this server knows about it.

    `eid` short id; `pos` place in the timeline (None: outlier); `sid` snapshot of the state after it; `replaces` eid of the state event
    it replaced; `redacted_by` eid of the redaction that pruned it; (`session`, `txn`) the local device and transaction id that
    sent it, shown to that device only.
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

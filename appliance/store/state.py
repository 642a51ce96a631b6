"""State as snapshots.

A snapshot (`sid`) is the whole state of a room at one moment, stored as the change against a parent, with a full copy every
`FULL_EVERY` hops. Every event row carries the `sid` *after* it, so a plain message costs no state row: it repeats the number of
its predecessor. `current_state` is the newest snapshot spelled out, because it is what almost every request reads;
`state_log` says which snapshot was current from which stream position on, so that a sync can take the difference of two.

`sk` is the short id of a pair (type, state_key), shared by all rooms.
"""

from __future__ import annotations

TABLES = """
CREATE TABLE state_key (
    sk INTEGER PRIMARY KEY,
    type TEXT NOT NULL,
    state_key TEXT NOT NULL,
    UNIQUE (type, state_key)
) STRICT;
CREATE TABLE snapshot (
    sid INTEGER PRIMARY KEY,
    rid INTEGER NOT NULL,
    parent INTEGER,
    hops INTEGER NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE current_state (
    rid INTEGER NOT NULL,
    sk INTEGER NOT NULL,
    eid INTEGER NOT NULL,
    PRIMARY KEY (rid, sk)
) STRICT, WITHOUT ROWID;
CREATE TABLE state_log (
    rid INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    sid INTEGER NOT NULL,
    PRIMARY KEY (rid, pos)
) STRICT, WITHOUT ROWID;
"""

"""State as snapshots.

A snapshot (`sid`) is the whole state of a room at one moment, stored as the change against a parent, with a full copy
every `FULL_EVERY` hops. Every event row carries the `sid` *after* it, so a plain message costs no state row: it repeats
the number of its predecessor. `current_state` is the newest snapshot spelled out, because it is what almost every
request reads; `state_log` says which snapshot was current from which stream position on, so that a sync can take the
difference of two.

`sk` is the short id of a pair (type, state_key), shared by all rooms.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping

import orjson

from appliance.store.readers import Rx
from appliance.store.writer import Tx

Key = tuple[str, str]
FULL_EVERY = 64

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


# -- short ids of state keys ----------------------------------------------------------------------------------------


def key_id(tx: Tx, key: Key) -> int:
    """Return the short id of (type, state_key), giving one if it is new."""
    row = tx.execute("SELECT sk FROM state_key WHERE type=? AND state_key=?", key).fetchone()
    if row is None:
        row = tx.execute("INSERT INTO state_key (type, state_key) VALUES (?, ?) RETURNING sk", key).fetchone()
    return int(row[0])


def keys_of(rx: Rx | Tx, sks: Iterable[int]) -> dict[int, Key]:
    """Spell short ids out."""
    rows = rx.execute(
        "SELECT sk, type, state_key FROM state_key WHERE sk IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        (orjson.dumps(list(sks)),),
    )
    return {row[0]: (row[1], row[2]) for row in rows}


# -- snapshots ------------------------------------------------------------------------------------------------------


def _pack(pairs: Mapping[int, int]) -> bytes:
    flat = [number for pair in pairs.items() for number in pair]
    return struct.pack(f"<{len(flat)}q", *flat)


def _unpack(data: bytes) -> Iterable[tuple[int, int]]:
    return struct.iter_unpack("<qq", data)


def add_snapshot(tx: Tx, rid: int, parent: int | None, changes: Mapping[int, int]) -> int:
    """Store `parent` with `changes` (sk -> eid; eid 0 takes the key away) applied; return the new sid."""
    hops, data = 0, changes
    if parent is not None:
        hops = int(tx.execute("SELECT hops FROM snapshot WHERE sid=?", (parent,)).fetchone()[0]) + 1
        if hops >= FULL_EVERY:
            hops, data = 0, _merged(pairs(tx, parent), changes)
    cursor = tx.execute(
        "INSERT INTO snapshot (rid, parent, hops, data) VALUES (?, ?, ?, ?) RETURNING sid",
        (rid, parent, hops, _pack(data)),
    )
    return int(cursor.fetchone()[0])


def _merged(base: dict[int, int], changes: Mapping[int, int]) -> dict[int, int]:
    for sk, eid in changes.items():
        if eid:
            base[sk] = eid
        else:
            base.pop(sk, None)
    return base


def pairs(rx: Rx | Tx, sid: int) -> dict[int, int]:
    """Return a snapshot as sk -> eid."""
    chain = rx.execute(
        "WITH RECURSIVE chain (parent, hops, data) AS ("
        " SELECT parent, hops, data FROM snapshot WHERE sid=?"
        " UNION ALL SELECT s.parent, s.hops, s.data FROM chain c JOIN snapshot s ON s.sid = c.parent WHERE c.hops > 0"
        ") SELECT data FROM chain",
        (sid,),
    ).fetchall()
    result: dict[int, int] = {}
    for (data,) in reversed(chain):
        _merged(result, dict(_unpack(data)))
    return result


def snapshot(rx: Rx | Tx, sid: int) -> dict[Key, int]:
    """Return a snapshot as (type, state_key) -> eid."""
    short = pairs(rx, sid)
    names = keys_of(rx, short)
    return {names[sk]: eid for sk, eid in short.items()}


def entry(rx: Rx | Tx, sid: int, key: Key) -> int | None:
    """Return the eid of one state key in a snapshot, None if it is not set."""
    row = rx.execute("SELECT sk FROM state_key WHERE type=? AND state_key=?", key).fetchone()
    return pairs(rx, sid).get(row[0]) if row else None


def parent_of(rx: Rx | Tx, sid: int) -> int | None:
    """Return the snapshot from which `sid` was made by one change."""
    row = rx.execute("SELECT parent FROM snapshot WHERE sid=?", (sid,)).fetchone()
    return row[0] if row else None


# -- the current state ----------------------------------------------------------------------------------------------


def current(rx: Rx | Tx, rid: int) -> dict[Key, int]:
    """Return the current state of a room as (type, state_key) -> eid."""
    rows = rx.execute(
        "SELECT k.type, k.state_key, c.eid FROM current_state c JOIN state_key k ON k.sk = c.sk WHERE c.rid=?", (rid,)
    )
    return {(row[0], row[1]): row[2] for row in rows}


def current_ids(rx: Rx | Tx, rid: int) -> dict[Key, str]:
    """Return the current state of a room as (type, state_key) -> event id."""
    rows = rx.execute(
        "SELECT k.type, k.state_key, e.event_id FROM current_state c JOIN state_key k ON k.sk = c.sk "
        "JOIN event e ON e.eid = c.eid WHERE c.rid=?",
        (rid,),
    )
    return {(row[0], row[1]): row[2] for row in rows}


def sid_at(rx: Rx | Tx, rid: int, pos: int) -> int | None:
    """Return the snapshot that was current at a stream position, None if the room had no state then."""
    row = rx.execute(
        "SELECT sid FROM state_log WHERE rid=? AND pos<=? ORDER BY pos DESC LIMIT 1", (rid, pos)
    ).fetchone()
    return row[0] if row else None


def difference(rx: Rx | Tx, older: int | None, newer: int) -> dict[Key, int]:
    """Return what `newer` sets differently from `older` as (type, state_key) -> eid."""
    if older == newer:
        return {}
    base = pairs(rx, older) if older is not None else {}
    changed = {sk: eid for sk, eid in pairs(rx, newer).items() if base.get(sk) != eid}
    names = keys_of(rx, changed)
    return {names[sk]: eid for sk, eid in changed.items()}


def move_current(tx: Tx, rid: int, pos: int, sid: int, changes: Mapping[int, int]) -> None:
    """Make `sid` the current snapshot from `pos` on; `changes` is its difference to the one before (eid 0: removed)."""
    for sk, eid in changes.items():
        if eid:
            tx.execute("INSERT OR REPLACE INTO current_state VALUES (?, ?, ?)", (rid, sk, eid))
        else:
            tx.execute("DELETE FROM current_state WHERE rid=? AND sk=?", (rid, sk))
    tx.execute("UPDATE room SET sid=? WHERE rid=?", (sid, rid))
    tx.execute("INSERT OR REPLACE INTO state_log VALUES (?, ?, ?)", (rid, pos, sid))

"""Events: the rows of the timeline, and the one way into it (`append`).

`eid` is an event's short id for ever. `pos` is its place in the timeline: the stream position for what arrived live, a
negative number for what was fetched from the past later, NULL for an event that is known but not part of the timeline
(an outlier: auth events, state of a room joined over federation). Timeline reads are range scans over (rid, pos).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import orjson

from appliance.matrix import client_event, versions
from appliance.matrix import event as matrix_event
from appliance.matrix.event import Event
from appliance.store import rooms, state
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
    query = _COLUMNS + "WHERE e.event_id IN (SELECT value FROM json_each(?))"
    rows = map(_row, rx.execute(query, (orjson.dumps(list(event_ids)),)))
    return {row.event.event_id: row for row in rows}


def by_eids(rx: Rx | Tx, eids: Iterable[int]) -> dict[int, Row]:
    """Return events by their short ids."""
    query = _COLUMNS + "WHERE e.eid IN (SELECT value FROM json_each(?))"
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


# -- the one way into the timeline ----------------------------------------------------------------------------------


class Stale(Exception):
    """The event was built on tips that are not (or no longer) in the store; build it again."""


class AlreadySent(Exception):
    """The device has sent under this transaction id before; `event_id` is what it sent then."""

    def __init__(self, event_id: str) -> None:
        super().__init__(event_id)
        self.event_id = event_id


class New(msgspec.Struct, frozen=True):
    """An event to be appended.

    `before` is the snapshot of the state before it and `current` the room's whole state after resolution (key -> eid,
    0 for this event); both are None when the event simply follows all the tips, as every event of our own users does.
    `prunes` is the event that this redaction takes the content of, if its sender may; `shown` the stripped state for
    the subject of an invitation or a knock. (`session`, `txn`) as in `Row`.
    """

    event: Event
    flags: int = 0
    before: int | None = None
    current: Mapping[Key, int] | None = None
    prunes: str | None = None
    shown: Sequence[Mapping[str, Any]] | None = None
    session: int | None = None
    txn: str | None = None


Landed = Callable[[Row, str | None], None]
"""Told on the event loop, in commit order, about every event that reached the disk, and which event it pruned."""


def append(tx: Tx, rid: int, new: New, landed: Landed | None = None) -> Row:
    """Append one event: row, state, tips, relations, redaction, membership; wake whom it concerns.

    Raises `Stale` if it follows an event that is not in the store, `AlreadySent` for a repeated transaction id.
    """
    event = new.event
    pos = tx.next_pos()
    row = _insert(tx, rid, new, pos)
    if not new.flags & REJECTED:
        row = _apply_state(tx, row, new, row.sid)
        _move_tips(tx, row)
    if not new.flags:
        _relate(tx, row)
        if new.shown is not None and event.state_key is not None:
            rooms.set_stripped(tx, event.state_key, rid, [*new.shown, client_event.stripped(event)])
        if new.prunes is not None:
            _redact(tx, row, new.prunes)
    tx.wake_room(event.room_id, timeline=True)
    if landed is not None:
        tx.on_commit(partial(landed, row, new.prunes))
    return row


def _current_sid(tx: Tx, rid: int) -> int | None:
    sid: int | None = tx.execute("SELECT sid FROM room WHERE rid=?", (rid,)).fetchone()[0]
    return sid


def _insert(tx: Tx, rid: int, new: New, pos: int) -> Row:
    """Insert the row, for now with the snapshot of the state before it (the room's current one, unless given)."""
    event = new.event
    try:
        eid, before = tx.execute(
            "INSERT INTO event (event_id, rid, pos, type, sender, ts, depth, sid, flags, redacts, session, txn, json) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ifnull(?, (SELECT sid FROM room WHERE rid=?)), ?, ?, ?, ?, ?) "
            "RETURNING eid, sid",
            (event.event_id, rid, pos, event.type, event.sender, event.origin_server_ts, event.depth, new.before, rid,
             new.flags, event.redacts or "", new.session, new.txn, event.raw),
        ).fetchone()
    except sqlite3.IntegrityError:
        if new.session is not None and new.txn is not None:
            earlier = _sent(tx, rid, new.session, new.txn, event)
            if earlier is not None:
                raise AlreadySent(earlier) from None
        raise
    return Row(eid, rid, pos, before, new.flags, None, None, new.session, new.txn, event)


def _sent(tx: Tx, rid: int, session: int, txn: str, event: Event) -> str | None:
    """Return the event that a device already sent by the same request (a redaction's target is part of its path)."""
    row = tx.execute(
        "SELECT event_id FROM event WHERE session=? AND txn=? AND rid=? AND type=? AND redacts=?",
        (session, txn, rid, event.type, event.redacts or ""),
    ).fetchone()
    return row[0] if row else None


def _move_tips(tx: Tx, row: Row) -> None:
    """The event replaces those of its predecessors that were tips."""
    event = row.event
    if len(event.prev_events) == 1:  # nearly always: a line of events
        moved = tx.execute(
            "UPDATE tip SET eid=? WHERE rid=? AND eid=(SELECT eid FROM event WHERE event_id=?)",
            (row.eid, row.rid, event.prev_events[0]),
        )
        if moved.rowcount == 1:
            return
    known = tx.execute(
        "SELECT eid FROM event WHERE event_id IN (SELECT value FROM json_each(?))",
        (orjson.dumps(event.prev_events),),
    ).fetchall()
    if len(known) != len(event.prev_events):
        raise Stale(event.event_id)
    tx.executemany("DELETE FROM tip WHERE rid=? AND eid=?", [(row.rid, eid) for (eid,) in known])
    if not row.flags:
        tx.execute("INSERT INTO tip VALUES (?, ?)", (row.rid, row.eid))


def _apply_state(tx: Tx, row: Row, new: New, before: int | None) -> Row:
    """Give the event its snapshot, and move the room's current state."""
    event = row.event
    after = before
    changes: dict[int, int] = {}
    if event.state_key is not None:
        sk = state.key_id(tx, event.key)
        after = state.add_snapshot(tx, row.rid, before, {sk: row.eid})
        replaced = tx.execute("SELECT eid FROM current_state WHERE rid=? AND sk=?", (row.rid, sk)).fetchone()
        replaces = replaced[0] if replaced else None
        tx.execute("UPDATE event SET sk=?, sid=?, replaces=? WHERE eid=?", (sk, after, replaces, row.eid))
        row = Row(row.eid, row.rid, row.pos, after, row.flags, replaces, None, row.session, row.txn, event)
        changes = {sk: row.eid}
    if new.current is not None:
        _resolved(tx, row, new.current)
    elif changes and after is not None and not row.flags:
        state.move_current(tx, row.rid, _pos(row), after, changes)
        _follow_member(tx, row)
    return row


def _resolved(tx: Tx, row: Row, target: Mapping[Key, int]) -> None:
    """After a fork: make `target` (with this event, where it won) the current state."""
    now = state.current(tx, row.rid)
    wanted = {key: eid or row.eid for key, eid in target.items()}
    changed = {key: eid for key, eid in wanted.items() if now.get(key) != eid}
    removed = [key for key in now if key not in wanted]
    if not changed and not removed:
        return
    short = {state.key_id(tx, key): eid for key, eid in changed.items()}
    short.update({state.key_id(tx, key): 0 for key in removed})
    sid = state.add_snapshot(tx, row.rid, _current_sid(tx, row.rid), short)
    state.move_current(tx, row.rid, _pos(row), sid, short)
    members = by_eids(tx, (eid for key, eid in changed.items() if key[0] == "m.room.member"))
    for member in members.values():
        _follow_member(tx, member, _pos(row))
    for kind, user_id in removed:
        if kind == "m.room.member":
            rooms.set_membership(tx, user_id, row.rid, "leave", row.eid, _pos(row))
            tx.wake_user(user_id)


def _follow_member(tx: Tx, row: Row, pos: int | None = None) -> None:
    event = row.event
    if event.type != "m.room.member" or event.state_key is None:
        return
    membership = str(event.content.get("membership"))
    rooms.set_membership(tx, event.state_key, row.rid, membership, row.eid, pos or _pos(row))
    tx.wake_user(event.state_key)


def _pos(row: Row) -> int:
    if row.pos is None:
        raise ValueError("an outlier has no position")
    return row.pos


def _relate(tx: Tx, row: Row) -> None:
    """Index `m.relates_to`, from which relations, threads and aggregations are read."""
    event = row.event
    relates = event.content.get("m.relates_to")
    if not isinstance(relates, dict) or event.state_key is not None:
        return
    parent, rel_type, key = relates.get("event_id"), relates.get("rel_type"), relates.get("key")
    if isinstance(parent, str) and isinstance(rel_type, str):
        tx.execute(
            "INSERT OR IGNORE INTO relation VALUES (?, ?, ?, ?, ?, ?, ?)",
            (parent, row.eid, row.rid, rel_type, event.type, event.sender, key if isinstance(key, str) else None),
        )


def _redact(tx: Tx, row: Row, target_id: str) -> None:
    """Prune the target of a redaction, or remember that it must be pruned should it arrive."""
    target = fetch(tx, [target_id]).get(target_id)
    if target is None:
        tx.execute("INSERT OR IGNORE INTO pending_redaction VALUES (?, ?)", (target_id, row.eid))
    elif target.rid == row.rid:
        pruned = matrix_event.pruned(target.event)
        tx.execute("UPDATE event SET json=?, redacted_by=? WHERE eid=?", (pruned.raw, row.eid, target.eid))
        tx.execute("DELETE FROM relation WHERE eid=?", (target.eid,))

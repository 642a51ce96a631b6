"""The one way into the timeline: events of our own users and of others are appended by this function.

In one transaction: the event's row, its snapshot of the state, the room's tips and current state, memberships,
relations, and what a redaction takes away. A plain message costs two statements.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import orjson

from appliance.matrix import client_event
from appliance.matrix import event as matrix_event
from appliance.matrix.event import Event
from appliance.store import graph, outbox, rooms, state
from appliance.store.events import REJECTED, Row, by_eids, fetch
from appliance.store.readers import Rx
from appliance.store.state import Key
from appliance.store.writer import Tx


class Stale(Exception):
    """The event was built on tips that are not (or no longer) in the store; build it again."""


class AlreadySent(Exception):
    """The device has sent under this transaction id before; `event_id` is what it sent then."""

    def __init__(self, event_id: str) -> None:
        super().__init__(event_id)
        self.event_id = event_id


class Place(msgspec.Struct, frozen=True):
    """Where an event of another server stands in the graph.

    `tips` are the room's forward extremities after it (0: the event itself; None: as before), `missing` those of its
    predecessors that we do not have, `outlier` its eid if it was known without a place, `pos` its place before the
    beginning of the timeline (negative; None: it is live), `redacted_by` the redaction that arrived before it.
    """

    tips: Sequence[int] | None = None
    missing: Sequence[str] = ()
    outlier: int | None = None
    pos: int | None = None
    redacted_by: int | None = None


class New(msgspec.Struct, frozen=True):
    """An event to be appended.

    `before` is the snapshot of the state before it and `current` the room's whole state after resolution (key -> eid,
    0 for this event); both are None when the event simply follows all the tips, as every event of our own users does.
    `place` says where an event of another server belongs that does not.
    `prunes` is the event that this redaction takes the content of, if its sender may; `shown` the stripped state for
    the subject of an invitation or a knock. (`session`, `txn`) as in `Row`.

    `owed` are servers that must get the event. `home`, our own name, stands for the usual ones: every other server with
    joined users in the state before the event, and that of its subject; None sends it to nobody else.
    """

    event: Event
    flags: int = 0
    before: int | None = None
    current: Mapping[Key, int] | None = None
    place: Place | None = None
    prunes: str | None = None
    shown: Sequence[Mapping[str, Any]] | None = None
    session: int | None = None
    txn: str | None = None
    owed: Sequence[str] = ()
    home: str | None = None


Landed = Callable[[Row, str | None], None]
"""Told on the event loop, in commit order, about every event that reached the disk, and which event it pruned."""


Shifted = Callable[[Row, Sequence[str]], None]
"""Told on the event loop that an event made a room's state be resolved anew, and whose membership may have changed."""


def append(tx: Tx, rid: int, new: New, landed: Landed | None = None, shifted: Shifted | None = None) -> Row:
    """Append one event: row, state, tips, relations, redaction, membership; wake whom it concerns.

    Raises `Stale` if it follows an event that is not in the store, `AlreadySent` for a repeated transaction id.
    """
    event, place = new.event, new.place
    pos = tx.next_pos() if place is None or place.pos is None else place.pos
    row = _insert(tx, rid, new, pos)
    if new.home is not None or new.owed:
        outbox.owe(tx, row, new.owed, new.home)
    moved: list[str] = []
    if not new.flags & REJECTED:
        row = _apply_state(tx, row, new, row.sid, moved)
    if place is not None:
        _settle(tx, row, place)
    elif not new.flags:
        _move_tips(tx, row)
    if not new.flags:
        _relate(tx, row)
        if new.shown is not None and event.state_key is not None:
            rooms.set_stripped(tx, event.state_key, rid, [*new.shown, client_event.stripped(event)])
        if new.prunes is not None:
            _redact(tx, row, new.prunes)
    if pos > 0 and not new.flags:
        tx.wake_room(event.room_id, timeline=new.current is None)
    if landed is not None:
        tx.on_commit(partial(landed, row, new.prunes))
    if shifted is not None and (new.current is not None or (place is not None and event.state_key is not None)):
        # Listeners took the event for what holds now; after a fork it need not be.
        tx.on_commit(partial(shifted, row, [*moved, *_subject(event)]))
    return row


def _subject(event: Event) -> list[str]:
    return [event.state_key] if event.type == "m.room.member" and event.state_key is not None else []


def _current_sid(tx: Tx, rid: int) -> int | None:
    sid: int | None = tx.execute("SELECT sid FROM room WHERE rid=?", (rid,)).fetchone()[0]
    return sid


def _insert(tx: Tx, rid: int, new: New, pos: int) -> Row:
    """Insert the row, for now with the snapshot of the state before it (the room's current one, unless given)."""
    event = new.event
    if new.place is not None:
        return _insert_placed(tx, rid, new, new.place, pos)
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
            earlier = sent(tx, rid, new.session, new.txn, event.type, event.redacts)
            if earlier is not None:
                raise AlreadySent(earlier) from None
        elif tx.execute("SELECT 1 FROM event WHERE event_id=?", (event.event_id,)).fetchone():
            raise Stale(event.event_id) from None  # it came in by another way in the meantime
        raise
    return Row(eid, rid, pos, before, new.flags, None, None, new.session, new.txn, event)


def _insert_placed(tx: Tx, rid: int, new: New, place: Place, pos: int) -> Row:
    """Insert an event of another server, or give a known one its place."""
    event = new.event
    eid = graph.add_outlier(tx, rid, event) if place.outlier is None else place.outlier
    tx.execute(
        "UPDATE event SET pos=?, sid=?, flags=?, redacted_by=ifnull(redacted_by, ?), json=?, "
        "sk=iif(?, NULL, sk) WHERE eid=?",
        (pos, new.before, new.flags, place.redacted_by, event.raw, bool(new.flags & REJECTED), eid),
    )
    return Row(eid, rid, pos, new.before, new.flags, None, place.redacted_by, None, None, event)


def _settle(tx: Tx, row: Row, place: Place) -> None:
    """Fit an event of another server into the graph."""
    if place.tips is not None:
        graph.set_tips(tx, row.rid, [eid or row.eid for eid in place.tips])
    graph.close_gap(tx, row.rid, row.event.event_id)
    graph.note_gaps(tx, row.rid, row.eid, place.missing)
    if place.redacted_by is not None:
        tx.execute("DELETE FROM pending_redaction WHERE target_id=?", (row.event.event_id,))


def sent(rx: Tx | Rx, rid: int, session: int, txn: str, kind: str, redacts: str | None) -> str | None:
    """Return the event that a device already sent by the same request (a redaction's target is part of its path)."""
    row = rx.execute(
        "SELECT event_id FROM event WHERE session=? AND txn=? AND rid=? AND type=? AND redacts=?",
        (session, txn, rid, kind, redacts or ""),
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
        "SELECT eid FROM event WHERE event_id IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        (orjson.dumps(event.prev_events),),
    ).fetchall()
    if len(known) != len(event.prev_events):
        raise Stale(event.event_id)
    tx.executemany("DELETE FROM tip WHERE rid=? AND eid=?", [(row.rid, eid) for (eid,) in known])
    tx.execute("INSERT INTO tip VALUES (?, ?)", (row.rid, row.eid))


def _apply_state(tx: Tx, row: Row, new: New, before: int | None, moved: list[str]) -> Row:
    """Give the event its snapshot, and move the room's current state; `moved` gathers whose membership changed."""
    event = row.event
    after = before
    changes: dict[int, int] = {}
    if event.state_key is not None:
        sk = state.key_id(tx, event.key)
        after = state.add_snapshot(tx, row.rid, before, {sk: row.eid})
        replaces = _replaced(tx, row.rid, sk, before if new.place is not None else None)
        tx.execute("UPDATE event SET sk=?, sid=?, replaces=? WHERE eid=?", (sk, after, replaces, row.eid))
        row = Row(row.eid, row.rid, row.pos, after, row.flags, replaces, row.redacted_by, row.session, row.txn, event)
        changes = {sk: row.eid}
    if new.current is not None:
        _resolved(tx, row, new.current, moved)
    elif changes and after is not None and new.place is None and not row.flags:
        state.move_current(tx, row.rid, _pos(row), after, changes)
        _follow_member(tx, row)
    return row


def _replaced(tx: Tx, rid: int, sk: int, before: int | None) -> int | None:
    """Return the eid that a state event replaces: in the state before it if that is given, else in the current one."""
    if before is not None:
        return state.pairs(tx, before).get(sk)
    row = tx.execute("SELECT eid FROM current_state WHERE rid=? AND sk=?", (rid, sk)).fetchone()
    return row[0] if row else None


def _resolved(tx: Tx, row: Row, target: Mapping[Key, int], moved: list[str]) -> None:
    """After a fork: make `target` (with this event, where it won) the current state."""
    now = state.current(tx, row.rid)
    wanted = {key: eid or row.eid for key, eid in target.items()}
    changed = {key: eid for key, eid in wanted.items() if now.get(key) != eid}
    removed = [key for key in now if key not in wanted]
    if not changed and not removed:
        return
    short = {state.key_id(tx, key): eid for key, eid in changed.items()}
    short.update({state.key_id(tx, key): 0 for key in removed})
    sid = _as_current(tx, row, short)
    state.move_current(tx, row.rid, _pos(row), sid, short)
    moved.extend(state_key for kind, state_key in [*changed, *removed] if kind == "m.room.member")
    members = by_eids(tx, (eid for key, eid in changed.items() if key[0] == "m.room.member"))
    for member in members.values():
        _follow_member(tx, member, _pos(row))
    for kind, user_id in removed:
        if kind == "m.room.member":
            rooms.set_membership(tx, user_id, row.rid, "leave", row.eid, _pos(row))
            tx.wake_user(user_id)


def _as_current(tx: Tx, row: Row, changes: Mapping[int, int]) -> int:
    """Return a snapshot of the current state with the changes: the event's own, where that is the same."""
    base = _current_sid(tx, row.rid)
    if row.sid is not None and row.event.state_key is not None:
        held = state.pairs(tx, base) if base is not None else {}
        held.update(changes)
        if state.pairs(tx, row.sid) == {sk: eid for sk, eid in held.items() if eid}:
            return row.sid
    return state.add_snapshot(tx, row.rid, base, changes)


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

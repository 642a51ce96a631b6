"""Read receipts: for every user, room, kind and thread the one event up to which was read.

`thread_id` is "" for an unthreaded receipt. `event_pos` repeats the event's place in the timeline, so that nobody has
to look the event up to compare two receipts. Private receipts (`m.read.private`) are rows like the others; who may
see them is the caller's business.
"""

from __future__ import annotations

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE receipt (
    rid INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    event_id TEXT NOT NULL,
    event_pos INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    PRIMARY KEY (rid, user_id, kind, thread_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipt_pos ON receipt (rid, pos);
"""

READ = "m.read"
PRIVATE = "m.read.private"
UNTHREADED = ""
MAX_THREADS = 1000
"""Threads of one room for which a user's receipts are kept; beyond it the oldest goes."""

_COLUMNS = "user_id, kind, thread_id, event_id, event_pos, ts, pos"


class ReceiptRow(msgspec.Struct, frozen=True):
    """One receipt. `ts` is milliseconds since the epoch, `pos` the stream position at which it was set."""

    user_id: str
    kind: str
    thread_id: str
    event_id: str
    event_pos: int
    ts: int
    pos: int


def put(
    tx: Tx, rid: int, room_id: str, user_id: str, kind: str, thread_id: str, event_id: str, ts: int
) -> int | None:
    """Move a receipt forward and wake whom it concerns; None when it would not move forward or the event is unknown."""
    sql = "SELECT pos FROM event WHERE event_id=? AND rid=? AND pos IS NOT NULL"
    found = tx.execute(sql, (event_id, rid)).fetchone()
    if found is None:
        return None
    event_pos = int(found[0])
    older = tx.execute(
        "SELECT event_pos FROM receipt WHERE rid=? AND user_id=? AND kind=? AND thread_id=?",
        (rid, user_id, kind, thread_id),
    ).fetchone()
    if older is not None and older[0] >= event_pos:
        return None
    pos = tx.next_pos()
    tx.execute(
        f"INSERT OR REPLACE INTO receipt (rid, {_COLUMNS}) VALUES (?,?,?,?,?,?,?,?)",
        (rid, user_id, kind, thread_id, event_id, event_pos, ts, pos),
    )
    if older is None and thread_id:
        _trim(tx, rid, user_id, kind)
    tx.wake_user(user_id)  # the reader's own unread counts change, whoever may see the receipt
    if kind != PRIVATE:
        tx.wake_room(room_id)
    return pos


def _trim(tx: Tx, rid: int, user_id: str, kind: str) -> None:
    tx.execute(
        "DELETE FROM receipt WHERE rid=?1 AND user_id=?2 AND kind=?3 AND thread_id IN (SELECT thread_id FROM receipt "
        "WHERE rid=?1 AND user_id=?2 AND kind=?3 AND thread_id<>'' ORDER BY pos DESC LIMIT -1 OFFSET ?4)",
        (rid, user_id, kind, MAX_THREADS),
    )


def changed(rx: Rx, rid: int, after: int, upto: int) -> list[ReceiptRow]:
    """Return the receipts of a room set at a position in (after, upto], oldest first, private ones included."""
    sql = f"SELECT {_COLUMNS} FROM receipt WHERE rid=? AND pos>? AND pos<=? ORDER BY pos"
    return [ReceiptRow(*row) for row in rx.execute(sql, (rid, after, upto))]


def of_user(rx: Rx | Tx, rid: int, user_id: str) -> list[ReceiptRow]:
    """Return every receipt of one user in one room, private ones included."""
    sql = f"SELECT {_COLUMNS} FROM receipt WHERE rid=? AND user_id=?"
    return [ReceiptRow(*row) for row in rx.execute(sql, (rid, user_id))]


def purge(tx: Tx, user_id: str) -> None:
    """Remove a user's receipts, for an account that was erased."""
    tx.execute("DELETE FROM receipt WHERE user_id=?", (user_id,))

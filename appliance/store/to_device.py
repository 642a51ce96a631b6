"""Messages for single devices, kept until the device has shown that it has them.

A message leaves the table only when its device asks for what comes after it (`acknowledge`). Transactions of senders
are remembered, so that a repeated request delivers once.
"""

from __future__ import annotations

from collections.abc import Iterable

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE to_device (
    pos INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    json BLOB NOT NULL
) STRICT;
CREATE INDEX to_device_recipient ON to_device (user_id, device_id, pos);
CREATE TABLE to_device_txn (
    session INTEGER NOT NULL,
    type TEXT NOT NULL,
    txn TEXT NOT NULL,
    ts INTEGER NOT NULL,
    PRIMARY KEY (session, type, txn)
) STRICT, WITHOUT ROWID;
CREATE INDEX to_device_txn_ts ON to_device_txn (ts);
"""


def put(tx: Tx, user_id: str, device_id: str, message: bytes) -> int:
    """Queue one message (JSON bytes with `type`, `sender`, `content`) and wake its recipient."""
    pos = tx.next_pos()
    tx.execute(
        "INSERT INTO to_device (pos, user_id, device_id, json) VALUES (?,?,?,?)", (pos, user_id, device_id, message)
    )
    tx.wake_user(user_id)
    return pos


def pending(rx: Rx, user_id: str, device_id: str, after: int, upto: int, limit: int) -> list[tuple[int, bytes]]:
    """Return up to `limit` messages with a position in (after, upto], oldest first."""
    return rx.execute(
        "SELECT pos, json FROM to_device WHERE user_id=? AND device_id=? AND pos>? AND pos<=? ORDER BY pos LIMIT ?",
        (user_id, device_id, after, upto, limit),
    ).fetchall()


def acknowledge(tx: Tx, user_id: str, device_id: str, upto: int) -> int:
    """Drop the messages that the device has received, up to and including a position; returns how many."""
    return tx.execute(
        "DELETE FROM to_device WHERE user_id=? AND device_id=? AND pos<=?", (user_id, device_id, upto)
    ).rowcount


def purge(tx: Tx, user_id: str, device_id: str) -> None:
    """Drop everything queued for a device that is gone."""
    tx.execute("DELETE FROM to_device WHERE user_id=? AND device_id=?", (user_id, device_id))


def first_time(tx: Tx, session: int, type: str, txn: str, now: int) -> bool:
    """Record a sender's transaction; False when it was recorded before."""
    return tx.execute(
        "INSERT INTO to_device_txn (session, type, txn, ts) VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
        (session, type, txn, now),
    ).rowcount == 1


def forget_transactions(tx: Tx, before: int, limit: int = 1000) -> int:
    """Forget at most `limit` transactions older than `before` (milliseconds since the epoch)."""
    rows = tx.execute(
        "SELECT session, type, txn FROM to_device_txn WHERE ts<? ORDER BY ts LIMIT ?", (before, limit)
    ).fetchall()
    tx.executemany("DELETE FROM to_device_txn WHERE session=? AND type=? AND txn=?", rows)
    return len(rows)


def forget_sessions(tx: Tx, sessions: Iterable[int]) -> None:
    """Forget the transactions of devices that are gone."""
    tx.executemany("DELETE FROM to_device_txn WHERE session=?", [(session,) for session in sessions])

"""What was taken in from other servers: answered transactions, and messages for devices that were delivered."""

from __future__ import annotations

from typing import Final

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE inbox_txn (
    origin TEXT NOT NULL,
    txn TEXT NOT NULL,
    ts INTEGER NOT NULL,
    answer BLOB NOT NULL,
    PRIMARY KEY (origin, txn)
) STRICT, WITHOUT ROWID;
CREATE INDEX inbox_txn_ts ON inbox_txn (ts);
CREATE TABLE inbox_message (
    sender TEXT NOT NULL,
    message_id TEXT NOT NULL,
    ts INTEGER NOT NULL,
    PRIMARY KEY (sender, message_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX inbox_message_ts ON inbox_message (ts);
"""

KEPT_MS: Final = 7 * 86_400_000
"""How long a repetition is recognised; events and device lists are recognised for ever by themselves."""
FORGET_AT_ONCE: Final = 20


def answered(rx: Rx | Tx, origin: str, txn: str) -> bytes | None:
    """Return the answer that a transaction got, None if there is none yet."""
    row = rx.execute("SELECT answer FROM inbox_txn WHERE origin=? AND txn=?", (origin, txn)).fetchone()
    return bytes(row[0]) if row else None


def answer(tx: Tx, origin: str, txn: str, body: bytes, now: int) -> None:
    """Keep the answer to a transaction, and forget some that are too old to be asked for again."""
    tx.execute("INSERT OR REPLACE INTO inbox_txn VALUES (?, ?, ?, ?)", (origin, txn, now, body))
    old = tx.execute(
        "SELECT origin, txn FROM inbox_txn WHERE ts<? ORDER BY ts LIMIT ?", (now - KEPT_MS, FORGET_AT_ONCE)
    ).fetchall()
    tx.executemany("DELETE FROM inbox_txn WHERE origin=? AND txn=?", old)


def first_time(tx: Tx, sender: str, message_id: str, now: int) -> bool:
    """Record a message for devices; False when it was recorded before."""
    old = tx.execute(
        "SELECT sender, message_id FROM inbox_message WHERE ts<? ORDER BY ts LIMIT ?", (now - KEPT_MS, FORGET_AT_ONCE)
    ).fetchall()
    tx.executemany("DELETE FROM inbox_message WHERE sender=? AND message_id=?", old)
    return tx.execute(
        "INSERT INTO inbox_message VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (sender, message_id, now)
    ).rowcount == 1

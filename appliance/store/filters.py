"""Filters that clients stored for later use by number; the same filter of the same user keeps its number."""

from __future__ import annotations

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE filter (
    user_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    json BLOB NOT NULL,
    PRIMARY KEY (user_id, number)
) STRICT, WITHOUT ROWID;
"""

MAX_PER_USER = 200
"""Filters kept per user; beyond it the oldest goes (a client whose filter is gone uploads it again)."""


def put(tx: Tx, user_id: str, json: bytes) -> int:
    """Keep a filter (canonical JSON) and return its number."""
    row = tx.execute("SELECT number FROM filter WHERE user_id=? AND json=?", (user_id, json)).fetchone()
    if row is not None:
        return int(row[0])
    newest = tx.execute("SELECT coalesce(max(number), -1) FROM filter WHERE user_id=?", (user_id,)).fetchone()[0]
    number = int(newest) + 1
    tx.execute("INSERT INTO filter (user_id, number, json) VALUES (?, ?, ?)", (user_id, number, json))
    tx.execute("DELETE FROM filter WHERE user_id=? AND number<=?", (user_id, number - MAX_PER_USER))
    return number


def get(rx: Rx | Tx, user_id: str, number: int) -> bytes | None:
    """Return a stored filter, or None."""
    row = rx.execute("SELECT json FROM filter WHERE user_id=? AND number=?", (user_id, number)).fetchone()
    return None if row is None else bytes(row[0])


def purge(tx: Tx, user_id: str) -> None:
    """Remove a user's filters, for an account that was erased."""
    tx.execute("DELETE FROM filter WHERE user_id=?", (user_id,))

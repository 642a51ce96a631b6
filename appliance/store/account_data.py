"""Account data: what a user's clients keep on the server, globally (`room_id` is "") or per room.

Tags, the fully-read marker and push rules are ordinary rows here. A row that was deleted stays as an empty JSON
object with a new position, so that the other devices hear of it.
"""

from __future__ import annotations

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE account_data (
    user_id TEXT NOT NULL,
    room_id TEXT NOT NULL,
    type TEXT NOT NULL,
    pos INTEGER NOT NULL,
    content BLOB NOT NULL,
    PRIMARY KEY (user_id, room_id, type)
) STRICT, WITHOUT ROWID;
CREATE INDEX account_data_pos ON account_data (user_id, pos);
"""

GLOBAL = ""
"""The room id of account data that belongs to no room."""


def put(tx: Tx, user_id: str, room_id: str, type: str, content: bytes) -> int:
    """Keep one entry and wake the user's devices; returns its stream position."""
    pos = tx.next_pos()
    tx.execute(
        "INSERT INTO account_data (user_id, room_id, type, pos, content) VALUES (?,?,?,?,?) "
        "ON CONFLICT DO UPDATE SET pos=excluded.pos, content=excluded.content",
        (user_id, room_id, type, pos, content),
    )
    tx.wake_user(user_id)
    return pos


def get(rx: Rx | Tx, user_id: str, room_id: str, type: str) -> bytes | None:
    """Return the content of one entry as JSON bytes, or None."""
    row = rx.execute(
        "SELECT content FROM account_data WHERE user_id=? AND room_id=? AND type=?", (user_id, room_id, type)
    ).fetchone()
    return None if row is None else bytes(row[0])


def changed(rx: Rx, user_id: str, after: int, upto: int) -> list[tuple[str, str, bytes]]:
    """Return the entries with a position in (after, upto] as (room id or "", type, content), oldest first."""
    return rx.execute(
        "SELECT room_id, type, content FROM account_data WHERE user_id=? AND pos>? AND pos<=? ORDER BY pos",
        (user_id, after, upto),
    ).fetchall()


def delete(tx: Tx, user_id: str, room_id: str, type: str) -> bool:
    """Empty one entry, telling the user's devices; False when there was none."""
    found = get(tx, user_id, room_id, type)
    if found is None or found == b"{}":
        return False
    put(tx, user_id, room_id, type, b"{}")
    return True


def count(rx: Rx | Tx, user_id: str) -> int:
    """Return how many entries the user has."""
    return int(rx.execute("SELECT count(*) FROM account_data WHERE user_id=?", (user_id,)).fetchone()[0])


def purge(tx: Tx, user_id: str) -> None:
    """Remove everything the user kept, for an account that was erased."""
    tx.execute("DELETE FROM account_data WHERE user_id=?", (user_id,))

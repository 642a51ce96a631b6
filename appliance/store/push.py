"""Push: the pushers of the users, and what their queue is made of.

There is no queue table. The timeline is the queue: a pusher's `cursor` is the stream position up to which everything
has been handed to its gateway, and what lies beyond is still owed. Moving the cursor is the acknowledgement.
`pid` is never given twice (AUTOINCREMENT), so that a pusher in memory cannot be taken for its successor.
"""

from __future__ import annotations

from typing import Any

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE pusher (
    pid INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    app_id TEXT NOT NULL,
    pushkey TEXT NOT NULL,
    device_id TEXT,
    kind TEXT NOT NULL,
    app_display_name TEXT NOT NULL,
    device_display_name TEXT NOT NULL,
    profile_tag TEXT,
    lang TEXT NOT NULL,
    data BLOB NOT NULL,
    ts INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    UNIQUE (app_id, pushkey, user_id)
) STRICT;
CREATE INDEX pusher_user ON pusher (user_id);
"""

_COLUMNS = (
    "pid, user_id, app_id, pushkey, device_id, kind, app_display_name, device_display_name, profile_tag, lang, data,"
    " ts, cursor"
)


class PusherRow(msgspec.Struct, frozen=True):
    """One pusher. `data` is its JSON, `ts` when it was last set (milliseconds), `cursor` what it was served up to."""

    pid: int
    user_id: str
    app_id: str
    pushkey: str
    device_id: str | None
    kind: str
    app_display_name: str
    device_display_name: str
    profile_tag: str | None
    lang: str
    data: bytes
    ts: int
    cursor: int


def _rows(found: Any) -> list[PusherRow]:
    return [PusherRow(*row) for row in found]


def everyone(rx: Rx) -> list[PusherRow]:
    """Return every pusher of the house."""
    return _rows(rx.execute(f"SELECT {_COLUMNS} FROM pusher ORDER BY pid"))


def of_user(rx: Rx | Tx, user_id: str) -> list[PusherRow]:
    """Return the pushers of one user, oldest first."""
    return _rows(rx.execute(f"SELECT {_COLUMNS} FROM pusher WHERE user_id=? ORDER BY pid", (user_id,)))


def owners(rx: Rx | Tx, app_id: str, pushkey: str) -> list[str]:
    """Return whose pushers have this app id and push key."""
    return [user_id for (user_id,) in rx.execute(
        "SELECT user_id FROM pusher WHERE app_id=? AND pushkey=?", (app_id, pushkey))]


def put(tx: Tx, row: PusherRow, append: bool) -> None:
    """Create or update the pusher with this user, app id and push key; `pid` and `cursor` of `row` do not count.

    Unless `append`, pushers of other users with the same app id and push key are removed. A new pusher begins at the
    present: what happened before it existed is not owed to it.
    """
    if not append:
        tx.execute("DELETE FROM pusher WHERE app_id=? AND pushkey=? AND user_id<>?",
                   (row.app_id, row.pushkey, row.user_id))
    tx.execute(
        "INSERT INTO pusher (user_id, app_id, pushkey, device_id, kind, app_display_name, device_display_name,"
        " profile_tag, lang, data, ts, cursor) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)"
        " ON CONFLICT (app_id, pushkey, user_id) DO UPDATE SET device_id=excluded.device_id, kind=excluded.kind,"
        " app_display_name=excluded.app_display_name, device_display_name=excluded.device_display_name,"
        " profile_tag=excluded.profile_tag, lang=excluded.lang, data=excluded.data, ts=excluded.ts",
        (row.user_id, row.app_id, row.pushkey, row.device_id, row.kind, row.app_display_name, row.device_display_name,
         row.profile_tag, row.lang, row.data, row.ts, tx.position),
    )


def count(rx: Rx | Tx, user_id: str) -> int:
    """Return how many pushers the user has."""
    return int(rx.execute("SELECT count(*) FROM pusher WHERE user_id=?", (user_id,)).fetchone()[0])


def remove(tx: Tx, user_id: str, app_id: str, pushkey: str) -> bool:
    """Remove one pusher; False if there was none."""
    cursor = tx.execute("DELETE FROM pusher WHERE user_id=? AND app_id=? AND pushkey=?", (user_id, app_id, pushkey))
    return cursor.rowcount == 1


def remove_of_device(tx: Tx, user_id: str, device_id: str) -> None:
    """Remove the pushers that a device set, for a device that is logged out."""
    tx.execute("DELETE FROM pusher WHERE user_id=? AND device_id=?", (user_id, device_id))
    tx.wake_user(user_id)


def remove_of_user(tx: Tx, user_id: str, keep_device: str | None = None) -> None:
    """Remove the user's pushers except those of `keep_device`, for a changed password or a closed account."""
    tx.execute("DELETE FROM pusher WHERE user_id=? AND device_id IS NOT ?", (user_id, keep_device or ""))
    tx.wake_user(user_id)


def advance(tx: Tx, pid: int, cursor: int) -> bool:
    """Acknowledge everything up to `cursor`; False if the pusher was removed meanwhile."""
    return bool(tx.execute("UPDATE pusher SET cursor=max(cursor, ?) WHERE pid=?", (cursor, pid)).rowcount)


def newest(rx: Rx, rid: int, below: int) -> int | None:
    """Return the position of the newest timeline event of a room below a position."""
    found = rx.execute("SELECT max(pos) FROM event WHERE rid=? AND pos<? AND pos>0", (rid, below)).fetchone()
    return None if found[0] is None else int(found[0])


def joined_count(rx: Rx, rid: int) -> int:
    """Return how many people are joined to a room."""
    return int(rx.execute("SELECT count(*) FROM membership WHERE rid=? AND membership='join'", (rid,)).fetchone()[0])


def thread_eids(rx: Rx, rid: int, after: int, upto: int, limit: int) -> list[int]:
    """Return the eids of the newest events with after < pos <= upto that may be in a thread, directly or through the
    event they relate to (reactions and edits, which notify nobody, are left out).
    """
    return [eid for (eid,) in rx.execute(
        "SELECT r.eid FROM relation r JOIN event e ON e.eid = r.eid WHERE r.rid=?"
        " AND r.rel_type NOT IN ('m.annotation', 'm.replace')"
        " AND e.pos>? AND e.pos<=? AND e.flags=0 ORDER BY r.eid DESC LIMIT ?", (rid, after, upto, limit))]

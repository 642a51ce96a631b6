"""Key backups: room keys that a user's devices encrypted for themselves, by version.

`etag` counts changes of a version's keys, `held` is how many there are (counting them anew would read the whole
backup at every upload). A deleted version keeps its number, so that numbers are never given twice.
"""

from __future__ import annotations

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE key_backup_version (
    user_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    algorithm TEXT NOT NULL,
    auth_data BLOB NOT NULL,
    etag INTEGER NOT NULL DEFAULT 0,
    held INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, version)
) STRICT, WITHOUT ROWID;
CREATE TABLE key_backup (
    user_id TEXT NOT NULL,
    version INTEGER NOT NULL,
    room_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    first_message_index INTEGER NOT NULL,
    forwarded_count INTEGER NOT NULL,
    is_verified INTEGER NOT NULL,
    session_data BLOB NOT NULL,
    PRIMARY KEY (user_id, version, room_id, session_id)
) STRICT, WITHOUT ROWID;
"""


class Version(msgspec.Struct, frozen=True):
    """One backup: `auth_data` is JSON bytes, `held` the number of its keys."""

    version: int
    algorithm: str
    auth_data: bytes
    etag: int
    held: int


class BackedUpKey(msgspec.Struct, frozen=True):
    """One room key of a backup: `session_data` is the encrypted part as JSON bytes."""

    room_id: str
    session_id: str
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: bytes


def create(tx: Tx, user_id: str, algorithm: str, auth_data: bytes) -> int:
    """Begin a new backup; returns its version."""
    version = 1 + int(
        tx.execute("SELECT coalesce(max(version), 0) FROM key_backup_version WHERE user_id=?", (user_id,)).fetchone()[0]
    )
    tx.execute(
        "INSERT INTO key_backup_version (user_id, version, algorithm, auth_data) VALUES (?,?,?,?)",
        (user_id, version, algorithm, auth_data),
    )
    return version


def latest(rx: Rx | Tx, user_id: str) -> Version | None:
    """Return the newest backup that was not deleted, or None."""
    row = rx.execute(
        "SELECT version, algorithm, auth_data, etag, held FROM key_backup_version WHERE user_id=? AND deleted=0 "
        "ORDER BY version DESC LIMIT 1",
        (user_id,),
    ).fetchone()
    return None if row is None else Version(*row)


def find(rx: Rx | Tx, user_id: str, version: int) -> Version | None:
    """Return one backup unless it was deleted."""
    row = rx.execute(
        "SELECT version, algorithm, auth_data, etag, held FROM key_backup_version "
        "WHERE user_id=? AND version=? AND deleted=0",
        (user_id, version),
    ).fetchone()
    return None if row is None else Version(*row)


def set_auth_data(tx: Tx, user_id: str, version: int, auth_data: bytes) -> None:
    """Replace the public part of a backup."""
    tx.execute(
        "UPDATE key_backup_version SET auth_data=? WHERE user_id=? AND version=?", (auth_data, user_id, version)
    )


def delete_version(tx: Tx, user_id: str, version: int) -> None:
    """Delete a backup and its keys."""
    tx.execute(
        "UPDATE key_backup_version SET deleted=1, held=0, auth_data=x'7b7d' WHERE user_id=? AND version=?",
        (user_id, version),
    )
    tx.execute("DELETE FROM key_backup WHERE user_id=? AND version=?", (user_id, version))


def touch(tx: Tx, user_id: str, version: int, more: int) -> None:
    """Note that the keys changed, and that there are `more` of them than before (or fewer, below zero)."""
    tx.execute(
        "UPDATE key_backup_version SET etag=etag+1, held=held+? WHERE user_id=? AND version=?",
        (more, user_id, version),
    )


_COLUMNS = "room_id, session_id, first_message_index, forwarded_count, is_verified, session_data"


def keys(
    rx: Rx | Tx, user_id: str, version: int, room_id: str | None = None, session_id: str | None = None
) -> list[BackedUpKey]:
    """Return the keys of a backup, of one of its rooms, or one session."""
    where, args = _where(user_id, version, room_id, session_id)
    rows = rx.execute(f"SELECT {_COLUMNS} FROM key_backup WHERE {where} ORDER BY room_id, session_id", args)
    return [BackedUpKey(row[0], row[1], row[2], row[3], bool(row[4]), row[5]) for row in rows]


def put(tx: Tx, user_id: str, version: int, key: BackedUpKey) -> None:
    """Keep one key, replacing what was there."""
    tx.execute(
        f"INSERT OR REPLACE INTO key_backup (user_id, version, {_COLUMNS}) VALUES (?,?,?,?,?,?,?,?)",
        (user_id, version, key.room_id, key.session_id, key.first_message_index, key.forwarded_count,
         int(key.is_verified), key.session_data),
    )


def delete(
    tx: Tx, user_id: str, version: int, room_id: str | None = None, session_id: str | None = None
) -> int:
    """Delete all keys of a backup, those of a room, or one; returns how many."""
    where, args = _where(user_id, version, room_id, session_id)
    return tx.execute(f"DELETE FROM key_backup WHERE {where}", args).rowcount


def purge(tx: Tx, user_id: str) -> None:
    """Remove all backups of a user."""
    tx.execute("DELETE FROM key_backup WHERE user_id=?", (user_id,))
    tx.execute("DELETE FROM key_backup_version WHERE user_id=?", (user_id,))


def _where(
    user_id: str, version: int, room_id: str | None, session_id: str | None
) -> tuple[str, tuple[str | int, ...]]:
    where, args = "user_id=? AND version=?", (user_id, version)
    if room_id is None:
        return where, args
    if session_id is None:
        return f"{where} AND room_id=?", (*args, room_id)
    return f"{where} AND room_id=? AND session_id=?", (*args, room_id, session_id)

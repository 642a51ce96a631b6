"""Signing keys of other servers as they were learned, what a notary hands on, and the keys that were once our own.

`server_key` remembers every key for ever with the time up to which events may be signed with it: a room's history
outlives the keys of its servers. `server_key_object` holds each server's last key object with its signatures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE server_key (
    server TEXT NOT NULL,
    key_id TEXT NOT NULL,
    verify_key BLOB NOT NULL,
    until INTEGER NOT NULL,
    old INTEGER NOT NULL,
    PRIMARY KEY (server, key_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE server_key_object (
    server TEXT NOT NULL PRIMARY KEY,
    json BLOB NOT NULL,
    fetched INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT;

CREATE TABLE own_signing_key (
    key_id TEXT NOT NULL PRIMARY KEY,
    verify_key BLOB NOT NULL,
    expired INTEGER
) STRICT;
"""

MOST_PER_SERVER: Final = 200
"""Keys remembered of one server; beyond that new ones are not, so that nobody fills the disk with keys."""
MOST_OBJECTS: Final = 20_000
"""Key objects kept to hand on; beyond that the one fetched longest ago goes (its keys themselves stay)."""


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key of a server; `until` (milliseconds) bounds the events it may sign, `old` keys sign no requests."""

    server: str
    key_id: str
    verify_key: bytes
    until: int
    old: bool


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """A server's last key object; `fetched` and `until` in milliseconds."""

    json: bytes
    fetched: int
    until: int


@dataclass(frozen=True, slots=True)
class OwnRow:
    """A key of ours; `expired` (milliseconds) is None for the one in use."""

    key_id: str
    verify_key: bytes
    expired: int | None


def learn(tx: Tx, keys: Iterable[KeyRow]) -> None:
    """Remember keys. A key in use only ever gains time; one declared old keeps the time its owner gave."""
    for row in keys:
        count = tx.execute("SELECT count(*) FROM server_key WHERE server=?", (row.server,)).fetchone()[0]
        known = tx.execute(
            "SELECT verify_key FROM server_key WHERE server=? AND key_id=?", (row.server, row.key_id)
        ).fetchone()
        if known is None and count >= MOST_PER_SERVER:
            continue
        tx.execute(
            "INSERT INTO server_key (server, key_id, verify_key, until, old) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (server, key_id) DO UPDATE SET verify_key=excluded.verify_key, old=excluded.old, until="
            "CASE WHEN excluded.old OR server_key.old OR server_key.verify_key<>excluded.verify_key"
            " THEN excluded.until ELSE max(server_key.until, excluded.until) END",
            (row.server, row.key_id, row.verify_key, row.until, int(row.old)),
        )


def keep_object(tx: Tx, server: str, row: ObjectRow) -> None:
    """Keep a server's newest key object."""
    tx.execute(
        "INSERT OR REPLACE INTO server_key_object (server, json, fetched, until) VALUES (?, ?, ?, ?)",
        (server, row.json, row.fetched, row.until),
    )
    if tx.execute("SELECT count(*) FROM server_key_object").fetchone()[0] > MOST_OBJECTS:
        tx.execute(
            "DELETE FROM server_key_object WHERE server IN"
            " (SELECT server FROM server_key_object ORDER BY fetched, server LIMIT ?)",
            (MOST_OBJECTS // 20,),
        )


def keys_of(rx: Rx | Tx, servers: Sequence[str]) -> list[KeyRow]:
    """Return every remembered key of these servers."""
    found: list[KeyRow] = []
    for server in servers:
        rows = rx.execute("SELECT key_id, verify_key, until, old FROM server_key WHERE server=?", (server,))
        found += [KeyRow(server, key_id, bytes(key), until, bool(old)) for key_id, key, until, old in rows]
    return found


def objects(rx: Rx | Tx, servers: Sequence[str]) -> Mapping[str, ObjectRow]:
    """Return the last key objects of these servers, as far as there are any."""
    found = {}
    for server in servers:
        row = rx.execute("SELECT json, fetched, until FROM server_key_object WHERE server=?", (server,)).fetchone()
        if row is not None:
            found[server] = ObjectRow(bytes(row[0]), row[1], row[2])
    return found


def use_own(tx: Tx, key_id: str, verify_key: bytes, now: int) -> list[OwnRow]:
    """Note which key of ours is in use; any other one expired now at the latest. Returns all of them."""
    tx.execute("UPDATE own_signing_key SET expired=? WHERE expired IS NULL AND key_id<>?", (now, key_id))
    tx.execute(
        "INSERT INTO own_signing_key (key_id, verify_key, expired) VALUES (?, ?, NULL)"
        " ON CONFLICT (key_id) DO UPDATE SET verify_key=excluded.verify_key, expired=NULL",
        (key_id, verify_key),
    )
    rows = tx.execute("SELECT key_id, verify_key, expired FROM own_signing_key ORDER BY key_id")
    return [OwnRow(row[0], bytes(row[1]), row[2]) for row in rows]

"""Access, refresh, log-in and OpenID tokens. Only their SHA-256 is ever stored.

A refresh makes a new row whose `parent` is the row that was refreshed. The parent stays good until its child is used
for the first time (`settle`), so that a client that missed the answer can refresh again.
"""

from __future__ import annotations

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE token (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    session INTEGER NOT NULL REFERENCES device (session) ON DELETE CASCADE,
    access BLOB NOT NULL UNIQUE,
    expires INTEGER,
    refresh BLOB UNIQUE,
    parent INTEGER
) STRICT;
CREATE INDEX token_session ON token (session);
CREATE INDEX token_parent ON token (parent) WHERE parent IS NOT NULL;
CREATE TABLE login_token (
    hash BLOB PRIMARY KEY,
    user_id TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE openid_token (
    hash BLOB PRIMARY KEY,
    user_id TEXT NOT NULL,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX openid_token_expires ON openid_token (expires);
"""


class TokenRow(msgspec.Struct, frozen=True):
    """A token with its device and account; `expires` in milliseconds since the epoch, None for never."""

    id: int
    parent: int | None
    expires: int | None
    session: int
    user_id: str
    device_id: str
    admin: bool
    deactivated: bool
    locked: bool
    suspended: bool
    seen: int


_SELECT = (
    "SELECT token.id, parent, expires, session, user_id, device_id, admin, deactivated, locked, suspended, seen "
    "FROM token JOIN device USING (session) JOIN account USING (user_id) WHERE "
)


def _row(rx: Rx | Tx, column: str, hash: bytes) -> TokenRow | None:
    row = rx.execute(f"{_SELECT}{column}=?", (hash,)).fetchone()
    if row is None:
        return None
    id, parent, expires, session, user_id, device_id, admin, deactivated, locked, suspended, seen = row
    return TokenRow(
        id, parent, expires, session, user_id, device_id,
        bool(admin), bool(deactivated), bool(locked), bool(suspended), seen,
    )


def insert(tx: Tx, session: int, access: bytes, expires: int | None, refresh: bytes | None, parent: int | None) -> int:
    """Keep the hashes of a new pair of tokens; returns the row id."""
    made = tx.execute(
        "INSERT INTO token (session, access, expires, refresh, parent) VALUES (?,?,?,?,?)",
        (session, access, expires, refresh, parent),
    ).lastrowid
    if made is None:
        raise RuntimeError("SQLite gave the new token no row id")
    return made


def by_access(rx: Rx | Tx, hash: bytes) -> TokenRow | None:
    """Return the row of an access token, or None."""
    return _row(rx, "access", hash)


def by_refresh(rx: Rx | Tx, hash: bytes) -> TokenRow | None:
    """Return the row of a refresh token, or None."""
    return _row(rx, "refresh", hash)


def settle(tx: Tx, id: int) -> None:
    """The tokens of row `id` were used: those they replaced are worth nothing from now on."""
    tx.execute("DELETE FROM token WHERE id = (SELECT parent FROM token WHERE id=?)", (id,))
    tx.execute("UPDATE token SET parent=NULL WHERE id=?", (id,))


def drop_children(tx: Tx, id: int) -> None:
    """Forget replacements of row `id` that nobody used."""
    tx.execute("DELETE FROM token WHERE parent=?", (id,))


def drop_session(tx: Tx, session: int) -> None:
    """Forget all tokens of one device."""
    tx.execute("DELETE FROM token WHERE session=?", (session,))


# -- log-in tokens -----------------------------------------------------------------------------------------------------


def put_login_token(tx: Tx, hash: bytes, user_id: str, expires: int, now: int) -> None:
    """Keep a token that may be exchanged once for a log-in until `expires` (milliseconds since the epoch)."""
    tx.execute("DELETE FROM login_token WHERE expires<=?", (now,))
    tx.execute("INSERT INTO login_token (hash, user_id, expires) VALUES (?,?,?)", (hash, user_id, expires))


def take_login_token(tx: Tx, hash: bytes, now: int) -> str | None:
    """Spend a log-in token; returns the user id, or None when it is unknown, spent or too old."""
    tx.execute("DELETE FROM login_token WHERE expires<=?", (now,))
    row = tx.execute("DELETE FROM login_token WHERE hash=? RETURNING user_id", (hash,)).fetchone()
    return None if row is None else str(row[0])


# -- OpenID tokens -----------------------------------------------------------------------------------------------------


def put_openid_token(tx: Tx, hash: bytes, user_id: str, expires: int, now: int) -> None:
    """Keep a token that proves to a third party who somebody is; forgets those that ran out."""
    tx.execute("DELETE FROM openid_token WHERE expires<=?", (now,))
    tx.execute("INSERT INTO openid_token (hash, user_id, expires) VALUES (?,?,?)", (hash, user_id, expires))


def openid_user(rx: Rx, hash: bytes, now: int) -> str | None:
    """Return whom an OpenID token names, or None."""
    row = rx.execute("SELECT user_id FROM openid_token WHERE hash=? AND expires>?", (hash, now)).fetchone()
    return None if row is None else str(row[0])


def drop_user(tx: Tx, user_id: str) -> None:
    """Forget log-in and OpenID tokens of a user (access tokens go with their devices)."""
    tx.execute("DELETE FROM login_token WHERE user_id=?", (user_id,))
    tx.execute("DELETE FROM openid_token WHERE user_id=?", (user_id,))

"""Local accounts: who may log in, and in what state the account is.

`password` is the whole argon2id string (parameters and salt inside), NULL for an account that has none. A user id
stays taken after deactivation. Of registration tokens only the SHA-256 is kept.
"""

from __future__ import annotations

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE account (
    user_id TEXT PRIMARY KEY,
    password TEXT,
    admin INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    deactivated INTEGER NOT NULL DEFAULT 0,
    erased INTEGER NOT NULL DEFAULT 0,
    locked INTEGER NOT NULL DEFAULT 0,
    suspended INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE registration_token (
    hash BLOB PRIMARY KEY,
    uses INTEGER,
    completed INTEGER NOT NULL DEFAULT 0,
    expires INTEGER
) STRICT, WITHOUT ROWID;
"""

_COLUMNS = "user_id, password, admin, created, deactivated, erased, locked, suspended"


class Account(msgspec.Struct, frozen=True):
    """One local account; `created` in milliseconds since the epoch."""

    user_id: str
    password: str | None
    admin: bool
    created: int
    deactivated: bool
    erased: bool
    locked: bool
    suspended: bool

    def __repr__(self) -> str:
        return f"Account({self.user_id})"


def insert(tx: Tx, user_id: str, password: str | None, admin: bool, now: int) -> bool:
    """Make an account; False when the user id is taken (also by a deactivated account)."""
    return tx.execute(
        "INSERT INTO account (user_id, password, admin, created) VALUES (?,?,?,?) ON CONFLICT DO NOTHING",
        (user_id, password, int(admin), now),
    ).rowcount == 1


def find(rx: Rx | Tx, user_id: str) -> Account | None:
    """Return an account, or None."""
    row = rx.execute(f"SELECT {_COLUMNS} FROM account WHERE user_id=?", (user_id,)).fetchone()
    if row is None:
        return None
    return Account(row[0], row[1], bool(row[2]), row[3], *(bool(flag) for flag in row[4:]))


def exists(rx: Rx | Tx, user_id: str) -> bool:
    """Tell whether the user id is or was an account."""
    return rx.execute("SELECT 1 FROM account WHERE user_id=?", (user_id,)).fetchone() is not None


def set_password(tx: Tx, user_id: str, password: str | None) -> None:
    """Replace the password hash."""
    tx.execute("UPDATE account SET password=? WHERE user_id=?", (password, user_id))


def deactivate(tx: Tx, user_id: str, erase: bool) -> None:
    """Close an account for good: no password, no log-in."""
    tx.execute(
        "UPDATE account SET password=NULL, deactivated=1, erased=max(erased, ?) WHERE user_id=?", (int(erase), user_id)
    )


def set_locked(tx: Tx, user_id: str, locked: bool) -> bool:
    """Lock or unlock; False when there is no such account."""
    return tx.execute("UPDATE account SET locked=? WHERE user_id=?", (int(locked), user_id)).rowcount > 0


def set_suspended(tx: Tx, user_id: str, suspended: bool) -> bool:
    """Suspend or resume; False when there is no such account."""
    return tx.execute("UPDATE account SET suspended=? WHERE user_id=?", (int(suspended), user_id)).rowcount > 0


def closed_but_present(rx: Rx) -> list[str]:
    """Return the deactivated users who still are in a room, are invited into one, or wait before one."""
    return [row[0] for row in rx.execute(
        "SELECT user_id FROM account WHERE deactivated=1 AND EXISTS (SELECT 1 FROM membership "
        "WHERE membership.user_id = account.user_id AND membership IN ('join', 'invite', 'knock'))"
    )]


# -- registration tokens -----------------------------------------------------------------------------------------------


def add_registration_token(tx: Tx, hash: bytes, uses: int | None, expires: int | None) -> None:
    """Allow `uses` registrations (None: any number) with a token until `expires` (milliseconds; None: for ever)."""
    tx.execute(
        "INSERT INTO registration_token (hash, uses, expires) VALUES (?,?,?) "
        "ON CONFLICT DO UPDATE SET uses=excluded.uses, expires=excluded.expires",
        (hash, uses, expires),
    )


def registration_token_valid(rx: Rx | Tx, hash: bytes, now: int) -> bool:
    """Tell whether one more registration is allowed with the token."""
    return rx.execute(
        "SELECT 1 FROM registration_token WHERE hash=? AND (uses IS NULL OR completed < uses) "
        "AND (expires IS NULL OR expires > ?)",
        (hash, now),
    ).fetchone() is not None


def use_registration_token(tx: Tx, hash: bytes, now: int) -> bool:
    """Count one registration against the token; False when none is left."""
    if not registration_token_valid(tx, hash, now):
        return False
    tx.execute("UPDATE registration_token SET completed=completed+1 WHERE hash=?", (hash,))
    return True

"""End-to-end encryption keys: device keys, one-time and fallback keys, cross-signing keys, signatures.

All of it is public key material, stored and served as uploaded. A one-time key is handed out exactly once: `claim`
deletes it in the writer. Its id is remembered for a while (`claimed_key`), because a client that missed the answer to
its upload sends the same keys again, and a key that somebody already has must not come back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE device_key (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    json BLOB NOT NULL,
    PRIMARY KEY (user_id, device_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE one_time_key (
    seq INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    json BLOB NOT NULL,
    UNIQUE (user_id, device_id, algorithm, key_id)
) STRICT;
CREATE INDEX one_time_key_order ON one_time_key (user_id, device_id, algorithm, seq);
CREATE TABLE claimed_key (
    seq INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    json BLOB NOT NULL
) STRICT;
CREATE INDEX claimed_key_device ON claimed_key (user_id, device_id, seq);
CREATE TABLE fallback_key (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    algorithm TEXT NOT NULL,
    key_id TEXT NOT NULL,
    json BLOB NOT NULL,
    used INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, device_id, algorithm)
) STRICT, WITHOUT ROWID;
CREATE TABLE cross_signing_key (
    user_id TEXT NOT NULL,
    usage TEXT NOT NULL,
    json BLOB NOT NULL,
    PRIMARY KEY (user_id, usage)
) STRICT, WITHOUT ROWID;
CREATE TABLE key_signature (
    target_user TEXT NOT NULL,
    target TEXT NOT NULL,
    signer TEXT NOT NULL,
    key_id TEXT NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (target_user, target, signer, key_id)
) STRICT, WITHOUT ROWID;
"""

USUAL_ALGORITHM = "signed_curve25519"
"""Counted even when none is left, so that a client sees the 0."""

REMEMBERED = 400
"""Claimed keys remembered per device: several times what a client publishes at once."""


class StoredKey(msgspec.Struct, frozen=True):
    """A one-time or fallback key: its algorithm, id, and the key as uploaded (JSON bytes: an object or a string)."""

    algorithm: str
    key_id: str
    json: bytes


class Signature(msgspec.Struct, frozen=True):
    """A signature over somebody's key: `target` is a device id or the unpadded base64 of a cross-signing key."""

    target_user: str
    target: str
    signer: str
    key_id: str
    signature: str


# -- device keys -------------------------------------------------------------------------------------------------------


def put_device_keys(tx: Tx, user_id: str, device_id: str, json: bytes) -> bool:
    """Keep a device's identity keys; False when exactly these were there already."""
    if device_keys(tx, user_id, device_id) == json:
        return False
    tx.execute(
        "INSERT INTO device_key (user_id, device_id, json) VALUES (?,?,?) ON CONFLICT DO UPDATE SET json=excluded.json",
        (user_id, device_id, json),
    )
    return True


def device_keys(rx: Rx | Tx, user_id: str, device_id: str) -> bytes | None:
    """Return the identity keys of one device as uploaded, or None."""
    row = rx.execute("SELECT json FROM device_key WHERE user_id=? AND device_id=?", (user_id, device_id)).fetchone()
    return None if row is None else bytes(row[0])


def device_keys_of(rx: Rx | Tx, user_id: str) -> list[tuple[str, str | None, bytes]]:
    """Return (device id, display name, keys) of all the user's devices that have keys."""
    return rx.execute(
        "SELECT device_id, display_name, json FROM device_key LEFT JOIN device USING (user_id, device_id) "
        "WHERE user_id=? ORDER BY device_id",
        (user_id,),
    ).fetchall()


# -- one-time and fallback keys ----------------------------------------------------------------------------------------


def one_time_key(rx: Rx | Tx, user_id: str, device_id: str, algorithm: str, key_id: str) -> bytes | None:
    """Return an unclaimed one-time key, or None."""
    row = rx.execute(
        "SELECT json FROM one_time_key WHERE user_id=? AND device_id=? AND algorithm=? AND key_id=?",
        (user_id, device_id, algorithm, key_id),
    ).fetchone()
    return None if row is None else bytes(row[0])


def was_claimed(rx: Rx | Tx, user_id: str, device_id: str, key: StoredKey) -> bool:
    """Tell whether exactly this key was handed out lately."""
    return rx.execute(
        "SELECT 1 FROM claimed_key WHERE user_id=? AND device_id=? AND key_id=? AND algorithm=? AND json=?",
        (user_id, device_id, key.key_id, key.algorithm, key.json),
    ).fetchone() is not None


def add_one_time_keys(tx: Tx, user_id: str, device_id: str, keys: Iterable[StoredKey]) -> None:
    """Add one-time keys, to be handed out in this order, and let the device's next sync count anew."""
    tx.wake_user(user_id)
    tx.executemany(
        "INSERT INTO one_time_key (user_id, device_id, algorithm, key_id, json) VALUES (?,?,?,?,?)",
        [(user_id, device_id, key.algorithm, key.key_id, key.json) for key in keys],
    )


def one_time_counts(rx: Rx | Tx, user_id: str, device_id: str) -> dict[str, int]:
    """Return how many unclaimed keys a device has per algorithm; a 0 is said, not left out."""
    rows = rx.execute(
        "SELECT algorithm, count(*) FROM one_time_key WHERE user_id=? AND device_id=? GROUP BY algorithm",
        (user_id, device_id),
    )
    return {USUAL_ALGORITHM: 0, **dict(rows.fetchall())}


def claim(tx: Tx, user_id: str, device_id: str, algorithm: str) -> StoredKey | None:
    """Take the oldest one-time key of a device, or its fallback key when none is left; None when there is neither."""
    row = tx.execute(
        "DELETE FROM one_time_key WHERE seq = (SELECT seq FROM one_time_key WHERE user_id=? AND device_id=? "
        "AND algorithm=? ORDER BY seq LIMIT 1) RETURNING key_id, json",
        (user_id, device_id, algorithm),
    ).fetchone()
    if row is None:
        return _claim_fallback(tx, user_id, device_id, algorithm)
    _remember(tx, user_id, device_id, algorithm, row[0], row[1])
    tx.wake_user(user_id)
    return StoredKey(algorithm, row[0], row[1])


def _claim_fallback(tx: Tx, user_id: str, device_id: str, algorithm: str) -> StoredKey | None:
    row = tx.execute(
        "SELECT key_id, json, used FROM fallback_key WHERE user_id=? AND device_id=? AND algorithm=?",
        (user_id, device_id, algorithm),
    ).fetchone()
    if row is None:
        return None
    if not row[2]:
        tx.execute(
            "UPDATE fallback_key SET used=1 WHERE user_id=? AND device_id=? AND algorithm=?",
            (user_id, device_id, algorithm),
        )
        tx.wake_user(user_id)
    return StoredKey(algorithm, row[0], row[1])


def _remember(tx: Tx, user_id: str, device_id: str, algorithm: str, key_id: str, json: bytes) -> None:
    tx.execute(
        "INSERT INTO claimed_key (user_id, device_id, algorithm, key_id, json) VALUES (?,?,?,?,?)",
        (user_id, device_id, algorithm, key_id, json),
    )
    tx.execute(
        "DELETE FROM claimed_key WHERE user_id=? AND device_id=? AND seq <= (SELECT seq FROM claimed_key "
        "WHERE user_id=? AND device_id=? ORDER BY seq DESC LIMIT 1 OFFSET ?)",
        (user_id, device_id, user_id, device_id, REMEMBERED),
    )


def put_fallback_key(tx: Tx, user_id: str, device_id: str, key: StoredKey) -> None:
    """Keep the fallback key of an algorithm, replacing the previous one; the same key again stays used."""
    tx.wake_user(user_id)
    tx.execute(
        "INSERT INTO fallback_key (user_id, device_id, algorithm, key_id, json, used) VALUES (?,?,?,?,?,0) "
        "ON CONFLICT DO UPDATE SET used=CASE WHEN key_id=excluded.key_id AND json=excluded.json THEN used ELSE 0 END, "
        "key_id=excluded.key_id, json=excluded.json",
        (user_id, device_id, key.algorithm, key.key_id, key.json),
    )


def unused_fallback(rx: Rx | Tx, user_id: str, device_id: str) -> list[str]:
    """Return the algorithms whose fallback key was not handed out yet."""
    rows = rx.execute(
        "SELECT algorithm FROM fallback_key WHERE user_id=? AND device_id=? AND used=0 ORDER BY algorithm",
        (user_id, device_id),
    )
    return [row[0] for row in rows]


# -- cross-signing and signatures --------------------------------------------------------------------------------------


def put_cross_signing(tx: Tx, user_id: str, keys: Mapping[str, bytes]) -> None:
    """Keep cross-signing keys by usage (`master`, `self_signing`, `user_signing`)."""
    tx.executemany(
        "INSERT INTO cross_signing_key (user_id, usage, json) VALUES (?,?,?) "
        "ON CONFLICT DO UPDATE SET json=excluded.json",
        [(user_id, usage, json) for usage, json in keys.items()],
    )


def cross_signing(rx: Rx | Tx, user_id: str) -> dict[str, bytes]:
    """Return the user's cross-signing keys by usage, as uploaded."""
    rows = rx.execute("SELECT usage, json FROM cross_signing_key WHERE user_id=?", (user_id,))
    return {usage: bytes(json) for usage, json in rows}


def put_signatures(tx: Tx, signatures: Iterable[Signature]) -> None:
    """Keep signatures over keys; a newer one by the same key replaces the older."""
    tx.executemany(
        "INSERT INTO key_signature (target_user, target, signer, key_id, signature) VALUES (?,?,?,?,?) "
        "ON CONFLICT DO UPDATE SET signature=excluded.signature",
        [(s.target_user, s.target, s.signer, s.key_id, s.signature) for s in signatures],
    )


def signatures(rx: Rx | Tx, target_user: str, signers: Iterable[str]) -> list[Signature]:
    """Return the signatures over a user's keys made by any of `signers`."""
    found: list[Signature] = []
    for signer in dict.fromkeys(signers):
        rows = rx.execute(
            "SELECT target_user, target, signer, key_id, signature FROM key_signature "
            "WHERE target_user=? AND signer=?",
            (target_user, signer),
        )
        found.extend(Signature(*row) for row in rows)
    return found


def drop_signatures(tx: Tx, target_user: str, targets: Iterable[str]) -> None:
    """Forget the signatures over keys that were replaced."""
    tx.executemany(
        "DELETE FROM key_signature WHERE target_user=? AND target=?", [(target_user, target) for target in targets]
    )


def purge(tx: Tx, user_id: str) -> None:
    """Remove the user's cross-signing keys and the signatures over them."""
    tx.execute("DELETE FROM cross_signing_key WHERE user_id=?", (user_id,))
    tx.execute("DELETE FROM key_signature WHERE target_user=?", (user_id,))

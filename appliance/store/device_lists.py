"""Device lists across servers: what was told to others of our users' devices, and what others told of theirs.

Towards others: `told_device` holds what the other servers last heard of each device (a digest; the device "" stands
for the cross-signing keys), `told_list` the number of the last update of each user, and `told_upto` the place in
`device_list_change` up to which everything was told. All three move in the transaction that fills the outbox.

From others: `peer_list` and `peer_device` are copies of the lists of users with whom ours share a room. A copy with
`stale` set has missed something and waits for `/user/devices` to be asked again (at `retry_at`, milliseconds).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE told_device (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (user_id, device_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE told_list (
    user_id TEXT PRIMARY KEY,
    stream_id INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE told_upto (pos INTEGER NOT NULL) STRICT;
INSERT INTO told_upto VALUES (0);
CREATE TABLE peer_list (
    user_id TEXT PRIMARY KEY,
    stream_id INTEGER NOT NULL,
    stale INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    retry_at INTEGER NOT NULL,
    master BLOB,
    self_signing BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX peer_list_stale ON peer_list (retry_at) WHERE stale;
CREATE TABLE peer_device (
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    keys BLOB,
    name TEXT,
    PRIMARY KEY (user_id, device_id)
) STRICT, WITHOUT ROWID;
"""


class Copy(msgspec.Struct, frozen=True):
    """Our copy of a user's list: version, whether something is missing, cross-signing keys, devices by id."""

    user_id: str
    stream_id: int
    stale: bool
    failures: int
    retry_at: int
    master: bytes | None
    self_signing: bytes | None


class PeerDevice(msgspec.Struct, frozen=True):
    """One device of another server's user; `keys` is None for a device without encryption."""

    device_id: str
    keys: bytes | None
    name: str | None


# -- towards others -------------------------------------------------------------------------------------------------


def untold(rx: Rx | Tx, home: str, limit: int) -> tuple[int, list[str]]:
    """Return users of ours with changes not told yet, in order, and the place up to which these changes go."""
    rows = rx.execute(
        "SELECT pos, user_id FROM device_list_change WHERE pos>(SELECT pos FROM told_upto) "
        "AND (viewer IS NULL OR viewer='') ORDER BY pos LIMIT ?",
        (limit,),
    ).fetchall()
    users = dict.fromkeys(user_id for _, user_id in rows if user_id.partition(":")[2] == home)
    return (rows[-1][0] if rows else 0), list(users)


def told(tx: Tx, upto: int) -> None:
    """Everything up to a place was told."""
    tx.execute("UPDATE told_upto SET pos=max(pos, ?)", (upto,))


def tell_again(tx: Tx, user_id: str) -> None:
    """Let all devices of a user be announced anew: there are servers who may hold an outdated list.

    The change is not shown to our own users (its viewer is nobody).
    """
    tx.execute("DELETE FROM told_device WHERE user_id=?", (user_id,))
    tx.execute(
        "INSERT INTO device_list_change (pos, user_id, viewer) VALUES (?, ?, '')", (tx.next_pos(), user_id)
    )


def told_digests(rx: Rx | Tx, user_id: str) -> dict[str, bytes]:
    """Return what others know of a user's devices."""
    rows = rx.execute("SELECT device_id, digest FROM told_device WHERE user_id=?", (user_id,))
    return {device_id: bytes(digest) for device_id, digest in rows}


def set_told(tx: Tx, user_id: str, device_id: str, digest: bytes | None) -> None:
    """Note what others are now told of a device; None: that it is gone."""
    if digest is None:
        tx.execute("DELETE FROM told_device WHERE user_id=? AND device_id=?", (user_id, device_id))
    else:
        tx.execute("INSERT OR REPLACE INTO told_device VALUES (?, ?, ?)", (user_id, device_id, digest))


def version(rx: Rx | Tx, user_id: str) -> int:
    """Return the number of the last update of one of our users' lists, 0 before the first (`stream_id`)."""
    row = rx.execute("SELECT stream_id FROM told_list WHERE user_id=?", (user_id,)).fetchone()
    return int(row[0]) if row else 0


def next_version(tx: Tx, user_id: str) -> tuple[int, int]:
    """Count a user's list on; returns the version before and the new one."""
    before, now = version(tx, user_id), tx.next_pos()
    tx.execute("INSERT OR REPLACE INTO told_list VALUES (?, ?)", (user_id, now))
    return before, now


# -- from others ----------------------------------------------------------------------------------------------------


def copy(rx: Rx | Tx, user_id: str) -> Copy | None:
    """Return our copy of a list, None if there is none."""
    row = rx.execute(
        "SELECT user_id, stream_id, stale, failures, retry_at, master, self_signing FROM peer_list WHERE user_id=?",
        (user_id,),
    ).fetchone()
    return Copy(row[0], row[1], bool(row[2]), *row[3:]) if row else None


def copied_devices(rx: Rx | Tx, user_id: str) -> list[PeerDevice]:
    """Return the devices in our copy."""
    rows = rx.execute("SELECT device_id, keys, name FROM peer_device WHERE user_id=? ORDER BY device_id", (user_id,))
    return [PeerDevice(*row) for row in rows]


def keep(tx: Tx, whole: Copy, devices: Iterable[PeerDevice]) -> None:
    """Replace our copy by a whole new list."""
    tx.execute("DELETE FROM peer_device WHERE user_id=?", (whole.user_id,))
    tx.execute(
        "INSERT OR REPLACE INTO peer_list VALUES (?, ?, ?, ?, ?, ?, ?)",
        (whole.user_id, whole.stream_id, int(whole.stale), whole.failures, whole.retry_at, whole.master,
         whole.self_signing),
    )  # fmt: skip
    for device in devices:
        put(tx, whole.user_id, device)


def put(tx: Tx, user_id: str, device: PeerDevice) -> None:
    """Put one device into our copy."""
    tx.execute(
        "INSERT OR REPLACE INTO peer_device VALUES (?, ?, ?, ?)", (user_id, device.device_id, device.keys, device.name)
    )


def remove(tx: Tx, user_id: str, device_id: str) -> None:
    """Take one device out of our copy."""
    tx.execute("DELETE FROM peer_device WHERE user_id=? AND device_id=?", (user_id, device_id))


def advance(tx: Tx, user_id: str, stream_id: int) -> None:
    """Our copy now stands at this version."""
    tx.execute("UPDATE peer_list SET stream_id=? WHERE user_id=?", (stream_id, user_id))


def set_cross_signing(tx: Tx, user_id: str, keys: Mapping[str, bytes]) -> None:
    """Put cross-signing keys (`master`, `self_signing`) into our copy."""
    tx.execute(
        "UPDATE peer_list SET master=ifnull(?, master), self_signing=ifnull(?, self_signing) WHERE user_id=?",
        (keys.get("master"), keys.get("self_signing"), user_id),
    )


def spoil(tx: Tx, user_id: str, failures: int, retry_at: int) -> None:
    """Our copy misses something; it is to be fetched anew at `retry_at`."""
    tx.execute(
        "UPDATE peer_list SET stale=1, failures=?, retry_at=? WHERE user_id=?", (failures, retry_at, user_id)
    )


def stale(rx: Rx, limit: int) -> list[Copy]:
    """Return copies that wait to be fetched anew, the first to be tried first."""
    rows = rx.execute(
        "SELECT user_id, stream_id, stale, failures, retry_at, master, self_signing FROM peer_list "
        "WHERE stale ORDER BY retry_at LIMIT ?",
        (limit,),
    )
    return [Copy(row[0], row[1], bool(row[2]), *row[3:]) for row in rows]


def hasten(tx: Tx, server: str, now: int) -> bool:
    """A server is back: let its users' lists be fetched at once; tells whether there are any."""
    return tx.execute(
        "UPDATE peer_list SET retry_at=? WHERE stale AND retry_at>? AND substr(user_id, instr(user_id, ':')+1)=?",
        (now, now, server),
    ).rowcount > 0


def watched(rx: Rx | Tx, user_id: str, home: str) -> bool:
    """Tell whether somebody of ours shares a room with a user: only then are we told of changes."""
    return rx.execute(
        "SELECT 1 FROM membership a JOIN membership b ON b.rid=a.rid AND b.membership='join' AND b.server=?2 "
        "WHERE a.user_id=?1 AND a.membership='join' LIMIT 1",
        (user_id, home),
    ).fetchone() is not None


def drop_unwatched(tx: Tx, home: str, users: Iterable[str] | None = None) -> int:
    """Drop the copies of users with whom no room is shared any more (all copies, or those of `users`)."""
    if users is None:
        users = [row[0] for row in tx.execute("SELECT user_id FROM peer_list").fetchall()]
    gone = [(user_id,) for user_id in users if not watched(tx, user_id, home)]
    tx.executemany("DELETE FROM peer_list WHERE user_id=?", gone)
    tx.executemany("DELETE FROM peer_device WHERE user_id=?", gone)
    return len(gone)

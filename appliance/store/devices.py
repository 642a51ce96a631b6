"""Devices of local accounts, and the log of device list changes.

`device.session` is never used twice, so a transaction id can be tied to it for ever. A row of `device_list_change`
says: the devices, device keys or cross-signing keys of this user (local or remote) changed at this stream position;
with a `viewer`, only in the eyes of that one user (who signed them).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from appliance.store import to_device
from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE device (
    session INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id TEXT NOT NULL,
    device_id TEXT NOT NULL,
    display_name TEXT,
    created INTEGER NOT NULL,
    seen INTEGER NOT NULL,
    seen_ip TEXT,
    UNIQUE (user_id, device_id)
) STRICT;
CREATE TABLE device_list_change (
    pos INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    viewer TEXT
) STRICT;
CREATE INDEX device_list_change_user ON device_list_change (user_id, pos);
"""

_COLUMNS = "session, user_id, device_id, display_name, created, seen, seen_ip"


class Device(msgspec.Struct, frozen=True):
    """One device: `session` its row id, times in milliseconds since the epoch."""

    session: int
    user_id: str
    device_id: str
    display_name: str | None
    created: int
    seen: int
    seen_ip: str | None


def ensure(tx: Tx, user_id: str, device_id: str, name: str | None, now: int, ip: str | None) -> tuple[int, bool]:
    """Return the session of a device that logs in, making the device if it is new: (session, whether it is new)."""
    row = tx.execute(
        "UPDATE device SET seen=?, seen_ip=? WHERE user_id=? AND device_id=? RETURNING session",
        (now, ip, user_id, device_id),
    ).fetchone()
    if row is not None:
        return int(row[0]), False
    made = tx.execute(
        "INSERT INTO device (user_id, device_id, display_name, created, seen, seen_ip) VALUES (?,?,?,?,?,?)",
        (user_id, device_id, name, now, now, ip),
    ).lastrowid
    if made is None:
        raise RuntimeError("SQLite gave the new device no row id")
    return made, True


def find(rx: Rx | Tx, user_id: str, device_id: str) -> Device | None:
    """Return one device, or None."""
    row = rx.execute(
        f"SELECT {_COLUMNS} FROM device WHERE user_id=? AND device_id=?", (user_id, device_id)
    ).fetchone()
    return None if row is None else Device(*row)


def of_user(rx: Rx | Tx, user_id: str) -> list[Device]:
    """Return the user's devices, oldest first."""
    rows = rx.execute(f"SELECT {_COLUMNS} FROM device WHERE user_id=? ORDER BY session", (user_id,))
    return [Device(*row) for row in rows]


def rename(tx: Tx, user_id: str, device_id: str, name: str | None) -> bool:
    """Give a device another display name; False when there is no such device."""
    return tx.execute(
        "UPDATE device SET display_name=? WHERE user_id=? AND device_id=?", (name, user_id, device_id)
    ).rowcount > 0


def seen(tx: Tx, session: int, now: int) -> None:
    """Note when a device was last heard of."""
    tx.execute("UPDATE device SET seen=? WHERE session=?", (now, session))


def delete(tx: Tx, user_id: str, device_ids: Collection[str]) -> list[Device]:
    """Remove devices with their keys, queued messages and tokens, and announce it; returns those that existed."""
    gone = [device for device in (find(tx, user_id, device_id) for device_id in device_ids) if device is not None]
    for device in gone:
        for table in ("device_key", "one_time_key", "claimed_key", "fallback_key"):
            tx.execute(f"DELETE FROM {table} WHERE user_id=? AND device_id=?", (user_id, device.device_id))
        tx.execute("DELETE FROM key_signature WHERE target_user=? AND target=?", (user_id, device.device_id))
        to_device.purge(tx, user_id, device.device_id)
        tx.execute("DELETE FROM device WHERE session=?", (device.session,))
    to_device.forget_sessions(tx, [device.session for device in gone])
    if gone:
        list_changed(tx, user_id)
    return gone


def list_changed(tx: Tx, user_id: str) -> int:
    """Announce that a user's devices or keys changed; wakes the user and everybody who shares a room with them."""
    pos = tx.next_pos()
    tx.execute("INSERT INTO device_list_change (pos, user_id) VALUES (?,?)", (pos, user_id))
    tx.wake_user(user_id)
    rooms = tx.execute(
        "SELECT room_id FROM membership JOIN room USING (rid) WHERE user_id=? AND membership='join'", (user_id,)
    )
    for (room_id,) in rooms:
        tx.wake_room(room_id)
    return pos


def seen_differently(tx: Tx, user_id: str, viewer: str) -> None:
    """Announce to `viewer` alone that somebody's keys look different to them: they signed the master key."""
    tx.execute("INSERT INTO device_list_change (pos, user_id, viewer) VALUES (?,?,?)", (tx.next_pos(), user_id, viewer))
    tx.wake_user(viewer)


def changed_users(rx: Rx, user_ids: Iterable[str], after: int, upto: int) -> set[str]:
    """Return those of the users whose device list changed for everybody in (after, upto]."""
    rows = rx.execute(
        "SELECT DISTINCT user_id FROM device_list_change WHERE pos>? AND pos<=? AND viewer IS NULL", (after, upto)
    )
    changed = {row[0] for row in rows}
    return changed.intersection(user_ids) if changed else changed

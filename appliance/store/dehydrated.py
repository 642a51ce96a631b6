"""Dehydrated devices: at most one sleeping device per user, which collects keys while nobody is logged in (MSC3814)."""

from __future__ import annotations

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE dehydrated_device (
    user_id TEXT PRIMARY KEY,
    device_id TEXT NOT NULL,
    data BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""


def put(tx: Tx, user_id: str, device_id: str, data: bytes) -> None:
    """Make this the user's dehydrated device; `data` is the encrypted device as JSON bytes."""
    tx.execute(
        "INSERT INTO dehydrated_device (user_id, device_id, data) VALUES (?,?,?) "
        "ON CONFLICT DO UPDATE SET device_id=excluded.device_id, data=excluded.data",
        (user_id, device_id, data),
    )


def get(rx: Rx | Tx, user_id: str) -> tuple[str, bytes] | None:
    """Return (device id, encrypted device), or None."""
    row: tuple[str, bytes] | None = rx.execute(
        "SELECT device_id, data FROM dehydrated_device WHERE user_id=?", (user_id,)
    ).fetchone()
    return row


def delete(tx: Tx, user_id: str) -> None:
    """Forget which device is the dehydrated one."""
    tx.execute("DELETE FROM dehydrated_device WHERE user_id=?", (user_id,))

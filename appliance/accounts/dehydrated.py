"""Dehydrated devices (MSC3814): one encrypted, sleeping device per user that collects keys while nobody is logged in.

It is an ordinary device with keys and a to-device queue, but without tokens. A client that wakes it reads its queue
in batches and then removes it or puts another in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from appliance.accounts import key_shapes
from appliance.accounts.devices import Devices
from appliance.accounts.e2ee_keys import AT_ONCE
from appliance.matrix import canonical
from appliance.matrix.errors import Forbidden, InvalidParam, NotFound
from appliance.matrix.ids import UserId
from appliance.store import dehydrated, devices, keys, to_device
from appliance.store.database import Store
from appliance.store.keys import StoredKey
from appliance.store.readers import Rx
from appliance.store.writer import Tx

BATCH: Final = 100


class _Plan(msgspec.Struct, frozen=True):
    user_id: UserId
    device_id: str
    name: str | None
    data: bytes
    identity: bytes
    once: tuple[StoredKey, ...]
    fallback: tuple[StoredKey, ...]
    now: int


class Dehydrated:
    """The sleeping devices of all local users."""

    def __init__(self, store: Store, clock: Callable[[], int], devices: Devices) -> None:
        self._store = store
        self._clock = clock
        self._devices = devices

    async def put(self, user_id: UserId, device_id: str, name: str | None, data: dict[str, Any], keys_given: Any,
                  one_time_keys: Any, fallback_keys: Any) -> None:
        """Make this the user's dehydrated device, with its public keys, instead of any before it."""
        plan = _Plan(
            user_id, device_id, name,
            key_shapes.encoded(data, "device_data"),
            key_shapes.device_keys(keys_given, user_id, device_id),
            tuple(key_shapes.keys_by_id(one_time_keys or {}, "one_time_keys", AT_ONCE)),
            tuple(key_shapes.keys_by_id(fallback_keys or {}, "fallback_keys", 20)),
            self._clock(),
        )
        await self._store.write(self._put, plan)

    def _put(self, tx: Tx, plan: _Plan) -> None:
        there = dehydrated.get(tx, plan.user_id)
        if there is not None:
            self._devices.remove(tx, plan.user_id, [there[0]])
        if devices.find(tx, plan.user_id, plan.device_id) is not None:
            raise InvalidParam("The device exists already")
        devices.ensure(tx, plan.user_id, plan.device_id, plan.name, plan.now, None)
        keys.put_device_keys(tx, plan.user_id, plan.device_id, plan.identity)
        keys.add_one_time_keys(tx, plan.user_id, plan.device_id, plan.once)
        for key in plan.fallback:
            keys.put_fallback_key(tx, plan.user_id, plan.device_id, key)
        dehydrated.put(tx, plan.user_id, plan.device_id, plan.data)
        devices.list_changed(tx, plan.user_id)

    async def get(self, user_id: UserId) -> tuple[str, dict[str, Any]]:
        """Return (device id, encrypted device); `NotFound` when the user has none."""
        found = await self._store.read(dehydrated.get, user_id)
        if found is None:
            raise NotFound("There is no dehydrated device")
        return found[0], canonical.decode_object(found[1])

    async def remove(self, user_id: UserId) -> str:
        """Remove the dehydrated device and return its id; `NotFound` when the user has none."""
        device_id, _ = await self.get(user_id)
        await self._devices.delete(user_id, [device_id])
        return device_id

    async def events(self, user_id: UserId, device_id: str, after: int) -> tuple[list[Any], int]:
        """Return the next batch of the device's messages after a position, and the position behind it.

        Nothing is deleted: a waking client that is interrupted starts again.
        """
        return await self._store.read(_events, user_id, device_id, after, self._store.changes.position)


def _events(rx: Rx, user_id: str, device_id: str, after: int, upto: int) -> tuple[list[Any], int]:
    found = dehydrated.get(rx, user_id)
    if found is None:
        raise NotFound("There is no dehydrated device")
    if found[0] != device_id:
        raise Forbidden("This is not the dehydrated device")
    rows = to_device.pending(rx, user_id, device_id, after, upto, BATCH)
    return [canonical.decode(raw) for _, raw in rows], rows[-1][0] if rows else after

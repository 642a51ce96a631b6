"""Devices of an account: list, rename, remove. What belongs to a device goes with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from appliance.accounts.tokens import Tokens
from appliance.accounts.uia import PASSWORD, Uia
from appliance.matrix.errors import Forbidden, NotFound
from appliance.matrix.ids import UserId
from appliance.matrix.requester import Requester
from appliance.store import dehydrated, devices, push
from appliance.store.database import Store
from appliance.store.devices import Device
from appliance.store.writer import Tx


class Devices:
    """The devices of all local accounts."""

    def __init__(self, store: Store, tokens: Tokens, uia: Uia) -> None:
        self._store = store
        self._tokens = tokens
        self._uia = uia

    async def of(self, user_id: UserId) -> list[Device]:
        """Return all devices of a user."""
        return await self._store.read(devices.of_user, user_id)

    async def one(self, user_id: UserId, device_id: str) -> Device:
        """Return one device; `NotFound` when the user has none of that id."""
        device = await self._store.read(devices.find, user_id, device_id)
        if device is None:
            raise NotFound("Unknown device")
        return device

    async def rename(self, user_id: UserId, device_id: str, name: str) -> None:
        """Give a device another name; `NotFound` when there is none."""
        if not await self._store.write(_rename, user_id, device_id, name):
            raise NotFound("Unknown device")

    async def delete_confirmed(
        self, requester: Requester, device_ids: Collection[str], auth: Mapping[str, Any] | None, operation: str
    ) -> None:
        """Remove devices of the requester after their password; unknown ones are ignored."""
        await self._uia.confirm(auth, [[PASSWORD]], operation, requester.user_id)
        await self.delete(requester.user_id, device_ids)

    async def log_out(self, requester: Requester) -> None:
        """Remove the device that asks."""
        await self.delete(requester.user_id, [requester.device_id])

    async def log_out_everywhere(self, user_id: UserId) -> None:
        """Remove every device of a user."""
        await self._store.write(self.remove_all, user_id, ())

    async def delete(self, user_id: UserId, device_ids: Collection[str]) -> None:
        """Remove devices with their tokens, keys, queued messages and pushers."""
        await self._store.write(self.remove, user_id, tuple(device_ids))

    def remove_all(self, tx: Tx, user_id: str, but: Collection[str]) -> None:
        """Inside a write: remove every device of a user except `but`, and spare a dehydrated one."""
        asleep = dehydrated.get(tx, user_id)
        spared = {*but, *([asleep[0]] if asleep is not None else [])}
        self.remove(tx, user_id, [d.device_id for d in devices.of_user(tx, user_id) if d.device_id not in spared])

    def remove(self, tx: Tx, user_id: str, device_ids: Collection[str]) -> None:
        """Inside a write: remove devices and everything that belongs to them."""
        asleep = dehydrated.get(tx, user_id)
        if asleep is not None and asleep[0] in device_ids:
            dehydrated.delete(tx, user_id)
        for device in devices.delete(tx, user_id, dict.fromkeys(device_ids)):
            self._tokens.revoked(tx, device.session)
            push.remove_of_device(tx, user_id, device.device_id)


def _rename(tx: Tx, user_id: str, device_id: str, name: str) -> bool:
    found = devices.rename(tx, user_id, device_id, name)
    if found:
        devices.list_changed(tx, user_id)
    return found


def require_own(requester: Requester, user_id: str) -> None:
    """Refuse to act on somebody else's behalf."""
    if requester.user_id != user_id:
        raise Forbidden("This belongs to somebody else")

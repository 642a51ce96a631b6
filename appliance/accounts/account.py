"""The account itself: change the password, close it, lock it."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol

from appliance.accounts.devices import Devices
from appliance.accounts.passwords import Passwords
from appliance.accounts.registration import Registration
from appliance.accounts.tokens import Tokens
from appliance.accounts.uia import PASSWORD, Uia
from appliance.matrix.errors import MatrixError, MissingToken, NotFound
from appliance.matrix.ids import UserId
from appliance.matrix.requester import Requester
from appliance.store import (
    account_data,
    accounts,
    dehydrated,
    filters,
    key_backup,
    keys,
    profiles,
    push,
    receipts,
    tokens,
)
from appliance.store.connection import StoreUnavailable
from appliance.store.database import Store
from appliance.store.profiles import Profile
from appliance.store.writer import Tx

log = logging.getLogger(__name__)


class Rooms(Protocol):
    """What closing an account needs of the rooms."""

    def leave_all(self, user_id: UserId) -> Awaitable[None]:
        """Leave every room and reject every invitation."""
        ...


class Accounts:
    """What somebody may do with the whole account."""

    def __init__(
        self, store: Store, passwords: Passwords, tokens: Tokens, uia: Uia, devices: Devices,
        registration: Registration, rooms: Rooms | None = None,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._tokens = tokens
        self._uia = uia
        self._devices = devices
        self._registration = registration
        self._rooms = rooms

    async def change_password(
        self, requester: Requester | None, new: str, log_out_others: bool, auth: Mapping[str, Any] | None
    ) -> None:
        """Set another password after the old one was shown; by default every other device is logged out.

        Without a requester the specification thinks of e-mail; that door does not exist here (`MissingToken`).
        """
        if requester is None:
            raise MissingToken()
        self._registration.check_password(new)
        await self._uia.confirm(auth, [[PASSWORD]], "account/password", requester.user_id)
        hash = await self._passwords.hash(new)
        keep = requester.device_id if log_out_others else None
        await self._store.write(self._set_password, requester.user_id, hash, keep)

    def _set_password(self, tx: Tx, user_id: str, hash: str, only_device: str | None) -> None:
        accounts.set_password(tx, user_id, hash)
        if only_device is not None:
            self._devices.remove_all(tx, user_id, (only_device,))

    async def deactivate(self, requester: Requester | None, erase: bool, auth: Mapping[str, Any] | None) -> None:
        """Close the requester's account for good, after their password."""
        if requester is None:
            raise MissingToken()
        await self._uia.confirm(auth, [[PASSWORD]], "account/deactivate", requester.user_id)
        await self.close(requester.user_id, erase)

    async def close(self, user_id: UserId, erase: bool) -> None:
        """Close an account: no log-in, no devices, no rooms, no profile; `erase` also drops what it kept for itself.

        The rooms are left last. If the house stops in between, `finish` does the rest after the next start.
        """
        await self._store.write(self._close, user_id, erase)
        if self._rooms is not None:
            await self._rooms.leave_all(user_id)

    async def finish(self) -> None:
        """Leave the rooms of accounts that were closed when the house stopped."""
        if self._rooms is not None:
            for user_id in await self._store.read(accounts.closed_but_present):
                try:
                    await self._rooms.leave_all(UserId(user_id))
                except (MatrixError, StoreUnavailable) as error:
                    log.warning("a closed account stays in rooms until the next start: %s", error)

    def _close(self, tx: Tx, user_id: str, erase: bool) -> None:
        accounts.deactivate(tx, user_id, erase)
        self._tokens.changed(tx, user_id)
        dehydrated.delete(tx, user_id)
        self._devices.remove_all(tx, user_id, ())
        tokens.drop_user(tx, user_id)
        keys.purge(tx, user_id)
        key_backup.purge(tx, user_id)
        push.remove_of_user(tx, user_id)
        filters.purge(tx, user_id)
        profiles.put(tx, Profile(user_id, None, None))
        if erase:
            account_data.purge(tx, user_id)
            receipts.purge(tx, user_id)

    async def lock(self, user_id: UserId, locked: bool) -> None:
        """Lock an account (its devices keep their data and are told to wait) or open it again."""
        if not await self._store.write(self._lock, user_id, locked):
            raise NotFound("Unknown user")

    def _lock(self, tx: Tx, user_id: str, locked: bool) -> bool:
        self._tokens.changed(tx, user_id)
        return accounts.set_locked(tx, user_id, locked)

    async def suspend(self, user_id: UserId, suspended: bool) -> None:
        """Suspend an account (it may read, leave and log out) or let it act again."""
        if not await self._store.write(self._suspend, user_id, suspended):
            raise NotFound("Unknown user")

    def _suspend(self, tx: Tx, user_id: str, suspended: bool) -> bool:
        self._tokens.changed(tx, user_id)
        return accounts.set_suspended(tx, user_id, suspended)

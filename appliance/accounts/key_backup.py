"""Key backup: the 14 operations over versions and over keys, addressed by (nothing), room, or room and session.

Only the newest version takes keys; a client that writes to an older one is told the current version. A key replaces a
stored one when it is verified and the stored one is not, then when its first message index is lower, then when it was
forwarded less often.

Source: client-server API, "Server-side key backups".
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from appliance.matrix.errors import InvalidParam, MatrixError, NotFound, TooLarge
from appliance.matrix.ids import UserId
from appliance.store import key_backup
from appliance.store.database import Store
from appliance.store.key_backup import BackedUpKey, Version
from appliance.store.readers import Rx
from appliance.store.writer import Tx

KEYS: Final = 500_000
"""Keys one user may back up: some decades of rotating room keys."""
AT_ONCE: Final = 10_000
"""Keys in one request; clients send a few hundred."""


class Changed(msgspec.Struct, frozen=True):
    """A backup after its keys changed: how many it holds, and the mark that changes with every change."""

    count: int
    etag: str


class Info(msgspec.Struct, frozen=True):
    """A backup's description for its owner; `auth_data` is JSON bytes."""

    version: str
    algorithm: str
    auth_data: bytes
    count: int
    etag: str


class KeyBackups:
    """The backups of all local users."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, user_id: UserId, algorithm: str, auth_data: bytes) -> str:
        """Begin a new backup and return its version."""
        return str(await self._store.write(key_backup.create, user_id, algorithm, auth_data))

    async def info(self, user_id: UserId, version: str | None) -> Info:
        """Return a backup (None: the current one); `NotFound` when there is none."""
        return await self._store.read(_info, user_id, version)

    async def update(self, user_id: UserId, version: str, algorithm: str, auth_data: bytes,
                     stated_version: str | None) -> None:
        """Replace a backup's public part; its algorithm and version cannot change."""
        if stated_version is not None and stated_version != version:
            raise InvalidParam("The version in the body is not the one in the path")
        await self._store.write(_update, user_id, version, algorithm, auth_data)

    async def remove(self, user_id: UserId, version: str) -> None:
        """Delete a backup and all its keys; `NotFound` when there is none."""
        await self._store.write(_remove, user_id, version)

    async def keys(
        self, user_id: UserId, version: str, room_id: str | None = None, session_id: str | None = None
    ) -> list[BackedUpKey]:
        """Return keys of a backup; `NotFound` for an unknown version, or an unknown session that was asked for."""
        return await self._store.read(_keys, user_id, version, room_id, session_id)

    async def put(self, user_id: UserId, version: str, keys: Iterable[BackedUpKey]) -> Changed:
        """Keep keys in the current backup, each only if it is better than the one that is there."""
        new = tuple(keys)
        if len(new) > AT_ONCE:
            raise TooLarge(f"At most {AT_ONCE} keys can be backed up at once")
        return await self._store.write(_put, user_id, version, new)

    async def delete(
        self, user_id: UserId, version: str, room_id: str | None = None, session_id: str | None = None
    ) -> Changed:
        """Delete keys of a backup."""
        return await self._store.write(_delete, user_id, version, room_id, session_id)


def _number(version: str) -> int:
    if not (version.isascii() and version.isdigit() and len(version) <= 15):
        raise NotFound("Unknown backup version")
    return int(version)


def _found(rx: Rx | Tx, user_id: str, version: str) -> Version:
    found = key_backup.find(rx, user_id, _number(version))
    if found is None:
        raise NotFound("Unknown backup version")
    return found


def _info(rx: Rx, user_id: str, version: str | None) -> Info:
    found = key_backup.latest(rx, user_id) if version is None else _found(rx, user_id, version)
    if found is None:
        raise NotFound("There is no key backup")
    return Info(str(found.version), found.algorithm, found.auth_data, found.held, str(found.etag))


def _update(tx: Tx, user_id: str, version: str, algorithm: str, auth_data: bytes) -> None:
    found = _found(tx, user_id, version)
    if found.algorithm != algorithm:
        raise InvalidParam("The algorithm of a backup cannot change")
    key_backup.set_auth_data(tx, user_id, found.version, auth_data)


def _remove(tx: Tx, user_id: str, version: str) -> None:
    key_backup.delete_version(tx, user_id, _found(tx, user_id, version).version)


def _keys(rx: Rx, user_id: str, version: str, room_id: str | None, session_id: str | None) -> list[BackedUpKey]:
    found = key_backup.keys(rx, user_id, _found(rx, user_id, version).version, room_id, session_id)
    if session_id is not None and not found:
        raise NotFound("There is no such key in the backup")
    return found


def _current(tx: Tx, user_id: str, version: str) -> Version:
    latest = key_backup.latest(tx, user_id)
    if latest is None:
        raise NotFound("There is no key backup")
    if str(latest.version) != version:
        raise MatrixError(
            "This is not the current backup version", status=403, errcode="M_WRONG_ROOM_KEYS_VERSION",
            extra={"current_version": str(latest.version)},
        )
    return latest


def _put(tx: Tx, user_id: str, version: str, new: Iterable[BackedUpKey]) -> Changed:
    number = _current(tx, user_id, version).version
    written = added = 0
    for key in new:
        there = key_backup.keys(tx, user_id, number, key.room_id, key.session_id)
        if not there or better(key, there[0]):
            key_backup.put(tx, user_id, number, key)
            written += 1
            added += not there
    if written:
        key_backup.touch(tx, user_id, number, added)
    changed = _changed(tx, user_id, number)
    if changed.count > KEYS:
        raise TooLarge(f"A backup holds at most {KEYS} keys")
    return changed


def _delete(tx: Tx, user_id: str, version: str, room_id: str | None, session_id: str | None) -> Changed:
    number = _found(tx, user_id, version).version
    gone = key_backup.delete(tx, user_id, number, room_id, session_id)
    if gone:
        key_backup.touch(tx, user_id, number, -gone)
    return _changed(tx, user_id, number)


def _changed(tx: Tx, user_id: str, version: int) -> Changed:
    found = key_backup.find(tx, user_id, version)
    return Changed(found.held, str(found.etag)) if found is not None else Changed(0, "0")


def better(new: BackedUpKey, there: BackedUpKey) -> bool:
    """Tell whether a key should replace the stored one."""
    if new.is_verified != there.is_verified:
        return new.is_verified
    if new.first_message_index != there.first_message_index:
        return new.first_message_index < there.first_message_index
    return new.forwarded_count < there.forwarded_count

"""Messages from device to device: keys on their way, verification, and whatever else must not stand in a room.

A request is delivered as a whole or not at all, once per device and transaction id, and is on disk before it is
answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from appliance.matrix import canonical, ids
from appliance.matrix.errors import BadJson, InvalidParam, TooLarge
from appliance.matrix.ids import ServerName, UserId
from appliance.matrix.requester import Requester
from appliance.store import devices, to_device
from appliance.store.database import Store
from appliance.store.writer import Tx

RECIPIENTS: Final = 5_000
"""Devices that one request may address."""
MESSAGE_BYTES: Final = 65_536
ALL_DEVICES: Final = "*"
REMEMBERED_MS: Final = 7 * 86_400_000
"""How long a repeated request is recognised: a telephone that was in a drawer over a weekend sends its queue again."""
FORGET_AT_ONCE: Final = 20
"""Old transactions that one request clears away, so that there is never a heap of them."""

Messages = Mapping[str, Mapping[str, bytes]]
"""Message (JSON bytes) per user id and device id or `*`."""


class Peers(Protocol):
    """The way to devices on other servers."""

    def queue(
        self, tx: Tx, server: ServerName, sender: UserId, type: str, txn: str, messages: Mapping[str, Any]
    ) -> None:
        """Inside the same commit: owe these messages (user -> device -> content) to a server."""
        ...


class ToDevice:
    """Accepts messages for devices. Delivery is sync's work."""

    def __init__(
        self, store: Store, clock: Callable[[], int], server: ServerName, peers: Peers | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._server = server
        self._peers = peers

    async def send(self, requester: Requester, type: str, txn: str, messages: Mapping[str, Any]) -> None:
        """Deliver `messages` (user -> device or `*` -> content) to the devices that exist."""
        if not (ids.fits(type) and ids.fits(txn)):
            raise InvalidParam("The event type and the transaction id must not exceed 255 bytes")
        here: dict[str, dict[str, bytes]] = {}
        elsewhere: dict[ServerName, dict[str, Any]] = {}
        count = 0
        for user_id, by_device in messages.items():
            server = ids.server_of(ids.user_id(user_id))
            if not isinstance(by_device, dict):
                raise BadJson("messages must be grouped by user and device")
            count += len(by_device)
            checked = {device: _message(requester.user_id, type, content) for device, content in by_device.items()}
            if server == self._server:
                here[user_id] = checked
            else:
                elsewhere.setdefault(server, {})[user_id] = by_device
        if count > RECIPIENTS:
            raise InvalidParam(f"At most {RECIPIENTS} devices can be addressed at once")
        await self._store.write(self._write, requester, type, txn, here, elsewhere, self._clock())

    def _write(
        self, tx: Tx, requester: Requester, type: str, txn: str, here: Messages,
        elsewhere: Mapping[ServerName, Mapping[str, Any]], now: int,
    ) -> None:
        if not to_device.first_time(tx, requester.session, type, txn, now):
            return
        to_device.forget_transactions(tx, now - REMEMBERED_MS, FORGET_AT_ONCE)
        for user_id, by_device in here.items():
            deliver(tx, user_id, by_device)
        if self._peers is not None:
            for server, messages in elsewhere.items():
                self._peers.queue(tx, server, requester.user_id, type, txn, messages)


def _message(sender: UserId, type: str, content: Any) -> bytes:
    if not isinstance(content, dict):
        raise BadJson("The content for a device must be an object")
    raw = canonical.dumps({"content": content, "sender": sender, "type": type})
    if len(raw) > MESSAGE_BYTES:
        raise TooLarge(f"A message for a device must not exceed {MESSAGE_BYTES} bytes")
    return raw


def deliver(tx: Tx, user_id: str, by_device: Mapping[str, bytes]) -> None:
    """Queue messages (per device id or `*`) for those of a local user's devices that exist."""
    existing = [device.device_id for device in devices.of_user(tx, user_id)]
    everyone = by_device.get(ALL_DEVICES)
    for device_id in existing:
        message = by_device.get(device_id, everyone)
        if message is not None:
            to_device.put(tx, user_id, device_id, message)

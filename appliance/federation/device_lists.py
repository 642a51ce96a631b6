"""Device lists between servers: telling others of our users' devices, and knowing theirs.

Telling: every change of a local list stands in `device_list_change`. In one transaction what has changed since others
were last told becomes EDUs in the outbox of each server that shares a room with the user, numbered user by user, each
naming its predecessor. A crash at any moment loses nothing and tells nothing twice.

Knowing: of users with whom ours share a room a copy of the list is kept, and followed by EDUs as long as each names as
its predecessor what we have. A gap spoils the copy until `/user/devices` has been asked anew; that is tried until it
succeeds, over restarts as well. A spoiled copy is still better than none while the other server is away.

Source: server-server API, "Device Management".
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

from appliance.accounts import e2ee_keys, key_shapes
from appliance.federation.answers import DeviceList
from appliance.link.errors import PeerError
from appliance.matrix import canonical
from appliance.matrix.errors import MatrixError
from appliance.matrix.ids import ServerName, UserId, server_of
from appliance.store import device_lists, devices, outbox
from appliance.store.changes import Commit
from appliance.store.database import Store
from appliance.store.device_lists import Copy, PeerDevice
from appliance.store.events import Row
from appliance.store.writer import Tx

log = logging.getLogger(__name__)

AT_A_TIME: Final = 100
FIRST_PAUSE_MS: Final = 30_000
LONGEST_PAUSE_MS: Final = 3_600_000
FETCHES_AT_ONCE: Final = 8
CROSS_SIGNING: Final = ""
"""Stands among the device ids of `told_device` for the cross-signing keys."""

Json = Any


class Ask(Protocol):
    """Asks another server for a whole list (`federation.client.Client.devices`)."""

    def __call__(self, peer: ServerName, user: UserId, /) -> Awaitable[DeviceList]:
        """Return it; raises `PeerError`."""
        ...


# -- telling ----------------------------------------------------------------------------------------------------------


class Telling:
    """Tells other servers of changes while `run` runs."""

    def __init__(self, store: Store, home: ServerName) -> None:
        self._store = store
        self._home = home
        self._bell = asyncio.Event()
        self._bell.set()
        store.changes.listen(self._committed)

    def _committed(self, commit: Commit) -> None:
        if commit.users:  # every change of a list wakes its user; a plain message wakes nobody by name
            self._bell.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            while (await self._store.read(device_lists.untold, self._home, 1))[0]:
                await self._store.write(tell, self._home)


def tell(tx: Tx, home: str) -> None:
    """Put what others do not know yet into the outbox."""
    upto, users = device_lists.untold(tx, home, AT_A_TIME)
    for user_id in users:
        _tell_of(tx, user_id, home)
    device_lists.told(tx, upto)


def _tell_of(tx: Tx, user_id: str, home: str) -> None:
    peers = sorted(outbox.servers_of(tx, user_id, home))
    known = device_lists.told_digests(tx, user_id)
    found = e2ee_keys.published(tx, {user_id: ()}, "")
    now = found["device_keys"].get(user_id, {})
    for device_id, keys in now.items():
        digest = hashlib.sha256(canonical.encode(keys)).digest()
        if known.get(device_id) != digest:
            device_lists.set_told(tx, user_id, device_id, digest)
            name = keys.pop("unsigned", {}).get("device_display_name")
            content = {"keys": keys, **({"device_display_name": name} if name is not None else {})}
            _update(tx, user_id, device_id, content, peers)
    for device_id in known.keys() - now.keys() - {CROSS_SIGNING}:
        device_lists.set_told(tx, user_id, device_id, None)
        _update(tx, user_id, device_id, {"deleted": True}, peers)
    cross = {f"{usage}_key": found[f"{usage}_keys"].get(user_id) for usage in ("master", "self_signing")}
    signing = {name: key for name, key in cross.items() if key is not None}
    digest = hashlib.sha256(canonical.encode(signing)).digest()
    if signing and known.get(CROSS_SIGNING) != digest:
        device_lists.set_told(tx, user_id, CROSS_SIGNING, digest)
        edu: dict[str, Json] = {"edu_type": "m.signing_key_update", "content": {"user_id": user_id, **signing}}
        outbox.owe_edu(tx, canonical.encode(edu), peers)


def _update(tx: Tx, user_id: str, device_id: str, content: Mapping[str, Json], peers: list[str]) -> None:
    before, now = device_lists.next_version(tx, user_id)
    edu: dict[str, Json] = {
        "edu_type": "m.device_list_update",
        "content": {
            "user_id": user_id, "device_id": device_id, "stream_id": now, "prev_id": [before] if before else [],
            **content,
        },
    }  # fmt: skip
    outbox.owe_edu(tx, canonical.encode(edu), peers)


# -- knowing ----------------------------------------------------------------------------------------------------------


class Copies:
    """Our copies of others' lists; `run` repairs the spoiled ones and drops those that nobody needs."""

    def __init__(
        self, store: Store, home: ServerName, ask: Ask, *, clock: Callable[[], int], chance: Callable[[], float]
    ) -> None:
        self._store = store
        self._home = home
        self._ask = ask
        self._clock = clock
        self._chance = chance
        self._fetching: dict[str, asyncio.Task[None]] = {}
        self._newest: dict[str, int] = {}
        self._slots = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._bell = asyncio.Event()
        self._parted = True
        self._away: set[str] = set()
        self._back: set[str] = set()

    def nudge(self) -> None:
        """Look again for lists that are to be fetched: the clock has moved, or a copy was spoiled."""
        self._bell.set()

    def landed(self, row: Row, pruned_id: str | None) -> None:
        """Follow the ledger: whoever left may be somebody whose devices concern us no longer."""
        if row.event.type == "m.room.member" and row.event.content.get("membership") in ("leave", "ban"):
            self._parted = True
            self._bell.set()

    def heard(self, server: ServerName) -> None:
        """A server is there: if it was away, fetch what its users changed meanwhile."""
        if server in self._away:
            self._away.discard(server)
            self._back.add(server)
            self._bell.set()

    def note(self, user_id: str, stream_id: int) -> None:
        """An update has arrived: a list that is being fetched right now may be older than it."""
        if user_id in self._newest:
            self._newest[user_id] = max(self._newest[user_id], stream_id)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            while True:
                self._bell.clear()
                if self._parted:
                    self._parted = False
                    await self._store.write(device_lists.drop_unwatched, self._home)
                while self._back:
                    await self._store.write(device_lists.hasten, self._back.pop(), self._clock())
                waiting = await self._store.read(device_lists.stale, AT_A_TIME)
                due = [copy for copy in waiting if copy.retry_at <= self._clock()]
                await asyncio.gather(*(self._again(copy) for copy in due))
                if not due:
                    self._away = {server_of(copy.user_id) for copy in waiting}
                    await self._pause(waiting[0].retry_at if waiting else None)
        finally:
            for task in self._fetching.values():
                task.cancel()

    async def _pause(self, until: int | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(None if until is None else max(0.0, (until - self._clock()) / 1000)):
                await self._bell.wait()

    async def _again(self, copy: Copy) -> None:
        try:
            await self.fetch(UserId(copy.user_id))
        except PeerError as error:
            pause = min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** min(copy.failures, 20))
            until = self._clock() + round(pause * (0.8 + 0.4 * self._chance()))
            await self._store.write(device_lists.spoil, copy.user_id, copy.failures + 1, until)
            if not copy.failures:
                log.info("the device list of a user of %s cannot be fetched now: %s", error.server, error)

    async def fetch(self, user_id: UserId) -> None:
        """Fetch a whole list and keep it; raises `PeerError`. Whoever asks at the same time shares one request."""
        task = self._fetching.get(user_id)
        if task is None:
            task = self._fetching[user_id] = asyncio.create_task(self._fetch(user_id))
            task.add_done_callback(lambda _: self._fetching.pop(user_id, None))
        await asyncio.shield(task)

    async def _fetch(self, user_id: UserId) -> None:
        self._newest[user_id] = 0
        try:
            async with self._slots:
                found = await self._ask(server_of(user_id), user_id)
            await self._store.write(_keep, self._home, user_id, found)
            if self._newest[user_id] > found.stream_id:
                await self._store.write(device_lists.spoil, user_id, 0, self._clock())
                self._bell.set()
        finally:
            del self._newest[user_id]


def _keep(tx: Tx, home: str, user_id: str, found: DeviceList) -> None:
    """Keep a fetched list (of a user that still concerns us), and tell our users if it is not what they know."""
    if not device_lists.watched(tx, user_id, home):
        device_lists.drop_unwatched(tx, home, [user_id])
        return
    held = [device for device in (checked_device(user_id, d.device_id, d.keys, d.device_display_name)
                                  for d in found.devices) if device is not None]  # fmt: skip
    cross = checked_cross_signing(
        user_id, {"master_key": found.master_key, "self_signing_key": found.self_signing_key}
    )
    before = device_lists.copy(tx, user_id)
    same = before is not None and device_lists.copied_devices(tx, user_id) == sorted(held, key=lambda d: d.device_id)
    whole = Copy(user_id, found.stream_id, False, 0, 0, cross.get("master"), cross.get("self_signing"))
    device_lists.keep(tx, whole, held)
    if before is not None and not (same and (before.master, before.self_signing) == (whole.master, whole.self_signing)):
        devices.list_changed(tx, user_id)


def checked_device(user_id: str, device_id: str, keys: Json, name: str | None) -> PeerDevice | None:
    """Return a device as it is kept; None for keys that are not those of this device."""
    try:
        return PeerDevice(device_id, key_shapes.device_keys(keys, user_id, device_id), name)
    except MatrixError:
        return None


def checked_cross_signing(user_id: str, given: Mapping[str, Json]) -> dict[str, bytes]:
    """Return those of the cross-signing keys (`master_key`, `self_signing_key`) that are well formed, by usage."""
    found: dict[str, bytes] = {}
    for usage in ("master", "self_signing"):
        with suppress(MatrixError):
            found[usage] = canonical.encode(key_shapes.cross_signing_key(given.get(f"{usage}_key"), user_id, usage))
    return found

"""The composition root: every room of the house is built once, here, in order, and handed to the others by hand."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from appliance.accounts.account import Accounts
from appliance.accounts.account_data import AccountData
from appliance.accounts.cross_signing import CrossSigning
from appliance.accounts.dehydrated import Dehydrated
from appliance.accounts.devices import Devices
from appliance.accounts.e2ee_keys import KeyServer
from appliance.accounts.key_backup import KeyBackups
from appliance.accounts.limits import RATES, Limits
from appliance.accounts.login import LogIns
from appliance.accounts.openid import OpenId
from appliance.accounts.passwords import Passwords
from appliance.accounts.profile import Profiles
from appliance.accounts.registration import Registration, Rules
from appliance.accounts.to_device import ToDevice
from appliance.accounts.tokens import Tokens
from appliance.accounts.uia import Uia
from appliance.config import Config
from appliance.doors.client import (
    account,
    account_data,
    backup,
    devices,
    directory,
    discovery,
    keys,
    login,
    media,
    membership,
    openid,
    presence,
    profile,
    push,
    receipts,
    register,
    relations,
    reports,
    search,
    send,
    sliding_sync,
    spaces,
    state_reading,
    sync,
    timeline,
    to_device,
    user_directory,
)
from appliance.doors.client import rooms as rooms_door
from appliance.doors.listener import Listener
from appliance.doors.web import Route, Surface
from appliance.matrix import signing
from appliance.matrix.event import Event
from appliance.matrix.ids import UserId
from appliance.matrix.signing import SigningKey
from appliance.media.limits import MediaLimits
from appliance.media.repository import Repository
from appliance.push import rule_book
from appliance.push.facts import Facts
from appliance.push.gateway import Gateway, Targets
from appliance.push.history import History
from appliance.push.pushers import Pushers
from appliance.push.registration import Registration as PusherRegistration
from appliance.push.rule_book import RuleBook
from appliance.push.unread import Unread
from appliance.rooms import leave, profiles
from appliance.rooms.author import Author
from appliance.rooms.create import Founding
from appliance.rooms.head import Heads
from appliance.rooms.ledger import Ledger
from appliance.rooms.live import Live
from appliance.rooms.members import Members
from appliance.rooms.search import Search
from appliance.rooms.typing import Typing
from appliance.store.database import Store
from appliance.store.state import Key
from appliance.sync.ephemeral import Ephemeral
from appliance.sync.filters import Filters
from appliance.sync.known import KnownEvents
from appliance.sync.presence import Presence
from appliance.sync.sliding import SlidingSync
from appliance.sync.sync import Sync
from appliance.sync.waiters import Hubs


def clock() -> int:
    """Return the time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def room_id() -> str:
    """Return the random part of a new room's id."""
    return secrets.token_urlsafe(14).replace("-", "A").replace("_", "B")


def no_further_rules(event: Event, state: Mapping[Key, Event]) -> None:
    """Refuse nothing beyond the room version's own rules (the TI-M rules take this place in profile tim-pro)."""


def signing_key(path: Path) -> SigningKey:
    """Read the server's signing key, making one on the first start. The file is whole or not there."""
    try:
        return signing.load(path.read_text())
    except FileNotFoundError:
        key = signing.generate(secrets.token_hex(3), secrets.token_bytes(32))
    partial = path.with_suffix(".part")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(signing.dump(key) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)  # the name as well must survive a power cut
    os.close(folder)
    return key


class House:
    """The running house. `async with House.open(config) as house`, then `listen`."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    @classmethod
    @asynccontextmanager
    async def open(cls, config: Config) -> AsyncIterator[House]:
        """Build every room, and take the house down in reverse order at the end."""
        config.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with AsyncExitStack() as stack:
            store = await Store.open(config.data / "schleuse.db")
            stack.push_async_callback(store.close)
            rooms = Rooms(config, store)
            stack.callback(rooms.typing.close)
            await stack.enter_async_context(rooms.search.kept())
            people = People(config, store, rooms)
            stack.callback(people.passwords.close)
            repository = await _media(config, store)
            stack.push_async_callback(repository.close)
            news = News(config, store, rooms)
            stack.push_async_callback(news.close)
            surface = Surface(people.tokens.authenticate, people.limits)
            routes = [
                *discovery.routes(), *news.routes(), *rooms.routes(), *people.routes(), *media.routes(repository)
            ]
            listener = await stack.enter_async_context(Listener(surface.application(routes), news.release))
            async with asyncio.TaskGroup() as tasks:
                pushing = tasks.create_task(news.pushers.run())
                finishing = tasks.create_task(people.accounts.finish())
                yield cls(listener)
                finishing.cancel()
                pushing.cancel()

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Open the client port; return its address."""
        return await self._listener.start(host, port, tls)


async def _media(config: Config, store: Store) -> Repository:
    return await Repository.open(
        store, config.data / "media", server_name=config.server_name, clock=clock,
        limits=MediaLimits(upload_bytes=config.upload_limit), unauthenticated=config.profile.legacy_media,
    )


class Rooms:
    """Floor 2a, rooms: the writing side, the caches that follow it, and what reads."""

    def __init__(self, config: Config, store: Store) -> None:
        self._config = config
        self._store = store
        self.heads = Heads(store)
        self.members = Members(store, config.server_name)
        self.live = Live(store.changes.position)
        self.ledger = Ledger(store)
        for listener in (self.heads.committed, self.members.add, self.live.add):
            self.ledger.listen(listener)
        self.ledger.on_shift(self.members.shifted)
        key = signing_key(config.data / "signing.key")
        self.author = Author(store, self.heads, self.ledger, key, config.server_name, clock, no_further_rules)
        profile = config.profile
        self.founding = Founding(profile.creatable_versions, profile.default_version, profile.public_rooms, room_id)
        self.typing = Typing(clock())
        self.ledger.listen(self.typing.committed)
        self.search = Search(store)

    async def leave_all(self, user_id: UserId) -> None:
        """Take a closed account out of every room (see `accounts.account.Rooms`)."""
        await leave.leave_all(self.author, self.members, user_id)

    async def profile_changed(self, user_id: UserId) -> None:
        """Show a changed face in every room (see `accounts.profile.ProfileChanged`)."""
        await profiles.profile_changed(self.author, self.members, user_id)

    def routes(self) -> list[Route]:
        """Return the operations on rooms; the one that a client calls most comes first."""
        store, server = self._store, self._config.server_name
        return [
            *send.routes(self.author),
            *membership.routes(self.author, self.members),
            *rooms_door.routes(self.author, self.founding),
            *receipts.routes(store, self.typing, clock),
            *timeline.routes(store, clock),
            *state_reading.routes(store, clock),
            *relations.routes(store, clock),
            *spaces.routes(store),
            *search.routes(self.search, clock),
            *directory.routes(store, server, self._config.profile.public_rooms, clock),
            *user_directory.routes(store, server),
            *reports.routes(store, clock),
        ]


class People:
    """Floor 2a, accounts: who may come in, with which devices, keys and data."""

    def __init__(self, config: Config, store: Store, rooms: Rooms) -> None:
        self._store, server = store, config.server_name
        self._server = server
        self._versions, self._default_version = config.profile.creatable_versions, config.profile.default_version
        self.limits = Limits(clock, RATES if config.rate_limits else None)
        self.passwords = Passwords()
        self.tokens = Tokens(store, clock)
        self.uia = Uia(store, clock, server, self.passwords, self.limits)
        laboratory = config.profile.laboratory_registration
        secret = (config.registration_secret or None) if laboratory else None
        self._shared_secret = secret is not None
        rules = Rules(
            open=config.open_registration and laboratory, secret=secret,
            minimum_password=config.profile.minimum_password,
        )
        self.registration = Registration(store, clock, server, rules, self.passwords, self.tokens, self.uia)
        self.log_ins = LogIns(store, clock, server, self.passwords, self.tokens, self.uia, self.limits)
        self.devices = Devices(store, self.tokens, self.uia)
        self.accounts = Accounts(
            store, self.passwords, self.tokens, self.uia, self.devices, self.registration, rooms=rooms
        )
        self.profiles = Profiles(store, server, rooms.profile_changed)
        self.account_data = AccountData(store)
        self.keys = KeyServer(store, server)
        self.cross_signing = CrossSigning(store, self.uia)
        self.backups = KeyBackups(store)
        self.to_device = ToDevice(store, clock, server)
        self.dehydrated = Dehydrated(store, clock, self.devices)
        self.openid = OpenId(store, clock)

    def routes(self) -> list[Route]:
        """Return the operations on accounts."""
        return [
            *register.routes(self.registration, self._shared_secret),
            *login.routes(self.log_ins, self.tokens, self.devices),
            *account.routes(self.accounts, self._versions, self._default_version),
            *devices.routes(self.devices),
            *keys.routes(self.keys, self.cross_signing, self._store),
            *keys.dehydrated_routes(self.dehydrated),
            *backup.routes(self.backups),
            *to_device.routes(self.to_device),
            *profile.routes(self.profiles),
            *account_data.routes(self.account_data),
            *openid.routes(self.openid, self._server),
        ]


class News:
    """Floor 2b: sync, which tells clients what happened, and push, which wakes them up for it."""

    def __init__(self, config: Config, store: Store, rooms: Rooms) -> None:
        self._hubs = Hubs(store.changes, rooms.members)
        self._ephemeral = Ephemeral(clock())
        rooms.typing.on_change = self._typed
        self._presence = Presence(
            store, rooms.members, self._hubs, self._ephemeral, clock, enabled=config.profile.presence
        )
        known, facts = KnownEvents(), Facts(store)
        unread = Unread(store, rooms.live, facts)
        for listener in (known.add, self._presence.add, facts.landed, unread.landed):
            rooms.ledger.listen(listener)
        rooms.ledger.on_shift(lambda row, users: facts.forget(row.rid))
        self._sync = Sync(
            store, rooms.live, self._hubs, self._ephemeral, rooms.typing, self._presence, unread, known, clock,
            rule_book.untouched,
        )
        self._sliding = SlidingSync(
            store, rooms.live, self._hubs, self._ephemeral, rooms.typing, self._presence, unread, known, clock,
            rule_book.untouched,
        )
        self._filters = Filters(store)
        targets = Targets.of(config.push_gateways)
        self._gateway = Gateway(targets)
        self.pushers = Pushers(
            store, unread, rooms.members, rooms.live, self._gateway, clock=clock, chance=random.random,
            content_free=config.profile.content_free_push,
        )
        self._registration = PusherRegistration(store, targets, clock=clock, changed=self.pushers.changed)
        self._rule_book = RuleBook(store)
        self._history = History(store, unread, rooms.members)

    def _typed(self, room_id: str) -> None:
        self._ephemeral.typed(room_id)
        self._hubs.wake_room(room_id)

    def routes(self) -> list[Route]:
        """Return the operations that tell what is new."""
        return [
            *sync.routes(self._sync, self._filters),
            *sliding_sync.routes(self._sliding),
            *presence.routes(self._presence),
            *push.routes(self._rule_book, self._registration, self._history, clock),
        ]

    async def release(self) -> None:
        """Answer everybody who waits for news, because the house closes."""
        await self._hubs.release()

    async def close(self) -> None:
        """Stop timers and connections to gateways."""
        self._presence.close()
        await self._gateway.close()

"""The writing side of rooms without doors: a real store, a real author, people made up on the spot."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from appliance.matrix import signing
from appliance.matrix.event import Event
from appliance.matrix.ids import DeviceId, EventId, RoomId, ServerName, UserId
from appliance.matrix.requester import Requester
from appliance.rooms import create, join, send
from appliance.rooms.author import Author
from appliance.rooms.create import PRESETS, Founding, Wish
from appliance.rooms.head import Heads
from appliance.rooms.ledger import Ledger
from appliance.rooms.live import Live
from appliance.rooms.members import Members
from appliance.store import profiles
from appliance.store.database import Store
from appliance.store.profiles import Profile

SERVER = ServerName("test.example")


class Clock:
    """A clock that tests move by hand (milliseconds)."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        self.now += 1
        return self.now


class Ward:
    """Everything the writing side consists of, connected as in the house."""

    def __init__(self, store: Store, server: ServerName = SERVER, seed: int = 7) -> None:
        self.store = store
        self.server = server
        self.clock = Clock()
        self.heads = Heads(store)
        self.ledger = Ledger(store)
        self.members = Members(store, server)
        self.live = Live(store.changes.position)
        for listener in (self.heads.committed, self.members.add, self.live.add):
            self.ledger.listen(listener)
        self.ledger.on_shift(self.members.shifted)
        self.key = key = signing.generate("test", bytes([seed]) * 32)
        self.author = Author(store, self.heads, self.ledger, key, server, self.clock, _allow)
        numbers = itertools.count(1)
        versions = tuple(str(n) for n in range(6, 13))
        self.founding = Founding(versions, "11", True, lambda: f"room{store.changes.position}x{next(numbers)}")
        self._sessions = itertools.count(1)
        self._txns = itertools.count(1)

    async def person(self, name: str, display_name: str | None = None) -> Requester:
        """Make a local user with one device."""
        user_id = UserId(f"@{name}:{self.server}")
        await self.store.write(profiles.put, Profile(user_id, display_name, None))
        return Requester(user_id, DeviceId(name.upper()), next(self._sessions))

    async def room(self, creator: Requester, preset: str = "private_chat", **wish: Any) -> RoomId:
        """Create a room."""
        return await create.create(self.author, self.founding, creator, Wish(PRESETS[preset], **wish))

    async def join(self, requester: Requester, room_id: RoomId) -> None:
        """Join a room."""
        await join.join(self.author, self.members, requester, room_id)

    async def say(self, requester: Requester, room_id: RoomId, body: str, **content: Any) -> EventId:
        """Send a text message."""
        content = {"msgtype": "m.text", "body": body, **content}
        return await send.message(self.author, requester, room_id, "m.room.message", content, f"t{next(self._txns)}")


def _allow(event: Event, state: Mapping[tuple[str, str], Event]) -> None:
    """No rules beyond those of the room version."""


@asynccontextmanager
async def ward(folder: Path) -> AsyncIterator[Ward]:
    """Open a ward on a database in `folder`, which exists."""
    store = await Store.open(folder / "schleuse.db")
    try:
        yield Ward(store)
    finally:
        await store.close()

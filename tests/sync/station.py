"""A ward with everything that tells people what is new: both syncs, typing, presence, unread counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson

from appliance.accounts.e2ee_keys import KeyServer
from appliance.matrix.ids import DeviceId, RoomId, UserId
from appliance.matrix.requester import Requester
from appliance.matrix.tokens import stream_token
from appliance.push import rule_book
from appliance.push.facts import Facts
from appliance.push.unread import Unread
from appliance.rooms import leave, send
from appliance.rooms.invite import invite
from appliance.rooms.typing import Typing
from appliance.store import account_data, receipts, rooms, to_device
from appliance.store.database import Store
from appliance.sync.ask import Ask
from appliance.sync.ephemeral import Ephemeral
from appliance.sync.filters import sync_filter
from appliance.sync.known import KnownEvents
from appliance.sync.presence import Presence
from appliance.sync.sliding import SlidingSync
from appliance.sync.sync import Sync
from appliance.sync.waiters import Hubs
from tests.rooms.reading import put_state
from tests.world.rooms import SERVER, Ward

Json = Any


class Station(Ward):
    """A ward that can be synced, connected as in the house."""

    def __init__(self, store: Store, *, presence: bool = True) -> None:
        super().__init__(store)
        self.typing = Typing(self.clock())
        self.hubs = Hubs(store.changes, self.members)
        self.ephemeral = Ephemeral(self.clock())
        self.typing.on_change = self._typed
        self.presence = Presence(store, self.members, self.hubs, self.ephemeral, self.clock, enabled=presence)
        known, facts = KnownEvents(), Facts(store)
        unread = Unread(store, self.live, facts)
        for listener in (self.typing.committed, known.add, self.presence.add, facts.landed, unread.landed):
            self.ledger.listen(listener)
        beside = (self.hubs, self.ephemeral, self.typing, self.presence, unread, known, self.clock)
        self.syncs = Sync(store, self.live, *beside, rule_book.untouched)
        self.sliding = SlidingSync(store, self.live, *beside, rule_book.untouched)
        self.keys = KeyServer(store, SERVER)

    def _typed(self, room_id: str) -> None:
        self.ephemeral.typed(room_id)
        self.hubs.wake_room(room_id)

    async def sync(self, who: Requester, since: str | None = None, patience: int = 0, **more: Any) -> Json:
        """Ask the classic sync as over HTTP; `filter` is a definition. Presence is left out unless asked for."""
        wanted = {"presence": {"types": []}, **more.pop("filter", {})}
        ask = Ask(
            who, since=stream_token(since) if since else None, filter=sync_filter(wanted), timeout=patience,
            presence=more.pop("presence", "offline"), **more,
        )
        return orjson.loads(orjson.dumps(await self.syncs.answer(ask)))

    async def waiting(self, who: Requester, polls: int = 1) -> None:
        """Wait until so many long polls of somebody have come to rest."""
        hub = await self.hubs.of(who.user_id)
        async with asyncio.timeout(5):
            while hub.waiting < polls:  # noqa: ASYNC110 - the very thing to be seen is that nothing else happens
                await asyncio.sleep(0)

    async def token(self, who: Requester) -> str:
        """Return where a first sync leaves somebody."""
        return str((await self.sync(who))["next_batch"])

    def another_device(self, who: Requester, name: str = "SECOND") -> Requester:
        """Return a second device of somebody."""
        return Requester(who.user_id, DeviceId(name), next(self._sessions))

    async def put(self, who: Requester, type: str, content: Json, room_id: str = "") -> None:
        """Store account data."""
        await self.store.write(account_data.put, who.user_id, room_id, type, orjson.dumps(content))

    async def letter(self, who: Requester, number: int) -> None:
        """Queue a message for a device."""
        message = orjson.dumps({"type": "m.test", "sender": "@x:test.example", "content": {"number": number}})
        await self.store.write(to_device.put, who.user_id, who.device_id, message)

    async def read(self, who: Requester, room_id: str, event_id: str, kind: str = receipts.READ) -> None:
        """Move a read receipt."""
        room = await self.store.read(rooms.find, room_id)
        assert room is not None
        await self.store.write(receipts.put, room.rid, room_id, who.user_id, kind, "", event_id, 1)

    async def invite(self, who: Requester, room_id: str, guest: Requester) -> None:
        """Invite somebody."""
        await invite(self.author, who, room_id, guest.user_id)

    async def leave(self, who: Requester, room_id: str) -> None:
        """Leave a room."""
        await leave.leave(self.author, self.members, who, room_id)

    async def kick(self, who: Requester, room_id: str, user_id: UserId) -> None:
        """Remove somebody."""
        await leave.kick(self.author, who, room_id, user_id, None)

    async def ban(self, who: Requester, room_id: str, user_id: UserId) -> None:
        """Remove somebody for good."""
        await leave.ban(self.author, who, room_id, user_id, None)

    async def state(self, who: Requester, room_id: str, type: str, content: Json, state_key: str = "") -> str:
        """Set state."""
        return await put_state(self, who, room_id, type, content, state_key)

    async def redact(self, who: Requester, room_id: RoomId, event_id: str) -> str:
        """Redact an event."""
        content = {"redacts": event_id}
        return await send.message(self.author, who, room_id, "m.room.redaction", content, f"r{event_id}")


@asynccontextmanager
async def station(folder: Path, *, presence: bool = True) -> AsyncIterator[Station]:
    """Open a station on a database in `folder`, which exists."""
    store = await Store.open(folder / "schleuse.db")
    try:
        found = Station(store, presence=presence)
        yield found
        found.presence.close()
        found.typing.close()
    finally:
        await store.close()


def texts(events: list[Json]) -> list[str]:
    """Return the texts of messages."""
    return [event["content"]["body"] for event in events if "body" in event.get("content", {})]


def joined(answer: Json, room_id: str) -> Json:
    """Return the section of a joined room; {} if there is none."""
    return answer.get("rooms", {}).get("join", {}).get(room_id, {})


def timeline(answer: Json, room_id: str) -> list[Json]:
    """Return the timeline of a joined room."""
    return joined(answer, room_id).get("timeline", {}).get("events", [])


def members(events: list[Json]) -> set[str]:
    """Return whose membership events are among these."""
    return {event["state_key"] for event in events if event["type"] == "m.room.member"}


def names(users: list[Requester]) -> set[str]:
    """Return user ids."""
    return {user.user_id for user in users}

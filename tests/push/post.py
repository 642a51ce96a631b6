"""A ward with everything of push, and a push gateway on loopback that does as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from appliance.matrix.requester import Requester
from appliance.push.facts import Facts
from appliance.push.gateway import PATH, Gateway, Targets
from appliance.push.history import History
from appliance.push.pushers import Pace, Pushers
from appliance.push.registration import PusherSpec, Registration
from appliance.push.rule_book import RuleBook
from appliance.push.standing import UnreadCounts
from appliance.push.unread import Unread
from appliance.rooms import receipts, send
from appliance.rooms.invite import invite
from appliance.rooms.receipts import Markers
from appliance.store.database import Store
from tests.world.rooms import Ward

NEARBY = Targets.of(["127.0.0.1"])


class Office(Ward):
    """A ward whose people are notified, connected as in the house."""

    def __init__(self, store: Store, *, content_free: bool = False, pace: Pace | None = None,
                 targets: Targets = NEARBY) -> None:
        super().__init__(store)
        facts = Facts(store)
        self.unread = Unread(store, self.live, facts)
        for listener in (facts.landed, self.unread.landed):
            self.ledger.listen(listener)
        self.gateway = Gateway(targets)
        self.pushers = Pushers(store, self.unread, self.members, self.live, self.gateway, clock=self.clock,
                               chance=lambda: 0.5, content_free=content_free, pace=pace or Pace(first=0.05))
        self.registration = Registration(store, targets, clock=self.clock, changed=self.pushers.changed)
        self.rules = RuleBook(store)
        self.history = History(store, self.unread, self.members)

    async def counts(self, who: Requester, room_id: str) -> UnreadCounts:
        """Ask for the counts as a sync does."""
        return await self.unread.counts(who.user_id, room_id, self.store.changes.position)

    async def numbers(self, who: Requester, room_id: str) -> tuple[int, int]:
        """Return (notifications, highlights) of a room."""
        counts = await self.counts(who, room_id)
        fresh = Unread(self.store, self.live, Facts(self.store))
        again = await fresh.counts(who.user_id, room_id, self.store.changes.position)
        assert again == counts, ("what was followed and what is worked out after a restart must agree", again, counts)
        return counts.notification, counts.highlight

    async def read(self, who: Requester, room_id: str, event_id: str, kind: str = "m.read", thread: str = "") -> None:
        """Send a receipt."""
        await self.store.write(receipts.move, who.user_id, room_id, Markers({kind: event_id}, thread), 1)

    async def bring(self, who: Requester, room_id: Any, *guests: Requester) -> None:
        """Invite people and let them join."""
        for guest in guests:
            await invite(self.author, who, room_id, guest.user_id)
            await self.join(guest, room_id)

    async def redact(self, who: Requester, room_id: Any, event_id: str) -> None:
        """Redact an event."""
        await send.message(self.author, who, room_id, "m.room.redaction", {"redacts": event_id}, f"r{event_id}")

    async def pusher(self, who: Requester, url: str, pushkey: str = "key", *, append: bool = False,
                     **data: Any) -> None:
        """Set a pusher."""
        await self.registration.set(who, PusherSpec(
            app_id="app", pushkey=pushkey, kind="http", app_display_name="App", device_display_name="Phone",
            lang="de", append=append, data={"url": url, **data}))


@asynccontextmanager
async def office(folder: Path, **extra: Any) -> AsyncIterator[Office]:
    """Open an office; nothing is delivered before `working`."""
    store = await Store.open(folder / "schleuse.db")
    found = Office(store, **extra)
    try:
        yield found
    finally:
        await found.gateway.close()
        await store.close()


@asynccontextmanager
async def working(found: Office) -> AsyncIterator[None]:
    """Let the pushers run."""
    task = asyncio.create_task(found.pushers.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled(), task.exception()


class PushGateway:
    """A real HTTP server. `refusals` answers are errors before the first success; `reject` are refused push keys."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.asked = 0
        self.refusals = 0
        self.reject: list[str] = []
        self._news = asyncio.Event()
        self._runner = web.AppRunner(self._application())
        self.url = ""

    def _application(self) -> web.Application:
        app = web.Application()
        app.router.add_post(PATH, self._notify)
        return app

    async def _notify(self, request: web.Request) -> web.Response:
        self.asked += 1
        self._news.set()
        if self.refusals:
            self.refusals -= 1
            return web.Response(status=502)
        self.got.append((await request.json())["notification"])
        return web.json_response({"rejected": self.reject})

    async def until(self, number: int) -> list[dict[str, Any]]:
        """Wait until so many notifications have arrived."""
        async with asyncio.timeout(5):
            while len(self.got) < number:
                self._news.clear()
                await self._news.wait()
        return self.got

    async def until_asked(self, number: int) -> None:
        """Wait until so many requests have come, refused ones included."""
        async with asyncio.timeout(5):
            while self.asked < number:
                self._news.clear()
                await self._news.wait()

    @property
    def events(self) -> list[str]:
        """Return the event ids in the order of arrival (badges have none)."""
        return [notification["event_id"] for notification in self.got if "event_id" in notification]

    async def __aenter__(self) -> PushGateway:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}{PATH}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._runner.cleanup()

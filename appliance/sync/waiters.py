"""Who waits for news, and what became new since when, per local user.

A `Hub` belongs to one user who syncs. It knows the rooms that user is joined to and, from `born` on, the last position
at which each of them or anything of the user's own changed. So a sync that starts at or after `born` knows without
asking the store that nothing happened, or in which rooms timelines grew. `Hubs` feeds the hubs from the commits: by
user and, through an index of rooms, by room. Whoever polls waits on a future of the hub; cancelling the request takes
the future away.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TypeVar

from appliance.matrix.ids import RoomId
from appliance.rooms.members import Members
from appliance.store.changes import Changes, Commit
from appliance.store.rooms import Membership

T = TypeVar("T")
MAX_HUBS = 5000
"""Users remembered at the same time; beyond it the one who synced longest ago is forgotten (never one who waits)."""


class Hub:
    """News of one user. All positions are stream positions."""

    __slots__ = (
        "_futures", "active", "born", "joined", "memberships", "rest", "stale", "touched", "user_id", "user_pos",
        "wakes",
    )

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.memberships: Mapping[RoomId, Membership] = {}
        self.joined: frozenset[RoomId] = frozenset()
        self.born = 0
        """From this position on `touched` and `user_pos` are complete."""
        self.stale = True
        """Whether the memberships may have changed since they were read."""
        self.user_pos = 0
        """Last position at which something of the user's own changed."""
        self.wakes = 0
        """How often something of the user's own changed; tells apart changes that take no position."""
        self.touched: OrderedDict[str, int] = OrderedDict()
        """Room id -> last position at which anything in it changed, the most recent last."""
        self.active = 0
        self.rest = 0.0
        """In a busy room: loop time before which no further answer is given, so that several events share one."""
        self._futures: set[asyncio.Future[None]] = set()

    def rooms_after(self, after: int) -> list[str]:
        """Return the joined rooms in which something changed after a position, the most recent first."""
        found = []
        for room_id, pos in reversed(self.touched.items()):
            if pos <= after:
                break
            found.append(room_id)
        return found

    def touch(self, room_id: str, pos: int) -> None:
        """Note that something changed in a room, and wake whoever waits."""
        self.touched[room_id] = pos
        self.touched.move_to_end(room_id)
        self.wake()

    def wake(self) -> None:
        """Let every waiting request look again."""
        if self._futures:
            for future in self._futures:
                if not future.done():
                    future.set_result(None)
            self._futures.clear()

    def listen(self) -> asyncio.Future[None]:
        """Return a future that ends with the next news. Ask for it before looking, so that nothing falls between."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._futures.add(future)
        return future

    def wake_one(self, future: asyncio.Future[None]) -> None:
        """Let one request look again (its time is up)."""
        if not future.done():
            future.set_result(None)

    def hang_up(self, future: asyncio.Future[None]) -> None:
        """Take a future away that nobody waits for any more."""
        self._futures.discard(future)

    @property
    def waiting(self) -> int:
        """How many requests wait at the moment."""
        return len(self._futures)


class Hubs:
    """The hubs of everybody who synced lately."""

    def __init__(self, changes: Changes, members: Members) -> None:
        self._changes = changes
        self._members = members
        self._hubs: OrderedDict[str, Hub] = OrderedDict()
        self._by_room: dict[str, set[Hub]] = {}
        self._founded = 0
        self._asides: OrderedDict[str, int] = OrderedDict()
        self._asides_floor = changes.position
        self._closing = False
        changes.listen(self._committed)

    async def of(self, user_id: str) -> Hub:
        """Return the user's hub with its memberships up to date."""
        hub = self._hubs.get(user_id)
        if hub is None:
            hub = self._hubs[user_id] = Hub(user_id)
            self._founded += 1
            hub.wakes = self._founded << 32  # never the number of an earlier hub of the same user
            self._trim()
        self._hubs.move_to_end(user_id)
        while hub.stale:
            wakes = hub.wakes
            memberships = await self._members.rooms_of(user_id)
            # Without a commit of the user's own during the read the value is that of this very moment. Until then the
            # hub stays stale for others who ask at the same time: half of a hub would hide news from them.
            if self._hubs.get(user_id) is not hub:
                return await self.of(user_id)
            if hub.wakes == wakes:
                hub.stale = False
                self._settle(hub, memberships)
        return hub

    async def wait(
        self, hub: Hub, end: float, look: Callable[[], Awaitable[T]], enough: Callable[[T], bool]
    ) -> T:
        """Look again with every piece of news until there is `enough` or the loop time is `end`; return the last look.

        Nothing falls between looking and waiting, and nobody is kept waiting while the house closes.
        """
        loop = asyncio.get_running_loop()
        while True:
            rest = min(hub.rest, end) - loop.time()
            if rest > 0:
                await asyncio.sleep(rest)
            news = hub.listen()
            try:
                found = await look()
                left = end - loop.time()
                if enough(found) or left <= 0 or self._closing:
                    return found
                alarm = loop.call_later(left, hub.wake_one, news)
                try:
                    await news
                finally:
                    alarm.cancel()
            finally:
                hub.hang_up(news)
            await self.of(hub.user_id)

    async def release(self) -> None:
        """Answer everybody who waits: the house closes."""
        self._closing = True
        for hub in self._hubs.values():
            hub.wake()

    def find(self, user_id: str) -> Hub | None:
        """Return the hub of somebody who synced lately."""
        return self._hubs.get(user_id)

    def in_room(self, room_id: str) -> Iterable[Hub]:
        """Return the hubs of those joined to a room."""
        return self._by_room.get(room_id, ())

    def aside_after(self, room_id: str, after: int) -> bool:
        """Tell whether something besides the timeline may have changed in a room after a position."""
        return self._asides.get(room_id, self._asides_floor) > after

    def wake_room(self, room_id: str) -> None:
        """Wake everybody in a room for something that takes no stream position (typing)."""
        for hub in self._by_room.get(room_id, ()):
            hub.wake()

    def _settle(self, hub: Hub, memberships: Mapping[RoomId, Membership]) -> None:
        """Take over the memberships; from now on every commit in these rooms is noted."""
        if memberships is hub.memberships and hub.born:
            return
        joined = frozenset(room_id for room_id, m in memberships.items() if m.membership == "join")
        for room_id in hub.joined - joined:
            self._leave(hub, room_id)
        for room_id in joined - hub.joined:
            self._by_room.setdefault(room_id, set()).add(hub)
        if joined != hub.joined or not hub.born:
            hub.born = max(self._changes.position, 1)
        hub.memberships, hub.joined = memberships, joined

    def _leave(self, hub: Hub, room_id: str) -> None:
        hub.touched.pop(room_id, None)
        people = self._by_room.get(room_id)
        if people is not None:
            people.discard(hub)
            if not people:
                del self._by_room[room_id]

    def _trim(self) -> None:
        """Forget those who synced longest ago and are not here now."""
        if len(self._hubs) <= MAX_HUBS:
            return
        for user_id, hub in list(self._hubs.items()):
            if not hub.active and not hub.waiting:
                for room_id in hub.joined:
                    self._leave(hub, room_id)
                del self._hubs[user_id]
                if len(self._hubs) <= MAX_HUBS:
                    return

    def _committed(self, commit: Commit) -> None:
        """Spread the news of a commit (called on the loop, after the caches took note of it)."""
        for user_id in commit.users:
            hub = self._hubs.get(user_id)
            if hub is not None:
                hub.user_pos, hub.stale = commit.position, True
                hub.wakes += 1
                hub.wake()
        for room_id in commit.asides:
            self._note_aside(room_id, commit.position)
        for room_id in commit.rooms:
            for hub in self._by_room.get(room_id, ()):
                hub.touch(room_id, commit.position)

    def _note_aside(self, room_id: str, pos: int) -> None:
        self._asides[room_id] = pos
        self._asides.move_to_end(room_id)
        if len(self._asides) > MAX_HUBS:
            _, self._asides_floor = self._asides.popitem(last=False)

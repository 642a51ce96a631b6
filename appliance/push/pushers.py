"""HTTP pushers: every notification reaches its gateway, whatever happens in between.

The timeline is the queue. A pusher's cursor says up to which position its gateway has taken everything; it moves in the
store after each delivery, so a power cut repeats at most the notification that was under way, and gateways drop
repeated event ids. After a commit only pushers of people in the rooms concerned are looked at. A gateway that does
not answer is asked again with growing, jittered pauses; what was read meanwhile, or is older than three days by then,
is passed over.

Who asks what: `_committed` (after each commit) only collects names; `run` finds out whom they concern; one task per
pusher that has something to say (`_serve`) delivers in order, a few of them at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from appliance.matrix import canonical
from appliance.matrix.ids import RoomId, UserId
from appliance.push import message, owed
from appliance.push.gateway import Gateway, Undelivered
from appliance.push.unread import Judged, Recent, Unread
from appliance.store import push
from appliance.store.changes import Commit
from appliance.store.connection import StoreUnavailable
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.store.push import PusherRow
from appliance.store.rooms import Membership

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Deliveries under way at the same time."""
LAG = 5000
"""Positions by which the stored cursor of a pusher with nothing to say may stay behind."""


class Members(Protocol):
    """Who is where (`rooms.members.Members`)."""

    async def rooms_of(self, user_id: str) -> Mapping[RoomId, Membership]:
        """Return every room in which the user has or had a membership."""

    async def local_joined(self, room_id: str) -> frozenset[UserId]:
        """Return the joined users of this server in a room."""


class Pace(msgspec.Struct, frozen=True):
    """How patiently a silent gateway is asked again: pauses in seconds, and when an event is too old (milliseconds)."""

    first: float = 2
    longest: float = 600
    give_up_ms: int = 3 * 24 * 3600 * 1000


@dataclass(slots=True, eq=False)
class _Line:
    """One pusher in memory. `rooms`: where something may be owed; `whole`: anywhere; `woken`: its person was woken."""

    pusher: PusherRow
    cursor: int
    stored: int
    rooms: set[str] = field(default_factory=set)
    whole: bool = True
    woken: bool = False
    gone: bool = False
    badge: int | None = None
    task: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def waiting(self) -> bool:
        return not self.gone and (self.whole or self.woken or bool(self.rooms))


class Pushers:
    """Delivers to gateways while `run` runs. `content_free`: gateways learn ids only, whatever a pusher asks for."""

    def __init__(
        self, store: Store, unread: Unread, members: Members, live: Recent, gateway: Gateway, *,
        clock: Callable[[], int], chance: Callable[[], float], content_free: bool, pace: Pace | None = None,
    ) -> None:
        self._store = store
        self._unread = unread
        self._members = members
        self._live = live
        self._gateway = gateway
        self._clock = clock
        self._chance = chance
        self._content_free = content_free
        self._pace = pace or Pace()
        self._lines: dict[int, _Line] = {}
        self._by_user: dict[str, set[int]] = {}
        self._rooms: set[str] = set()
        self._users: set[str] = set()
        self._bell = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._told = 0
        store.changes.listen(self._committed)

    # -- what changed ----------------------------------------------------------------------------------------------

    def _committed(self, commit: Commit) -> None:
        self._users |= commit.users & self._by_user.keys()
        if self._by_user:
            self._rooms |= commit.rooms
            self._bell.set()

    def changed(self, user_id: str) -> None:
        """A person's pushers were set or removed: read them again."""
        self._by_user.setdefault(user_id, set())
        self._users.add(user_id)
        self._bell.set()

    async def run(self) -> None:
        """Deliver until cancelled; what was owed when the house stopped comes first."""
        try:
            async with asyncio.TaskGroup() as group:
                for row in await self._store.read(push.everyone):
                    self._add(row)
                self._told = self._store.changes.position  # no await between this and the lines above
                for line in list(self._lines.values()):
                    self._start(group, line)
                while True:
                    await self._bell.wait()
                    self._bell.clear()
                    await self._tell(group)
        finally:
            await asyncio.shield(self._remember())

    async def _tell(self, group: asyncio.TaskGroup) -> None:
        """Find out whom the collected changes concern. Only then do they count as told: cursors never pass `_told`."""
        rooms, self._rooms = self._rooms, set()
        users, self._users = self._users, set()
        position = self._store.changes.position
        for user_id in users:
            await self._reload(user_id)
        concerned: set[int] = set()
        for room_id in rooms:
            for user_id in await self._members.local_joined(room_id):
                for pid in self._by_user.get(user_id, ()):
                    self._lines[pid].rooms.add(room_id)
                    concerned.add(pid)
        for user_id in users:
            for pid in self._by_user.get(user_id, ()):
                self._lines[pid].woken = True
                concerned.add(pid)
        self._told = position
        for pid in concerned & self._lines.keys():
            self._start(group, self._lines[pid])

    async def _reload(self, user_id: str) -> None:
        rows = {row.pid: row for row in await self._store.read(push.of_user, user_id)}
        for pid in list(self._by_user.get(user_id, ())):
            if pid not in rows:
                self._drop(self._lines[pid])
        for pid, row in rows.items():
            line = self._lines.get(pid)
            if line is None:
                self._add(row)
            elif line.pusher != (fresh := msgspec.structs.replace(row, cursor=line.pusher.cursor)):
                line.pusher = fresh
                line.changed.set()
        if not self._by_user.get(user_id):
            self._by_user.pop(user_id, None)

    def _add(self, row: PusherRow) -> None:
        self._lines[row.pid] = _Line(row, row.cursor, row.cursor)
        self._by_user.setdefault(row.user_id, set()).add(row.pid)

    def _drop(self, line: _Line) -> None:
        line.gone = True
        line.changed.set()
        self._lines.pop(line.pusher.pid, None)
        mine = self._by_user.get(line.pusher.user_id, set())
        mine.discard(line.pusher.pid)

    # -- delivering ------------------------------------------------------------------------------------------------

    def _start(self, group: asyncio.TaskGroup, line: _Line) -> None:
        if line.task is None or line.task.done():
            line.task = group.create_task(self._serve(line))

    async def _serve(self, line: _Line) -> None:
        """Bring one pusher up to date; ends when nothing is left to say."""
        failures = 0
        while line.waiting:
            try:
                async with self._slots:
                    done = await self._round(line)
            except StoreUnavailable as error:
                log.warning("push postponed: %s", error)
                done = False
            failures = 0 if done else failures + 1
            if failures:
                await self._pause(line, failures)

    async def _round(self, line: _Line) -> bool:
        """Deliver what is owed up to now; False if the gateway did not take something, which is then owed still."""
        upto = self._told
        whole, rooms, line.rooms = line.whole, line.rooms, set()
        woken, line.woken = line.woken, False
        due = await owed.find(self._store, self._members, self._live, owed.Debt(
            line.pusher.user_id, None if whole else frozenset(rooms), woken or whole, line.cursor, upto))
        for judged in await self._judge(line, due.rows):
            if not await self._deliver(line, judged):
                line.rooms |= rooms
                line.whole, line.woken = whole, line.woken or woken
                return False
        line.cursor = max(line.cursor, due.reached)
        if due.reached < upto:
            line.rooms |= rooms  # more than one round's worth
            line.woken = line.woken or woken
        else:
            line.whole = False
        if line.cursor - line.stored > LAG:
            await self._advance(line)
        if woken:
            await self._badge(line)
        return True

    async def _judge(self, line: _Line, rows: Sequence[Row]) -> list[Judged]:
        by_room: dict[int, list[Row]] = {}
        for row in rows:
            by_room.setdefault(row.rid, []).append(row)
        judged = [found for rid, mine in by_room.items()
                  for found in await self._unread.examine(line.pusher.user_id, rid, mine)]
        return sorted((found for found in judged if not found.read), key=lambda found: found.row.pos or 0)

    async def _deliver(self, line: _Line, judged: Judged) -> bool:
        row, pusher = judged.row, line.pusher
        if line.gone:
            return True
        if self._clock() - row.event.origin_server_ts < self._pace.give_up_ms:
            unread = await self._total(pusher.user_id)
            if self._content_free or message.is_bare(pusher):
                notification = message.bare(pusher, row, judged.outcome, unread)
            else:
                names = await self._store.read(message.names_of, row)
                notification = message.full(pusher, row, judged.outcome, unread, names)
            if not await self._send(line, notification):
                return False
            line.badge = unread
        line.cursor = max(line.cursor, row.pos or 0)
        await self._advance(line)
        return True

    async def _send(self, line: _Line, notification: Mapping[str, object]) -> bool:
        pusher = line.pusher
        url = canonical.decode_object(pusher.data).get("url")
        try:
            rejected = await self._gateway.notify(str(url), notification)
        except Undelivered as error:
            log.info("push gateway: not delivered (%s)", error)
            return False
        if pusher.pushkey in rejected:
            await self._store.write(push.remove, pusher.user_id, pusher.app_id, pusher.pushkey)
            self._drop(line)
        return True

    async def _badge(self, line: _Line) -> None:
        """Tell the gateway a lower number when something was read (a higher one comes with its event)."""
        unread = await self._total(line.pusher.user_id)
        before, line.badge = line.badge, unread
        if before is not None and unread < before and not line.gone:
            await self._send(line, message.badge(line.pusher, unread))

    async def _total(self, user_id: str) -> int:
        position, total = self._store.changes.position, 0
        for room_id, membership in (await self._members.rooms_of(user_id)).items():
            if membership.membership == "join":
                total += (await self._unread.counts(user_id, room_id, position)).notification
        return total

    async def _pause(self, line: _Line, failures: int) -> None:
        """Wait before asking again; a pusher that was changed or removed is not waited for."""
        seconds = min(self._pace.longest, self._pace.first * 2 ** min(failures - 1, 20)) * (0.5 + self._chance())
        line.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await line.changed.wait()

    async def _advance(self, line: _Line) -> None:
        if not line.gone:
            line.stored = line.cursor
            await self._store.write(push.advance, line.pusher.pid, line.cursor)

    async def _remember(self) -> None:
        """At an orderly stop, keep the cursors that ran ahead, so that the next start looks at less."""
        for line in list(self._lines.values()):
            if line.cursor > line.stored:
                await self._advance(line)

"""The list of what somebody was notified about, read from the timeline page by page; nothing of it is stored.

Source: client-server API, "Listing Notifications".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import Protocol

import msgspec

from appliance.matrix.ids import RoomId
from appliance.push.unread import Judged, Unread
from appliance.store import events, push
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.rooms import Membership

EXAMINED = 1000
"""Events looked at for one page; a page may be short and still have a next one."""
BATCH = 30


class Memberships(Protocol):
    """Where a person is (`rooms.members.Members`)."""

    async def rooms_of(self, user_id: str) -> Mapping[RoomId, Membership]:
        """Return every room in which the user has or had a membership."""


class Page(msgspec.Struct, frozen=True):
    """Notifications, newest first, and the position below which the next page begins (None: there is no more)."""

    items: Sequence[Judged]
    below: int | None


def _heads(rx: Rx, rids: Sequence[int], below: int) -> list[tuple[int, int]]:
    found = ((push.newest(rx, rid, below), rid) for rid in rids)
    return [(-pos, rid) for pos, rid in found if pos is not None]


def _batch(rx: Rx, rid: int, upto: int) -> list[Row]:
    return events.timeline(rx, rid, after=0, upto=upto, limit=BATCH, backwards=True)


class _Backwards:
    """The timelines of several rooms as one, newest event first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._heap: list[tuple[int, int]] = []
        self._rows: dict[int, deque[Row]] = {}

    async def begin(self, rids: Sequence[int], below: int) -> None:
        self._heap = await self._store.read(_heads, rids, below)
        heapify(self._heap)

    async def next(self) -> Row | None:
        while self._heap:
            pos, rid = heappop(self._heap)
            rows = self._rows.get(rid)
            if not rows:
                rows = self._rows[rid] = deque(await self._store.read(_batch, rid, -pos))
                if not rows:
                    continue
            row = rows.popleft()
            upto = (rows[0].pos or 0) if rows else (row.pos or 0) - 1
            heappush(self._heap, (-upto, rid))
            return row
        return None


class History:
    """Answers `/notifications`."""

    def __init__(self, store: Store, unread: Unread, members: Memberships) -> None:
        self._store = store
        self._unread = unread
        self._members = members

    async def page(self, user_id: str, below: int, limit: int, only_highlight: bool) -> Page:
        """Return up to `limit` notifications with positions below `below`, newest first."""
        joined = [m.rid for m in (await self._members.rooms_of(user_id)).values() if m.membership == "join"]
        timeline = _Backwards(self._store)
        await timeline.begin(joined, below)
        items: list[Judged] = []
        for _ in range(EXAMINED):
            row = await timeline.next()
            if row is None:
                return Page(items, None)
            below = row.pos or 0
            for judged in await self._unread.examine(user_id, row.rid, [row]):
                if judged.outcome.highlight or not only_highlight:
                    items.append(judged)
            if len(items) >= limit:
                break
        return Page(items, below)

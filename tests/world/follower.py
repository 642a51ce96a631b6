"""A client that follows /sync from token to token and fills every gap, counting each thing it is given."""

from __future__ import annotations

import asyncio
import collections
import json
from collections.abc import Iterable
from typing import Any

from tests.world.client import Client, segment
from tests.world.mains import Mains

FILTER = json.dumps(
    {"presence": {"types": []}, "room": {"timeline": {"limit": 50}, "state": {"lazy_load_members": True}}}
)


class Follower:
    """Counts the marks of timeline events and to-device messages; exactly once is what the tests want to see.

    A mark is the "mark" field of a content: an event or message that the test sent. Where the server says `limited`,
    the gap is paged backwards from prev_batch until the first event that is already known, as a real client does.
    """

    def __init__(self, client: Client, mains: Mains) -> None:
        self.client = client
        self.mains = mains
        self.timeline: collections.Counter[str] = collections.Counter()
        self.to_device: collections.Counter[str] = collections.Counter()
        self.event_of: dict[str, str] = {}
        self.gaps = 0
        self._known: set[str] = set()
        self._since: str | None = None
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Follower:
        """Take the first sync as the past and follow from there in the background."""
        await self._step(0)
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._step(20_000)

    async def _step(self, timeout_ms: int) -> None:
        got = await self.mains.insist(self.client.sync, self._since, timeout_ms, FILTER)
        for room, joined in got.get("rooms", {}).get("join", {}).items():
            await self._read(room, joined.get("timeline", {}))
        for message in got.get("to_device", {}).get("events", ()):
            if "mark" in message["content"]:
                self.to_device[message["content"]["mark"]] += 1
        self._since = got["next_batch"]
        async with self._news:
            self._news.notify_all()

    async def _read(self, room: str, timeline: dict[str, Any]) -> None:
        if timeline.get("limited") and self._since:
            self.gaps += 1
            await self._fill(room, timeline["prev_batch"])
        self._note(timeline.get("events", ()))

    async def _fill(self, room: str, token: str | None) -> None:
        path = f"/v3/rooms/{segment(room)}/messages"
        while token:
            params = {"dir": "b", "limit": "100", "from": token}
            got = await self.mains.insist(self.client.call, "GET", path, params=params)
            fresh = [event for event in got["chunk"] if event["event_id"] not in self._known]
            self._note(fresh)
            token = got.get("end") if len(fresh) == len(got["chunk"]) and fresh else None

    def _note(self, events: Iterable[dict[str, Any]]) -> None:
        for event in events:
            self._known.add(event["event_id"])
            mark = event["content"].get("mark")
            if mark is not None:
                self.timeline[mark] += 1
                self.event_of[mark] = event["event_id"]

    async def has_all(self, timeline: Iterable[str], to_device: Iterable[str] = (), seconds: float = 60) -> None:
        """Wait until everything has arrived, and see that each arrived exactly once."""
        events, messages = set(timeline), set(to_device)
        try:
            async with asyncio.timeout(seconds), self._news:
                await self._news.wait_for(
                    lambda: self._failed() or not (events - self.timeline.keys() or messages - self.to_device.keys())
                )
        except TimeoutError:
            lost = sorted(events - self.timeline.keys())[:5], sorted(messages - self.to_device.keys())[:5]
            raise AssertionError(f"never arrived: events {lost[0]}, to-device {lost[1]}") from None
        self._raise_failure()
        for kind, counts in (("event", self.timeline), ("to-device message", self.to_device)):
            twice = {mark: count for mark, count in counts.items() if count != 1}
            assert not twice, f"{kind} given more than once: {dict(list(twice.items())[:5])}"

    def _failed(self) -> bool:
        return self._task is not None and self._task.done()

    def _raise_failure(self) -> None:
        if self._task is not None and self._task.done():
            self._task.result()
            raise AssertionError("the follower ended")

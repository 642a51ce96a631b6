"""The work that goes on while the power fails: people write, send to devices, upload and claim keys.

Everybody insists: what a cut left unanswered is sent again with the same transaction id. What was acknowledged is
written down; the tests compare it with what the server still knows.
"""

from __future__ import annotations

import asyncio
import collections
import uuid
from typing import Any

import aiohttp

from tests.world.client import Client, register_many, segment, transaction_id
from tests.world.follower import Follower
from tests.world.keys import DeviceKeys
from tests.world.mains import UNANSWERED, Mains

WRITERS = 6
SAME_TIME = 32
KEYS_AT_ONCE = 20


class KeyDrawer:
    """One-time keys of one device: what was put in, what was handed out, what a cut left open."""

    def __init__(self, owner: Client, claimer: Client) -> None:
        self.owner, self.claimer = owner, claimer
        self.keys = DeviceKeys(owner.user_id, owner.device_id)
        self.put_in: set[str] = set()
        self.perhaps_put_in: set[str] = set()
        self.handed_out: collections.Counter[str] = collections.Counter()
        self.open_claims = 0

    async def publish(self) -> None:
        await self.owner.call("POST", "/v3/keys/upload", {"device_keys": self.keys.device_keys()})

    async def refill(self) -> None:
        fresh = self.keys.one_time_keys(KEYS_AT_ONCE)
        try:
            await self.owner.call("POST", "/v3/keys/upload", {"one_time_keys": fresh})
        except UNANSWERED:
            self.perhaps_put_in |= fresh.keys()  # never uploaded again: a key may have been handed out in between
        else:
            self.put_in |= fresh.keys()

    async def claim(self) -> bool:
        """Claim one key; tell whether there was one."""
        wanted = {"one_time_keys": {self.owner.user_id: {self.owner.device_id: "signed_curve25519"}}}
        try:
            got = await self.claimer.call("POST", "/v3/keys/claim", wanted)
        except UNANSWERED:
            self.open_claims += 1
            return True
        keys = got["one_time_keys"].get(self.owner.user_id, {}).get(self.owner.device_id, {})
        self.handed_out.update(list(keys))
        return bool(keys)

    def check(self) -> None:
        """See that no key was handed out twice or made up."""
        twice = [key for key, count in self.handed_out.items() if count > 1]
        assert not twice, f"one-time keys handed out twice: {twice[:5]}"
        unknown = self.handed_out.keys() - self.put_in - self.perhaps_put_in
        assert not unknown, f"keys nobody uploaded: {sorted(unknown)[:5]}"

    async def empty(self) -> None:
        """Claim what is left and see that no key was lost but to claims whose answer a cut swallowed."""
        while await self.claim():
            pass
        self.check()
        lost = self.put_in - self.handed_out.keys()
        assert len(lost) <= self.open_claims, f"{len(lost)} keys lost, {self.open_claims} claims unanswered: {lost}"


class Ward:
    """Writers, a storm of equal transactions, a courier to devices and a drawer of keys on one server."""

    def __init__(self, mains: Mains, http: aiohttp.ClientSession) -> None:
        self.mains, self.http = mains, http
        self.acknowledged: dict[str, str] = {}
        self.delivered: set[str] = set()
        self.storms: dict[str, str] = {}
        self._finishing = False
        self._numbers: collections.Counter[str] = collections.Counter()

    async def open(self) -> None:
        """Register everybody, fill the room, publish keys; the caller lets the follower follow."""
        run, base = uuid.uuid4().hex[:6], self.mains.server.base
        names = [f"{role}{run}" for role in ("reader", "storm", "courier", *(f"writer{n}x" for n in range(WRITERS)))]
        self.reader, self.stormer, self.courier, *self.writers = await register_many(self.http, base, names)
        self.room = await self.reader.create_room(preset="public_chat")
        await asyncio.gather(*(one.join(self.room) for one in (self.stormer, self.courier, *self.writers)))
        self.drawer = KeyDrawer(self.reader, self.courier)
        await self.drawer.publish()
        self.follower = Follower(self.reader, self.mains)

    def _mark(self, who: str) -> str:
        self._numbers[who] += 1
        return f"{who}-{self._numbers[who]}"

    async def work(self) -> None:
        """Work until `finish`; everything begun is brought to an answer first."""
        self._finishing = False
        async with asyncio.TaskGroup() as group:
            for number, writer in enumerate(self.writers):
                group.create_task(self._write(f"w{number}", writer))
            group.create_task(self._storm())
            group.create_task(self._deliver())
            group.create_task(self._keys())

    def finish(self) -> None:
        self._finishing = True

    async def _write(self, who: str, writer: Client) -> None:
        while not self._finishing:
            await self._send(writer, self._mark(who), transaction_id())

    async def _send(self, writer: Client, mark: str, txn: str) -> str:
        content: dict[str, Any] = {"msgtype": "m.text", "body": f"bed {mark}", "mark": mark}
        event_id = await self.mains.insist(writer.send, self.room, content, txn=txn)
        known = self.acknowledged.setdefault(mark, event_id)
        assert known == event_id, f"{mark} was acknowledged as {known} and as {event_id}"
        return event_id

    async def _storm(self) -> None:
        while not self._finishing:
            mark, txn = self._mark("storm"), transaction_id()
            self.storms[mark] = txn
            await asyncio.gather(*(self._send(self.stormer, mark, txn) for _ in range(SAME_TIME)))

    async def repeat_last_storms(self, count: int = 3) -> None:
        """Send transactions that were answered before the cut once more: the answers must be the old event ids."""
        for mark, txn in list(self.storms.items())[-count:]:
            await self._send(self.stormer, mark, txn)

    async def _deliver(self) -> None:
        while not self._finishing:
            mark = self._mark("box")
            path = f"/v3/sendToDevice/m.test.box/{segment(transaction_id())}"
            body = {"messages": {self.reader.user_id: {self.reader.device_id: {"mark": mark}}}}
            await self.mains.insist(self.courier.call, "PUT", path, body)
            self.delivered.add(mark)

    async def _keys(self) -> None:
        while not self._finishing:
            await self.mains.ready()
            await self.drawer.refill()
            for _ in range(KEYS_AT_ONCE // 2):
                await self.mains.ready()
                await self.drawer.claim()

    async def check(self) -> None:
        """Compare what was acknowledged with what the reader was given."""
        await self.follower.has_all(self.acknowledged, self.delivered)
        strange = {m: e for m, e in self.acknowledged.items() if self.follower.event_of[m] != e}
        assert not strange, f"another event than the acknowledged one arrived: {list(strange.items())[:3]}"
        extra = self.follower.timeline.keys() - self.acknowledged.keys()
        assert not extra, f"events nobody was told of: {sorted(extra)[:5]}"
        self.drawer.check()

    async def check_history(self) -> None:
        """See each acknowledged event exactly once in the whole history of the room."""
        events = await self.writers[0].every_event(self.room)
        found = collections.Counter(event["content"]["mark"] for event in events if "mark" in event["content"])
        missing = self.acknowledged.keys() - found.keys()
        assert not missing, f"acknowledged and gone: {sorted(missing)[:5]} of {len(missing)}"
        assert set(found.values()) <= {1}, f"doubled in history: {[m for m, n in found.items() if n > 1][:5]}"
        ids = {event["content"]["mark"]: event["event_id"] for event in events if "mark" in event["content"]}
        assert ids == self.acknowledged

"""Whatever the order in which events arrive, all servers end with the same room."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from appliance.matrix.errors import Forbidden
from appliance.matrix.event import Event
from appliance.rooms import leave, send
from appliance.rooms.receive import Verdict
from tests.world.federation import Meeting, RemoteWard, meeting, town


class _Life:
    """Three servers with a random life: people talk, change state, lose and regain rights; the post is shuffled."""

    def __init__(self, m: Meeting, seed: int) -> None:
        self.m = m
        self.chance = random.Random(seed)
        self.owed: dict[int, list[tuple[Event, RemoteWard]]] = {i: [] for i in range(len(m.wards))}
        self.messages: set[str] = set()

    async def step(self) -> None:
        who = self.chance.randrange(len(self.m.wards))
        acts = [self._say, self._topic, self._topic, self._levels, self._ban, self._rogue, self._rogue]
        action = self.chance.choice(acts)
        try:
            await action(who)
        except Forbidden:
            pass  # a life without rights
        self._post()
        if self.chance.random() < 0.6:
            await self._deliver(self.chance.randrange(len(self.m.wards)), self.chance.randrange(1, 4))

    async def _say(self, who: int) -> None:
        await self.m.wards[who].say(self.m.people[who], self.m.room_id, str(self.chance.random()))

    async def _topic(self, who: int) -> None:
        await send.state(self.m.wards[who].author, self.m.people[who], self.m.room_id, "m.room.topic", "",
                         {"topic": str(self.chance.random())})  # fmt: skip

    async def _levels(self, who: int) -> None:
        users = {self.m.people[0].user_id: 100}
        users.update({one.user_id: self.chance.choice([0, 50, 60]) for one in (*self.m.people[1:3], self.m.rogue)})
        content = {"users": users, "events": {"m.room.topic": self.chance.choice([0, 50])}}
        await send.state(self.m.wards[0].author, self.m.people[0], self.m.room_id, "m.room.power_levels", "", content)

    async def _ban(self, who: int) -> None:
        ward, target = self.m.wards[who], self.m.rogue
        act: Callable[..., Awaitable[object]] = self.chance.choice([leave.ban, leave.unban, leave.kick])
        await act(ward.author, self.m.people[who], self.m.room_id, target.user_id, None)

    async def _rogue(self, who: int) -> None:
        """The rogue comes back if nobody forbids it, and does what they can, most of all to the rights of others."""
        ward, rogue = self.m.wards[1], self.m.rogue
        await ward.join(rogue, self.m.room_id)
        await ward.say(rogue, self.m.room_id, "ha")
        await send.state(ward.author, rogue, self.m.room_id, "m.room.topic", "", {"topic": str(self.chance.random())})
        await leave.kick(ward.author, rogue, self.m.room_id, self.m.victim.user_id, None)

    def _post(self) -> None:
        for ward in self.m.wards:
            sent, ward.sent = ward.sent, []
            for event in sent:
                for index, other in enumerate(self.m.wards):
                    if other is not ward:
                        self.owed[index].append((event, ward))

    async def _deliver(self, index: int, count: int) -> None:
        for _ in range(min(count, len(self.owed[index]))):
            event, ward = self.owed[index].pop(self.chance.randrange(len(self.owed[index])))
            outcome = await self.m.wards[index].get(event, ward)
            assert outcome.verdict not in (Verdict.DROPPED, Verdict.WAITING), outcome

    async def end(self) -> None:
        """Deliver everything, then let everybody speak in turn, so that the branches are joined."""
        for index, owed in self.owed.items():
            await self._deliver(index, len(owed))
        for _ in range(2):
            for who in range(len(self.m.wards)):
                await self._say(who)
                self._post()
                for index, owed in self.owed.items():
                    await self._deliver(index, len(owed))


@pytest.mark.parametrize("version", ["11", "12"])
@pytest.mark.parametrize("seed", range(6))
async def test_random_lives_converge(tmp_path: Path, seed: int, version: str) -> None:
    async with town(tmp_path, "a", "b", "c") as wards:
        m = await meeting(wards, version)
        m.rogue, m.victim = await wards[1].person("rogue"), await wards[2].person("victim")
        await m.settle()
        for ward, person in ((wards[1], m.rogue), (wards[2], m.victim)):
            await ward.join(person, m.room_id)
            await m.settle()
        life = _Life(m, seed)
        for _ in range(25):
            await life.step()
        await life.end()
        assert len({frozenset(await ward.tips(m.room_id)) for ward in wards}) == 1
        states = [await ward.state(m.room_id) for ward in wards]
        assert states[0] == states[1] == states[2]
        for ward in wards:
            assert len(ward.seen) == len(set(ward.seen))


@pytest.mark.parametrize("seed", range(4))
async def test_a_fork_in_any_order_is_the_same_room(tmp_path: Path, seed: int) -> None:
    """Ten branches of state, delivered to two servers in two orders, and to a third from all sides at once."""
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b, c])
        start = await a.make(a, m.room_id, m.people[0].user_id, "m.room.message", {"body": "start"})
        branches: list[list[Event]] = []
        for branch in range(10):
            line = [start]
            for step in range(3):
                line.append(await a.make(
                    a, m.room_id, m.people[0].user_id, "m.room.topic" if step % 2 else f"x.{branch % 3}",
                    {"n": branch * 10 + step}, "", prev=[line[-1]],
                ))  # fmt: skip
            branches.append(line[1:])
        events = [event for line in branches for event in line]
        chance = random.Random(seed)
        for ward in (b, c):
            await ward.get(start, a)
            lines = [list(line) for line in branches]
            while lines:
                line = chance.choice(lines)
                assert (await ward.get(line.pop(0), a)).verdict == Verdict.ACCEPTED
                lines = [one for one in lines if one]
        assert await b.tips(m.room_id) == await c.tips(m.room_id) == {line[-1].event_id for line in branches}
        assert await b.state(m.room_id) == await c.state(m.room_id)
        await a.get(start, b)
        await asyncio.gather(*(a.get(event, b) for event in events))
        assert await a.state(m.room_id) == await b.state(m.room_id)
        assert set(a.seen) >= {event.event_id for event in events} and len(a.seen) == len(set(a.seen))

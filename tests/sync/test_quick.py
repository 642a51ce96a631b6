"""The answer from memory, the answer with recent timelines from memory, and the answer from the store are the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from appliance.matrix.requester import Requester
from appliance.matrix.tokens import stream_token
from appliance.push.facts import Facts
from appliance.push.unread import Unread
from appliance.rooms.live import Live
from appliance.store.receipts import PRIVATE, READ
from appliance.sync.ask import Ask
from appliance.sync.filters import sync_filter
from appliance.sync.known import KnownEvents
from appliance.sync.sync import Sync
from tests.rooms.reading import edit, relate
from tests.sync.station import Station, station

FILTERS: list[dict[str, Any]] = [
    {},
    {"room": {"timeline": {"limit": 3}}},
    {"room": {"timeline": {"not_types": ["m.room.member"], "not_senders": ["@p1:test.example"]}}},
    {"room": {"timeline": {"types": ["m.room.message"], "unread_thread_notifications": True}}},
]


class Life:
    """Random deeds of some people in two rooms."""

    def __init__(self, w: Station, seed: int) -> None:
        self.w = w
        self.random = random.Random(seed)
        self.said: dict[str, list[str]] = {}

    async def begin(self) -> Requester:
        """Make people and rooms; returns who reads."""
        w = self.w
        self.people = [await w.person(f"p{number}") for number in range(4)]
        self.reader = self.people[3]
        self.rooms = [await w.room(self.people[0], "public_chat") for _ in range(2)]
        for room_id in self.rooms:
            self.said[room_id] = []
            for person in self.people[1:]:
                await w.join(person, room_id)
        return self.reader

    async def deed(self) -> None:
        """Do one thing; most are messages."""
        w, room_id, who = self.w, self.random.choice(self.rooms), self.random.choice(self.people)
        said = self.said[room_id]
        match self.random.choice(["say"] * 12 + ["edit", "thread", "topic", "redact", "name", "read", "secret", "data",
                                                 "ignore", "come", "type"]):
            case "edit" if said:
                await edit(w, self.people[0], room_id, self.random.choice(said), "new")
            case "thread" if said:
                await relate(w, who, room_id, said[0], "m.thread")
            case "topic":
                await w.state(self.people[0], room_id, "m.room.topic", {"topic": str(self.random.random())})
            case "redact" if said:
                await w.redact(self.people[0], room_id, said.pop())
            case "name":
                content = {"membership": "join", "displayname": str(self.random.randint(0, 9))}
                await w.state(who, room_id, "m.room.member", content, who.user_id)
            case "read" | "secret" as kind if said:
                await w.read(who, room_id, said[-1], READ if kind == "read" else PRIVATE)
            case "data":
                where = self.random.choice(["", room_id])
                await w.put(self.reader, "org.example", {"n": self.random.randint(0, 9)}, where)
            case "ignore":
                ignored: Any = {self.people[2].user_id: {}} if self.random.random() < 0.5 else {}
                await w.put(self.reader, "m.ignored_user_list", {"ignored_users": ignored})
            case "come":
                guest = await w.person(f"g{self.random.randint(0, 99)}")
                await w.join(guest, room_id)
                await w.leave(guest, room_id)
            case "type":
                w.typing.set(room_id, who.user_id, 20_000)
            case _:
                said.append(await w.say(who, room_id, str(self.random.random())))


def ageless(value: Any) -> Any:
    """Return an answer without what depends on the moment."""
    if isinstance(value, dict):
        return {key: ageless(item) for key, item in value.items() if key not in ("age", "last_active_ago")}
    return [ageless(item) for item in value] if isinstance(value, list) else value


def forgetful(w: Station) -> Sync:
    """Return a sync whose memory is empty for ever, so that everything comes from the store."""
    live = Live(2**60)
    unread = Unread(w.store, live, Facts(w.store))
    return Sync(w.store, live, w.hubs, w.ephemeral, w.typing, w.presence, unread, KnownEvents(), w.clock)


@pytest.mark.parametrize("seed", range(6))
async def test_memory_and_store_give_the_same_answers(tmp_path: Path, seed: int) -> None:
    async with station(tmp_path, presence=False) as w:
        life = Life(w, seed)
        reader = await life.begin()
        wanted = sync_filter(FILTERS[seed % len(FILTERS)])
        token = stream_token(await w.token(reader))
        from_memory = 0
        for _ in range(60):
            for _ in range(life.random.choice([0, 1, 1, 1, 2, 5])):
                await life.deed()
            ask = Ask(reader, since=token, filter=wanted, presence="offline")
            reads = w.store.read
            count = 0

            def counting(*args: Any, reads: Any = reads) -> Any:
                nonlocal count
                count += args[0].__name__ == "read"
                return reads(*args)

            w.store.read = counting  # type: ignore[method-assign, assignment]
            answer = ageless(orjson.loads(orjson.dumps(await w.syncs.answer(ask))))
            w.store.read = reads  # type: ignore[method-assign]
            from_memory += count == 0 and "rooms" in answer
            assert answer == ageless(orjson.loads(orjson.dumps(await forgetful(w).answer(ask))))
            token = stream_token(answer["next_batch"])
        assert from_memory > 3, "the quick path was hardly taken"

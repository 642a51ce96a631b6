"""A client that only follows a sliding sync, with answers lost on the way, ends up with everything."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from appliance.push import rule_book
from appliance.push.facts import Facts
from appliance.push.unread import Unread
from appliance.rooms.live import Live
from appliance.store import rooms, state
from appliance.store.readers import Rx
from appliance.sync.known import KnownEvents
from appliance.sync.sliding import SlidingSync
from appliance.sync.sliding_ask import ListAsk
from tests.rooms.reading import history
from tests.sync.station import Station, station
from tests.sync.test_quick import Life, ageless
from tests.sync.window import ALL, EVERYTHING, LAZY, config, slide


class Follower:
    """A client that keeps what it is told."""

    def __init__(self) -> None:
        self.timelines: dict[str, list[str]] = {}
        self.state: dict[str, dict[tuple[str, str], str]] = {}
        self.counts: dict[str, int] = {}

    def take(self, answer: Any) -> None:
        for room_id, room in answer["rooms"].items():
            found = [event["event_id"] for event in room["timeline"]]
            if room.get("initial") or room["limited"] or room.get("unstable_expanded_timeline"):
                self.timelines[room_id] = found
            else:
                assert not set(found) & set(self.timelines[room_id]), "sent twice"
                self.timelines[room_id] = self.timelines[room_id] + found
            if room.get("initial"):
                self.state[room_id] = {}
            for event in room["required_state"]:
                self.state[room_id][event["type"], event["state_key"]] = event["event_id"]
            self.counts[room_id] = room.get("joined_count", self.counts.get(room_id, 0))


def whole(rx: Rx, room_id: str) -> dict[tuple[str, str], str]:
    room = rooms.find(rx, room_id)
    assert room is not None
    return state.current_ids(rx, room.rid)


@pytest.mark.parametrize("seed", range(5))
async def test_a_client_that_follows_a_changing_window_has_everything(tmp_path: Path, seed: int) -> None:
    async with station(tmp_path) as w:
        chance = random.Random(seed)
        ada = await w.person("ada")
        people = [await w.person(f"p{number}") for number in range(3)]
        found = [await w.room(ada, "public_chat") for _ in range(5)]
        client, pos = Follower(), None
        for _ in range(40):
            for _ in range(chance.choice([0, 1, 3])):
                who, room_id = chance.choice(people), chance.choice(found)
                match chance.choice(["say", "say", "topic", "come", "name"]):
                    case "say":
                        await w.say(ada, room_id, str(chance.random()))
                    case "topic":
                        await w.state(ada, room_id, "m.room.topic", {"topic": str(chance.random())})
                    case "come":
                        inside = who.user_id in await w.members.local_joined(room_id)
                        await (w.leave(who, room_id) if inside else w.join(who, room_id))
                    case "name":
                        content = {"membership": "join", "displayname": str(chance.random())}
                        await w.state(ada, room_id, "m.room.member", content, ada.user_id)
            answer = await slide(
                w, ada, pos, limit=chance.choice([1, 2, 5]), upto=chance.choice([0, 2, 9]), wanted=EVERYTHING
            )
            if chance.random() < 0.8:  # otherwise the answer was lost on the way and the client asks again
                client.take(answer)
                pos = answer["pos"]
        client.take(await slide(w, ada, pos, limit=5, wanted=EVERYTHING))
        for room_id in found:
            assert client.state[room_id] == await w.store.read(whole, room_id)
            page = await history(w, ada, room_id, limit=100)
            truth = [event["event_id"] for event in page["chunk"]][::-1]
            mine = client.timelines[room_id]
            assert mine == truth[-len(mine):]
            assert len(mine) >= 5
            assert client.counts[room_id] == len(await w.members.local_joined(room_id))


def forgetful(w: Station) -> SlidingSync:
    """Return a sliding sync whose memory holds no events, so that everything comes from the store."""
    live = Live(2**60)
    facts, known = Facts(w.store), KnownEvents()
    unread = Unread(w.store, live, facts)
    for listener in (known.add, facts.landed, unread.landed):
        w.ledger.listen(listener)
    beside = (w.hubs, w.ephemeral, w.typing, w.presence, unread, known, w.clock, rule_book.untouched)
    return SlidingSync(w.store, live, *beside)


@pytest.mark.parametrize("seed", range(8))
async def test_memory_and_store_give_the_same_answers(tmp_path: Path, seed: int) -> None:
    async with station(tmp_path, presence=False) as w:
        life, slow = Life(w, seed), forgetful(w)
        reader = await life.begin()
        wanted = LAZY if seed % 2 else EVERYTHING
        lists = {
            "top": ListAsk(config(2 + seed, wanted, reader.user_id), ((0, 0),)),
            "rest": ListAsk(config(3, LAZY, reader.user_id), ((1, 5),) if seed % 3 else None),
        }
        quick_one, pos = w.sliding, [None, None]
        reads, from_memory = 0, 0
        count = w.store.read

        def counting(*args: Any) -> Any:
            nonlocal reads
            reads += args[0].__name__ == "look"
            return count(*args)

        w.store.read = counting  # type: ignore[method-assign, assignment]
        for _ in range(60):
            for _ in range(life.random.choice([0, 1, 1, 2, 4])):
                await life.deed()
            answers = []
            for number, sliding in enumerate((quick_one, slow)):
                before, w.sliding = reads, sliding
                answer = ageless(await slide(w, reader, pos[number], lists=lists, extensions=ALL))
                from_memory += number == 0 and reads == before and bool(answer["rooms"])
                pos[number] = answer.pop("pos")
                answers.append(answer)
            assert answers[0] == answers[1]
        assert from_memory > 3, "the quick path was hardly taken"

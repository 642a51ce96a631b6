"""A client that only follows a sliding sync, with answers lost on the way, ends up with everything."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from appliance.store import rooms, state
from appliance.store.readers import Rx
from tests.rooms.reading import history
from tests.sync.station import station
from tests.sync.window import EVERYTHING, slide


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

"""The memory that answers most syncs is never asked before it is whole, and never ahead of the commits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from appliance.matrix.ids import RoomId
from appliance.store.changes import Changes, Commit
from appliance.store.rooms import Membership
from appliance.sync import waiters
from tests.sync.station import Station, station, texts
from tests.sync.window import EVERYTHING, slide


def slow_down(w: Station) -> asyncio.Event:
    """Let nobody read memberships before the event is set."""
    gate, read = asyncio.Event(), w.members.rooms_of

    async def rooms_of(user_id: str) -> Mapping[RoomId, Membership]:
        await gate.wait()
        return await read(user_id)

    w.members.rooms_of = rooms_of  # type: ignore[method-assign]
    return gate


async def test_two_who_ask_at_once_both_get_a_whole_hub(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        gate = slow_down(w)
        tasks = [asyncio.create_task(w.hubs.of(ada.user_id)) for _ in range(2)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        gate.set()
        for hub in await asyncio.gather(*tasks):
            assert hub.joined == {room_id}
            assert hub.born == w.store.changes.position


async def test_a_hub_that_was_forgotten_while_it_was_read_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with station(tmp_path) as w:
        people = [await w.person(f"p{number}") for number in range(3)]
        monkeypatch.setattr(waiters, "MAX_HUBS", 1)
        gate = slow_down(w)
        tasks = [asyncio.create_task(w.hubs.of(person.user_id)) for person in people]
        await asyncio.sleep(0)
        gate.set()
        found = await asyncio.gather(*tasks)
        assert [hub.user_id for hub in found] == [person.user_id for person in people]
        assert len({hub.wakes >> 32 for hub in found}) == 3, "no two hubs may be taken for one another"


async def test_whoever_saw_a_commit_early_waits_until_everybody_was_told() -> None:
    changes = Changes()
    await changes.reached(0)
    early, later = (asyncio.create_task(changes.reached(position)) for position in (3, 5))
    await asyncio.sleep(0)
    changes.publish(Commit(4))
    await asyncio.sleep(0)
    assert (early.done(), later.done()) == (True, False)
    later.cancel()
    changes.publish(Commit(6))
    await changes.reached(6)


async def test_a_busy_room_is_followed_by_sliding_without_loss(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        people = [await w.person(f"p{number}") for number in range(4)]
        room_id = await w.room(people[0], "public_chat")
        for person in people[1:]:
            await w.join(person, room_id)
        reader, total = people[0], 150
        first = await slide(w, reader, limit=100, wanted=EVERYTHING)

        async def follow() -> list[str]:
            found: list[str] = []
            pos = first["pos"]
            while len(found) < total:
                answer = await slide(w, reader, pos, limit=100, wanted=EVERYTHING, timeout=5_000)
                pos, room = answer["pos"], answer["rooms"].get(room_id)
                if room is not None:
                    assert room["limited"] is False
                    found += texts(room["timeline"])
            return found

        async def write(number: int) -> None:
            for index in range(total // 3):
                await w.say(people[number], room_id, f"{number}-{index}")
                if index % 9 == 0:
                    await w.put(reader, "org.example", {"n": index})

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            following = tasks.create_task(follow())
            for number in range(1, 4):
                tasks.create_task(write(number))
        found = following.result()
        assert len(found) == len(set(found)) == total
        for number in range(1, 4):
            assert [text for text in found if text.startswith(f"{number}-")] == [
                f"{number}-{index}" for index in range(total // 3)
            ]

"""What a sync tells one device: its messages, whose devices changed, how many of its keys are left."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from appliance.matrix.requester import Requester
from appliance.store import devices
from appliance.store.readers import Rx
from tests.sync.station import Station, station


def numbers(answer: Any) -> list[int]:
    return [message["content"]["number"] for message in answer.get("to_device", {}).get("events", [])]


def queued(rx: Rx) -> int:
    return int(rx.execute("SELECT count(*) FROM to_device").fetchone()[0])


async def test_messages_come_again_until_a_later_token_shows_that_they_arrived(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        token = await w.token(ada)
        for number in range(3):
            await w.letter(ada, number)
        first, again = await asyncio.gather(w.sync(ada, token), w.sync(ada, token))
        assert numbers(first) == numbers(again) == [0, 1, 2]
        assert await w.store.read(queued) == 3
        assert numbers(await w.sync(ada)) == [0, 1, 2], "a first sync takes nothing away"
        await w.letter(ada, 3)
        third = await w.sync(ada, first["next_batch"])
        assert numbers(third) == [3]
        assert await w.store.read(queued) == 1
        assert numbers(await w.sync(ada, third["next_batch"])) == []
        assert await w.store.read(queued) == 0


async def test_many_messages_come_in_several_answers_without_waiting(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        token = await w.token(ada)
        for number in range(250):
            await w.letter(ada, number)
        found: list[int] = []
        for size in (100, 100, 50):
            async with asyncio.timeout(5):
                answer = await w.sync(ada, token, 60_000)
            assert len(numbers(answer)) == size
            found += numbers(answer)
            token = answer["next_batch"]
            await w.say(ada, room_id, "meanwhile")
        assert found == list(range(250))


async def test_messages_belong_to_one_device(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        second = w.another_device(ada)
        await w.letter(ada, 1)
        assert numbers(await w.sync(second)) == []
        assert numbers(await w.sync(ada)) == [1]


async def upload(w: Station, who: Requester, count: int, *, fallback: bool = False) -> None:
    key = {"key": "a" * 43, "signatures": {who.user_id: {f"ed25519:{who.device_id}": "s"}}}
    once = {f"signed_curve25519:K{number}": {**key, "key": f"{number:043d}"} for number in range(count)}
    spare = {"signed_curve25519:F": {**key, "fallback": True}} if fallback else None
    await w.keys.upload(who, None, once, spare)


async def test_key_counts_are_always_said_and_always_fresh(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, "public_chat")
        await w.join(bob, room_id)
        token = await w.token(ada)

        async def counts() -> tuple[Any, Any]:
            nonlocal token
            await w.say(bob, room_id, "so that the answer may come from memory")
            answer = await w.sync(ada, token)
            token = answer["next_batch"]
            return answer["device_one_time_keys_count"], answer["device_unused_fallback_key_types"]

        assert await counts() == ({"signed_curve25519": 0}, [])
        await upload(w, ada, 2)
        assert await counts() == ({"signed_curve25519": 2}, [])
        claim: dict[str, dict[str, str]] = {ada.user_id: {ada.device_id: "signed_curve25519"}}
        await w.keys.claim(claim)
        assert await counts() == ({"signed_curve25519": 1}, [])
        await upload(w, ada, 0, fallback=True)
        assert await counts() == ({"signed_curve25519": 1}, ["signed_curve25519"])
        await w.keys.claim(claim)
        assert await counts() == ({"signed_curve25519": 0}, ["signed_curve25519"])
        await w.keys.claim(claim)
        assert await counts() == ({"signed_curve25519": 0}, [])


async def test_device_lists_tell_of_uploads_meetings_and_partings(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob, eve = await w.person("ada"), await w.person("bob"), await w.person("eve")
        room_id, second = await w.room(ada, "public_chat"), await w.room(ada, "public_chat")
        token = await w.token(ada)

        async def lists() -> tuple[set[str], set[str]]:
            nonlocal token
            answer = await w.sync(ada, token)
            token = answer["next_batch"]
            found = answer.get("device_lists", {"changed": [], "left": []})
            return set(found["changed"]), set(found["left"])

        await w.store.write(devices.list_changed, bob.user_id)
        assert await lists() == (set(), set()), "bob is a stranger"
        await w.join(bob, room_id)
        assert await lists() == ({bob.user_id}, set())
        await w.join(bob, second)
        assert await lists() == (set(), set()), "bob was met before"
        await w.store.write(devices.list_changed, bob.user_id)
        await w.store.write(devices.list_changed, eve.user_id)
        assert await lists() == ({bob.user_id}, set())
        await w.store.write(devices.list_changed, ada.user_id)
        assert await lists() == ({ada.user_id}, set())
        await w.leave(bob, room_id)
        assert await lists() == (set(), set()), "the other room is still shared"
        await w.leave(bob, second)
        assert await lists() == (set(), {bob.user_id})
        await w.leave(ada, room_id)
        await w.join(eve, room_id)
        await w.join(ada, room_id)
        assert await lists() == ({eve.user_id}, set())
        await w.leave(ada, room_id)
        assert await lists() == (set(), {eve.user_id})
        assert "device_lists" not in await w.sync(ada)

"""Long polls: they wake for what concerns them, at once, and leave nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.doors.client import sliding_sync
from appliance.doors.client import sync as sync_door
from appliance.doors.listener import Listener
from appliance.doors.web import Access, Surface
from appliance.matrix.requester import Requester
from appliance.store import devices
from appliance.sync.filters import Filters
from appliance.sync.sliding_ask import SlidingAsk
from tests.sync.station import Station, joined, station, texts, timeline

LONG = 20_000


async def poll(w: Station, who: Requester, token: str) -> asyncio.Task[Any]:
    """Begin a long poll and let it come to rest."""
    task = asyncio.create_task(w.sync(who, token, LONG))
    await w.waiting(who)
    return task


async def deed(w: Station, kind: str, ada: Requester, bob: Requester, room_id: Any) -> None:
    """Do something that concerns bob."""
    deeds: dict[str, Callable[[], Awaitable[Any]]] = {
        "message": lambda: w.say(ada, room_id, "hello"),
        "state": lambda: w.state(ada, room_id, "m.room.topic", {"topic": "t"}),
        "receipt": lambda: w.read(ada, room_id, w.marker),  # type: ignore[attr-defined]
        "invite": lambda: _invite(w, ada, bob),
        "kick": lambda: w.kick(ada, room_id, bob.user_id),
        "account data": lambda: w.put(bob, "org.example", {}),
        "to-device": lambda: w.letter(bob, 1),
        "device list": lambda: w.store.write(devices.list_changed, ada.user_id),
        "join": lambda: _join(w, room_id),
    }
    if kind == "typing":
        w.typing.set(room_id, ada.user_id, 30_000)
    else:
        await deeds[kind]()


async def _invite(w: Station, ada: Requester, bob: Requester) -> None:
    await w.invite(ada, await w.room(ada), bob)


async def _join(w: Station, room_id: Any) -> None:
    await w.join(await w.person("eve"), room_id)


@pytest.mark.parametrize(
    "kind",
    ["message", "state", "receipt", "invite", "kick", "account data", "to-device", "device list", "join", "typing"],
)
async def test_a_long_poll_wakes_at_once(tmp_path: Path, kind: str) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, "public_chat")
        await w.join(bob, room_id)
        w.marker = await w.say(ada, room_id, "read me")  # type: ignore[attr-defined]
        task = await poll(w, bob, await w.token(bob))
        begin = time.perf_counter()
        await deed(w, kind, ada, bob, room_id)
        async with asyncio.timeout(5):
            answer = await task
        assert time.perf_counter() - begin < 1, "it must not have waited for its time to be up"
        assert answer.keys() - {"next_batch", "device_one_time_keys_count", "device_unused_fallback_key_types"}


async def test_a_poll_ends_empty_when_its_time_is_up(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        token = await w.token(ada)
        begin = time.perf_counter()
        answer = await w.sync(ada, token, 120)
        assert 0.1 < time.perf_counter() - begin < 2
        assert "rooms" not in answer


async def test_news_of_others_do_not_end_a_poll(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        theirs = await w.room(ada)
        task = await poll(w, bob, await w.token(bob))
        await w.say(ada, theirs, "not for bob")
        await asyncio.sleep(0.05)
        assert not task.done()
        task.cancel()


async def test_a_client_that_hangs_up_leaves_nothing_behind(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        await w.room(ada)
        token = await w.token(ada)
        for _ in range(20):
            task = await poll(w, ada, token)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        hub = await w.hubs.of(ada.user_id)
        assert (hub.waiting, hub.active) == (0, 0)


async def test_two_devices_and_two_polls_of_one_device_all_wake(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, "public_chat")
        await w.join(bob, room_id)
        token = await w.token(bob)
        second = w.another_device(bob)
        tasks = [asyncio.create_task(w.sync(who, token, LONG)) for who in (bob, bob, second)]
        await w.waiting(bob, 3)
        await w.say(ada, room_id, "hello")
        async with asyncio.timeout(5):
            answers = await asyncio.gather(*tasks)
        assert [texts(timeline(answer, room_id)) for answer in answers] == [["hello"]] * 3


async def test_a_busy_room_is_followed_without_loss(tmp_path: Path) -> None:
    """Readers poll while writers write at full speed: what memory and what the store answers must join seamlessly."""
    async with station(tmp_path) as w:
        people = [await w.person(f"p{number}") for number in range(6)]
        room_id = await w.room(people[0], "public_chat")
        for person in people[1:]:
            await w.join(person, room_id)
        tokens = [await w.token(person) for person in people[:3]]
        total = 200

        async def follow(who: Requester, token: str) -> list[str]:
            found: list[str] = []
            while len(found) < total:
                answer = await w.sync(who, token, 5_000, filter={"room": {"timeline": {"limit": 500}}})
                assert not joined(answer, room_id).get("timeline", {}).get("limited")
                found += [event["event_id"] for event in timeline(answer, room_id) if "body" in event["content"]]
                token = answer["next_batch"]
            return found

        async def write(who: Requester) -> list[str]:
            sent: list[str] = []
            for number in range(total // 4):
                sent.append(await w.say(who, room_id, str(number)))
                if number % 7 == 0:
                    await w.put(people[0], "org.example", {"n": number})
            return sent

        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            readers = [tasks.create_task(follow(who, token)) for who, token in zip(people, tokens, strict=False)]
            writers = [tasks.create_task(write(who)) for who in people[2:]]
        sent = {event_id for task in writers for event_id in task.result()}
        for reader in readers:
            assert len(reader.result()) == total
            assert set(reader.result()) == sent


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_is_lost_ends_its_poll(tmp_path: Path, method: str) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        await w.room(ada)

        async def authenticate(token: str, access: Access) -> Requester:
            return ada

        filters = Filters(w.store)
        routes = [*sync_door.routes(w.syncs, filters), *sliding_sync.routes(w.sliding)]
        app = Surface(authenticate, lambda kind, key: None).application(routes)
        async with Listener(app, w.hubs.release) as listener:
            host, port = await listener.start("127.0.0.1", 0, None)
            path = f"{sync_door.CLIENT}/sync?timeout=60000&set_presence=offline&since={await w.token(ada)}"
            if method == "POST":
                asked = SlidingAsk(ada, presence="offline")
                path = f"{sliding_sync.PATH}?timeout=60000&pos={(await w.sliding.answer(asked))['pos']}"
            _, writer = await asyncio.open_connection(host, port)
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 0\r\n\r\n"
            writer.write(head.encode())
            await w.waiting(ada)
            writer.close()
            hub = await w.hubs.of(ada.user_id)
            async with asyncio.timeout(5):
                while hub.waiting or hub.active:  # noqa: ASYNC110 - the very thing to be seen is that it ends
                    await asyncio.sleep(0)

"""Messages between two real servers: written by an author, sent, taken in and seen, over a line that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import aiohttp
from aiohttp import web
from yarl import URL

from appliance.doors.federation import send as send_door
from appliance.doors.federation.entry import Entry
from appliance.federation.client import Client
from appliance.federation.requests import Credentials, authorization
from appliance.federation.traffic import Ground, Traffic
from appliance.matrix import canonical
from appliance.matrix.ids import RoomId, ServerName
from appliance.rooms.author import Author
from appliance.rooms.typing import Typing
from appliance.store import outbox
from tests.federation.pair import publish
from tests.federation.post import Clock, Post, until
from tests.world.federation import RemoteWard, town

Wards = tuple[RemoteWard, RemoteWard]


class Wire:
    """What one server's client can do here: send."""

    def __init__(self, own: ServerName, post: Post) -> None:
        self.own, self.post = own, post

    async def send(
        self, peer: ServerName, txn_id: str, ts: int, pdus: Sequence[Mapping[str, Any]],
        edus: Sequence[Mapping[str, Any]] = (),
    ) -> object:
        return await self.post.send(peer, txn_id, ts, pdus, edus)

    async def devices(self, peer: ServerName, user: str, /) -> Any:
        raise AssertionError("nobody asks for devices here")


def traffic(ward: RemoteWard, post: Post, clock: Clock, own: ServerName) -> Traffic:
    client = cast(Client, Wire(own, post))
    ground = Ground(ward.store, ward.server, client, clock, lambda: 0.5)
    return Traffic(ground, ward.receiver.receive_all, Typing(1), None)


@asynccontextmanager
async def neighbours(folder: Path, post: Post, clock: Clock) -> AsyncIterator[tuple[Wards, list[Traffic]]]:
    async with town(folder, "a", "b") as wards, AsyncExitStack() as stack:
        made = [traffic(ward, post, clock, ward.server) for ward in wards]
        for index, ward in enumerate(wards):
            ward.author = Author(
                ward.store, ward.heads, ward.ledger, ward.key, ward.server, ward.clock, lambda event, state: None,
                federates=True,
            )  # fmt: skip
            other = wards[1 - index].server

            async def accept(
                txn: str, content: Mapping[str, Any], to: Traffic = made[index], origin: ServerName = other
            ) -> object:
                return await to.inbound.accept(origin, txn, {**content, "origin": origin})

            post.at[ward.server] = accept
            task = asyncio.create_task(made[index].run())

            async def stop(task: asyncio.Task[None] = task) -> None:
                task.cancel()
                await asyncio.wait([task])

            stack.push_async_callback(stop)
        yield (wards[0], wards[1]), made


def bodies(ward: RemoteWard, found: Sequence[Any]) -> list[str]:
    return [event.content["body"] for event in found if event.type == "m.room.message"]


async def said(ward: RemoteWard, room_id: RoomId) -> list[str]:
    return bodies(ward, await ward.timeline(room_id))


async def test_everything_said_on_either_side_is_seen_once_on_both(tmp_path: Path) -> None:
    post, clock = Post(), Clock()
    async with neighbours(tmp_path, post, clock) as ((a, b), parts):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, preset="public_chat")
        await b.enter(ben, a, room_id)
        for number in range(60):
            await a.say(ada, room_id, f"a{number}")
            if number == 20:
                post.down.update({a.server, b.server})
            if number == 40:
                post.down.clear()
                clock.now += 10_000
                for part in parts:
                    part.outbound.nudge()
            if number % 3 == 0:
                await b.say(ben, room_id, f"b{number}")
        expected = {f"a{n}" for n in range(60)} | {f"b{n}" for n in range(0, 60, 3)}
        await until(lambda: all(part.outbound.idle() for part in parts) and not parts[0].outbound.troubles())
        clock.now += 10_000
        parts[1].heard(a.server)
        parts[1].outbound.nudge()
        for ward in (a, b):
            async with asyncio.timeout(10):
                while len(await said(ward, room_id)) < len(expected):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        for ward in (a, b):
            line = await said(ward, room_id)
            assert set(line) == expected and len(line) == len(expected)
            assert [body for body in line if body[0] == "a"] == [f"a{n}" for n in range(60)]
            assert [body for body in line if body[0] == "b"] == [f"b{n}" for n in range(0, 60, 3)]
        await until(lambda: all(part.outbound.idle() for part in parts))
        assert await a.store.read(outbox.owed, b.server) == await b.store.read(outbox.owed, a.server) == 0
        assert await a.state(room_id) == await b.state(room_id)


async def test_who_joins_through_another_server_shows_their_devices_there(tmp_path: Path) -> None:
    post, clock = Post(), Clock()
    async with neighbours(tmp_path, post, clock) as ((a, b), _):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, preset="public_chat")
        await b.store.write(publish, ben.user_id, "PHONE", "k")
        assert post.sent == []
        await b.enter(ben, a, room_id)
        await until(lambda: any(edu["edu_type"] == "m.device_list_update" for one in post.sent for edu in one.edus))
        assert post.sent[-1].edus[0]["content"]["device_id"] == "PHONE" and post.sent[-1].peer == a.server


async def test_a_burst_goes_out_in_full_transactions_and_arrives_in_order(tmp_path: Path) -> None:
    post, clock = Post(), Clock()
    async with neighbours(tmp_path, post, clock) as ((a, b), parts):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, preset="public_chat")
        await b.enter(ben, a, room_id)
        await until(parts[0].outbound.idle)
        before = len(post.sent)
        post.open.clear()
        await asyncio.gather(*(a.say(ada, room_id, f"{number}") for number in range(200)))
        post.open.set()
        await until(lambda: len(b.seen) >= 200 and parts[0].outbound.idle())
        assert await said(b, room_id) == await said(a, room_id)
        assert max(len(letter.pdus) for letter in post.sent) == 50 and len(post.sent) - before <= 6
        assert all("event_id" not in pdu and "unsigned" not in pdu for letter in post.sent for pdu in letter.pdus)


async def test_the_door_takes_transactions_from_proved_peers(tmp_path: Path) -> None:
    post, clock = Post(), Clock()
    async with neighbours(tmp_path, post, clock) as ((a, b), parts):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, preset="public_chat")
        await b.enter(ben, a, room_id)
        await until(parts[0].outbound.idle)
        event = await a.make(a, room_id, ada.user_id, "m.room.message", {"body": "by hand", "msgtype": "m.text"})

        async def authenticate(claim: Credentials, method: str, target: str, content: bytes | None) -> None:
            """Believe everybody: signatures have tests of their own."""

        heard: list[str] = []
        app = web.Application(client_max_size=2**40)
        entry = Entry(b.server, authenticate, lambda peer, path: None, heard.append)
        entry.serve(app, send_door.routes(parts[1].inbound))
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        try:
            async with aiohttp.ClientSession() as session:
                target = "/_matrix/federation/v1/send/t%2F1"
                for content, status in (({"pdus": [event.pdu]}, 200), ({"pdus": [event.pdu]}, 200), ({"pdus": 1}, 200)):
                    raw = canonical.encode({"origin": a.server, "origin_server_ts": 1, **content})
                    headers = {"Authorization": authorization(a.key, a.server, b.server, "PUT", target, raw)}
                    url = URL(f"http://{host}:{port}{target}", encoded=True)
                    async with session.put(url, data=raw, headers=headers) as answer:
                        assert answer.status == status
                        assert await answer.json() == {"pdus": {event.event_id: {}}}  # the id was answered before
                headers = {"Authorization": authorization(a.key, a.server, b.server, "PUT", target + "x", b"{}")}
                url = URL(f"http://{host}:{port}{target}x", encoded=True)
                async with session.put(url, data=b'{"pdus": 1}', headers=headers) as answer:
                    assert answer.status == 400 and (await answer.json())["errcode"] == "M_BAD_JSON"
        finally:
            await runner.cleanup()
        assert heard == [a.server] * 4 and (await said(b, room_id))[-1] == "by hand"

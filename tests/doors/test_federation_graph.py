"""What a peer in a room may read of its graph, over HTTP: answers as published, and nothing for strangers."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from appliance.doors.federation import events
from appliance.doors.federation.entry import PeerRoute
from appliance.matrix import event as matrix_event
from appliance.matrix import versions
from appliance.rooms import leave, send
from appliance.store import graph
from tests.doors.federation_site import V1, serving
from tests.world.federation import Meeting, RemoteWard, meeting, town


def routes(ward: RemoteWard) -> list[PeerRoute]:
    return events.routes(ward.store, ward.server, ward.clock)


def ids_of(pdus: list[dict[str, Any]], version: str = "11") -> list[str]:
    return [matrix_event.event_id_of(pdu, versions.get(version)) for pdu in pdus]


async def say(ward: RemoteWard, m: Meeting, count: int) -> list[str]:
    return [await ward.say(m.people[0], m.room_id, f"{n}") for n in range(count)]


async def test_events_and_the_past(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        said = await say(a, m, 8)
        room = quote(m.room_id, safe="")
        async with serving(a, routes(a)) as site:
            status, found = await site.ask(b, "GET", f"{V1}/event/{quote(said[0])}")
            assert status == 200 and ids_of(found["pdus"]) == [said[0]] and found["origin"] == a.server
            status, found = await site.ask(b, "GET", f"{V1}/backfill/{room}?v={quote(said[5])}&limit=4")
            assert status == 200 and ids_of(found["pdus"]) == [said[5], said[4], said[3], said[2]]
            wanted = {"earliest_events": [said[1]], "latest_events": [said[7]], "limit": 20}
            status, found = await site.ask(b, "POST", f"{V1}/get_missing_events/{room}", wanted)
            assert status == 200 and ids_of(found["events"]) == said[2:7]
            status, found = await site.ask(b, "POST", f"{V1}/get_missing_events/{room}", {**wanted, "limit": 2})
            assert ids_of(found["events"]) == said[5:7]
            deep = (await a.heads.get(m.room_id)).tips[0][1]  # type: ignore[union-attr]
            status, found = await site.ask(
                b, "POST", f"{V1}/get_missing_events/{room}", {**wanted, "min_depth": deep - 3}
            )
            assert ids_of(found["events"]) == said[4:7]


async def test_the_whole_past_down_to_the_create_event(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        said = await say(a, m, 3)
        async with serving(a, routes(a)) as site:
            target = f"{V1}/backfill/{quote(m.room_id, safe='')}?v={quote(said[-1])}&limit=1000"
            status, found = await site.ask(b, "GET", target)
            assert status == 200 and found["pdus"][-1]["type"] == "m.room.create"
            assert len(found["pdus"]) == len(await a.timeline(m.room_id))


@pytest.mark.parametrize("version", ["9", "12"])
async def test_the_state_before_an_event(tmp_path: Path, version: str) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b], version)
        before = set((await a.state(m.room_id)).values())
        topic = await send.state(a.author, m.people[0], m.room_id, "m.room.topic", "", {"topic": "x"})
        room = quote(m.room_id, safe="")
        async with serving(a, routes(a)) as site:
            status, found = await site.ask(b, "GET", f"{V1}/state_ids/{room}?event_id={quote(topic)}")
            assert status == 200 and set(found["pdu_ids"]) == before
            chain = set(await a.store.read(graph.auth_chain, sorted(before)))
            assert set(found["auth_chain_ids"]) == chain and chain
            status, found = await site.ask(b, "GET", f"{V1}/state/{room}?event_id={quote(topic)}")
            assert status == 200 and set(ids_of(found["pdus"], version)) == before
            assert set(ids_of(found["auth_chain"], version)) == chain
            status, found = await site.ask(b, "GET", f"{V1}/event_auth/{room}/{quote(topic)}")
            assert status == 200
            assert set(ids_of(found["auth_chain"], version)) == set(await a.store.read(graph.auth_chain, [topic]))


async def test_nothing_for_servers_that_are_not_in_the_room(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b])
        said = await say(a, m, 1)
        room, event = quote(m.room_id, safe=""), quote(said[0])
        questions = [
            ("GET", f"{V1}/event/{event}", None), ("GET", f"{V1}/backfill/{room}?v={event}&limit=5", None),
            ("GET", f"{V1}/state/{room}?event_id={event}", None), ("GET", f"{V1}/event_auth/{room}/{event}", None),
            ("GET", f"{V1}/state_ids/{room}?event_id={event}", None),
            ("POST", f"{V1}/get_missing_events/{room}", {"earliest_events": [], "latest_events": [said[0]]}),
        ]  # fmt: skip
        async with serving(a, routes(a)) as site:
            for method, target, body in questions:
                assert (await site.ask(c, method, target, body))[0] == 403, target
                assert (await site.ask(b, method, target, body))[0] == 200, target
            acl = {"allow": ["*"], "deny": ["b.*"]}
            await send.state(a.author, m.people[0], m.room_id, "m.room.server_acl", "", acl)
            for method, target, body in questions:
                assert (await site.ask(b, method, target, body))[0] == 403, target
            await send.state(a.author, m.people[0], m.room_id, "m.room.server_acl", "", {"allow": ["*"]})
            assert (await site.ask(b, *questions[0]))[0] == 200
            await leave.kick(a.author, m.people[0], m.room_id, m.people[1].user_id, None)
            assert (await site.ask(b, *questions[0]))[0] == 403


async def test_words_from_before_they_came_stay_here(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b])
        rule = {"history_visibility": "joined"}
        await send.state(a.author, m.people[0], m.room_id, "m.room.history_visibility", "", rule)
        said = await say(a, m, 1)
        await m.settle()
        person = await c.person("late")
        await c.enter(person, a, m.room_id)
        later = await a.say(m.people[0], m.room_id, "hello")
        async with serving(a, routes(a)) as site:
            contents = [
                (await site.ask(ward, "GET", f"{V1}/event/{quote(event)}"))[1]["pdus"][0]["content"]
                for ward in (b, c) for event in (said[0], later)
            ]
            assert [content.get("body") for content in contents] == ["0", "hello", None, "hello"]
            target = f"{V1}/backfill/{quote(m.room_id, safe='')}?v={quote(later)}&limit=100"
            pdus = (await site.ask(c, "GET", target))[1]["pdus"]
            assert said[0] in ids_of(pdus)  # the graph stays whole
            assert [pdu["content"] for pdu in pdus if pdu["type"] == "m.room.message"] == [contents[3], {}]


async def test_the_event_nearest_to_a_moment(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b])
        said = await say(a, m, 3)
        moment = (await a.timeline(m.room_id))[-2].origin_server_ts
        where = f"{V1}/timestamp_to_event/{quote(m.room_id, safe='')}"
        async with serving(a, routes(a)) as site:
            status, found = await site.ask(b, "GET", f"{where}?ts={moment}&dir=f")
            assert (status, found) == (200, {"event_id": said[1], "origin_server_ts": moment})
            status, found = await site.ask(b, "GET", f"{where}?ts={moment - 1}&dir=b")
            assert status == 200 and found["event_id"] == said[0]
            assert (await site.ask(b, "GET", f"{where}?ts={moment + 10**9}&dir=f"))[0] == 404
            assert (await site.ask(b, "GET", f"{where}?ts=x&dir=f"))[0] == 400
            assert (await site.ask(b, "GET", f"{where}?dir=f"))[0] == 400
            assert (await site.ask(c, "GET", f"{where}?ts={moment}&dir=f"))[0] == 403


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/event/nonsense", 400), ("GET", "/event/$unknown", 404), ("GET", "/backfill/{room}", 400),
        ("GET", "/backfill/{room}?v=x", 400), ("GET", "/backfill/{room}?v=$x&limit=0", 400),
        ("GET", "/backfill/nonsense?v=$x", 400), ("GET", "/backfill/!unknown:a.example?v=$x", 404),
        ("GET", "/backfill/{room}?limit=5&" + "&".join(f"v=$e{n}" for n in range(101)), 400),
        ("GET", "/backfill/{room}?v=$x", 200), ("GET", "/state/{room}", 400), ("GET", "/state_ids/{room}", 400),
        ("GET", "/state/{room}?event_id=$x", 404), ("GET", "/state_ids/{room}?event_id=x", 400),
        ("GET", "/event_auth/{room}/$x", 404), ("POST", "/get_missing_events/{room}", 400),
    ],
)  # fmt: skip
async def test_bad_questions(tmp_path: Path, method: str, target: str, status: int) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        body = {"earliest_events": "x", "latest_events": []} if method == "POST" else None
        async with serving(a, routes(a)) as site:
            where = V1 + target.replace("{room}", quote(m.room_id, safe=""))
            got, answer = await site.ask(b, method, where, body)
            assert got == status and (got == 200 or answer["errcode"].startswith("M_"))

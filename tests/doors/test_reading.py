"""The reading side over HTTP: routes, answers as published, and what becomes of bad requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from yarl import URL

from appliance.doors.client import (
    directory,
    receipts,
    relations,
    reports,
    search,
    spaces,
    state_reading,
    timeline,
    user_directory,
)
from appliance.doors.web import Access, Surface
from appliance.matrix.errors import UnknownToken
from appliance.matrix.ids import EventId, RoomId
from appliance.matrix.requester import Requester
from appliance.rooms import leave, send
from appliance.rooms.search import Search
from appliance.rooms.typing import Typing
from appliance.store import accounts
from tests.conformance.openapi import Specification
from tests.conftest import SPEC_DATA
from tests.rooms.reading import put_state, relate
from tests.world.rooms import SERVER, Ward, ward

V3, V1 = "/_matrix/client/v3", "/_matrix/client/v1"
ALIAS = f"#ward/1:{SERVER}"


@dataclass
class Site:
    """A served ward with two people (ada in the room, ben outside) and some history."""

    w: Ward
    http: ClientSession
    server: TestServer
    people: dict[str, Requester]
    typing: Typing
    room_id: RoomId
    root: EventId
    child: EventId

    async def call(self, who: str | None, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        url = URL(f"http://{self.server.host}:{self.server.port}{path}", encoded=True)
        headers = {"Authorization": f"Bearer {who}"} if who else {}
        data = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.http.request(method, url, headers=headers, **data) as answer:
            return answer.status, await answer.json()

    def room(self, path: str, base: str = V3) -> str:
        """Return a path below the room, with names in braces filled in."""
        filled = path.format(root=quote(self.root), child=quote(self.child))
        return f"{base}/rooms/{quote(self.room_id, safe='')}{filled}"


@asynccontextmanager
async def site(tmp_path: Path, anonymous: bool = True, public_rooms: bool = True) -> AsyncIterator[Site]:
    async with ward(tmp_path) as w:
        people = {name: await w.person(name, name.title()) for name in ("ada", "ben")}
        for person in people.values():
            await w.store.write(accounts.insert, person.user_id, None, False, 1)

        async def authenticate(token: str, access: Access) -> Requester:
            if token not in people:
                raise UnknownToken()
            return people[token]

        ada = people["ada"]
        room_id = await w.room(ada, "public_chat", name="Station", topic="Nights", public=True)
        root = await w.say(ada, room_id, "root")
        child = await relate(w, ada, room_id, root, "m.thread", "child")
        typing = Typing(1)
        store, clock = w.store, w.clock
        routes = [
            *timeline.routes(store, clock), *state_reading.routes(store, clock), *relations.routes(store, clock),
            *spaces.routes(store, anonymous=anonymous), *search.routes(Search(store), clock),
            *directory.routes(store, SERVER, public_rooms, clock, anonymous=anonymous),
            *user_directory.routes(store, SERVER), *receipts.routes(store, typing, clock),
            *reports.routes(store, clock),
        ]  # fmt: skip
        server = TestServer(Surface(authenticate, lambda kind, key: None).application(routes))
        await server.start_server()
        async with ClientSession() as http:
            yield Site(w, http, server, people, typing, room_id, root, child)
        await server.close()


@pytest.fixture(scope="module")
def specification() -> Specification | None:
    return Specification(SPEC_DATA) if SPEC_DATA.is_dir() else None


GOOD: list[tuple[str, str, str, Any]] = [
    ("GET", V3, "/messages?dir=b&limit=5", None),
    ("GET", V3, "/messages?dir=f&from=t0&filter=%7B%22lazy_load_members%22:true%7D", None),
    ("GET", V3, "/messages?dir=b&from=s99_1", None),
    ("GET", V3, "/context/{root}?limit=4", None),
    ("GET", V3, "/event/{child}", None),
    ("GET", V1, "/timestamp_to_event?ts=1&dir=f", None),
    ("GET", V3, "/state", None),
    ("GET", V3, "/state/m.room.name", None),
    ("GET", V3, "/state/m.room.name/", None),
    ("GET", V3, "/state/m.room.member/%40ada:test.example?format=event", None),
    ("GET", V3, "/members?membership=join&not_membership=leave&at=t5", None),
    ("GET", V3, "/joined_members", None),
    ("GET", V3, "/aliases", None),
    ("GET", V1, "/relations/{root}?dir=f&recurse=true", None),
    ("GET", V1, "/relations/{root}/m.thread?limit=1", None),
    ("GET", V1, "/relations/{root}/m.thread/m.room.message", None),
    ("GET", V1, "/threads?include=participated&limit=3", None),
    ("GET", V1, "/hierarchy?limit=2&max_depth=3&suggested_only=true", None),
    ("POST", V3, "/receipt/m.read/{child}", {}),
    ("POST", V3, "/receipt/m.read.private/{root}", {"thread_id": "main"}),
    ("POST", V3, "/receipt/m.fully_read/{root}", {}),
    ("POST", V3, "/receipt/m.read/{child}", b""),
    ("POST", V3, "/read_markers", {"m.fully_read": None, "m.read": None}),
    ("PUT", V3, "/typing/%40ada:test.example", {"typing": True, "timeout": 1000}),
    ("PUT", V3, "/typing/%40ada:test.example", {"typing": False}),
    ("POST", V3, "/report", {"reason": ""}),
    ("POST", V3, "/report/{root}", {"reason": "rude", "score": -100}),
]


async def test_every_room_operation_answers_as_published(tmp_path: Path, specification: Specification | None) -> None:
    async with site(tmp_path) as s:
        for method, base, path, body in GOOD:
            status, answer = await s.call("ada", method, s.room(path, base), body)
            assert status == 200, (path, answer)
            _check(specification, method, s.room(path, base), answer)


def _check(specification: Specification | None, method: str, path: str, answer: Any) -> None:
    if "format=event" in path:
        return  # published as "either any object or a state event", and every state event is both
    if specification is not None and (found := specification.find(method, path.partition("?")[0])) is not None:
        faults = specification.answer_faults(found[1], 200, "application/json", answer)
        assert not faults, (path, faults)


async def test_operations_outside_of_rooms_answer_as_published(
    tmp_path: Path, specification: Specification | None
) -> None:
    async with site(tmp_path) as s:
        alias = f"{V3}/directory/room/{quote(ALIAS, safe='')}"
        listed = f"{V3}/directory/list/room/{quote(s.room_id, safe='')}"
        criteria = {
            "search_term": "root", "order_by": "recent", "event_context": {"include_profile": True},
            "include_state": True, "groupings": {"group_by": [{"key": "room_id"}]}, "keys": ["content.body"],
        }  # fmt: skip
        calls: list[tuple[str | None, str, str, Any]] = [
            ("ada", "GET", V3 + "/joined_rooms", None),
            ("ada", "PUT", alias, {"room_id": s.room_id}),
            (None, "GET", alias, None),
            ("ada", "DELETE", alias, None),
            (None, "GET", listed, None),
            ("ada", "PUT", listed, {"visibility": "public"}),
            ("ada", "PUT", listed, b""),
            (None, "GET", V3 + "/publicRooms?limit=1", None),
            ("ben", "POST", V3 + "/publicRooms", {"filter": {"generic_search_term": "station", "room_types": [None]}}),
            ("ben", "POST", V3 + "/publicRooms?server=test.example", {}),
            ("ben", "POST", V3 + "/user_directory/search", {"search_term": "ada", "limit": 5}),
            ("ada", "POST", V3 + "/search", {"search_categories": {"room_events": criteria}}),
            ("ada", "POST", V3 + "/search", {"search_categories": {}}),
            ("ben", "POST", f"{V3}/users/{quote('@ada:test.example')}/report", {"reason": "x"}),
            (None, "GET", f"{V1}/room_summary/{quote(s.room_id, safe='')}?via=x.example", None),
            ("ben", "GET", f"/_matrix/client/unstable/im.nheko.summary/summary/{quote(s.room_id)}", None),
            ("ben", "GET", f"/_matrix/client/unstable/im.nheko.summary/rooms/{quote(s.room_id)}/summary", None),
        ]
        answers = []
        for who, method, path, body in calls:
            status, answer = await s.call(who, method, path, body)
            assert status == 200, (path, answer)
            _check(specification, method, path, answer)
            answers.append(answer)
        assert answers[0] == {"joined_rooms": [s.room_id]}
        assert answers[2] == {"room_id": s.room_id, "servers": [SERVER]}
        assert [entry["name"] for entry in answers[8]["chunk"]] == ["Station"]
        assert answers[10] == {"limited": False, "results": [{"user_id": "@ada:test.example", "display_name": "Ada"}]}
        found = answers[11]["search_categories"]["room_events"]
        assert [result["result"]["event_id"] for result in found["results"]] == [s.root]


BAD: list[tuple[str | None, str, str, str, Any, str]] = [
    (None, "GET", V3, "/messages?dir=b", None, "401 M_MISSING_TOKEN"),
    ("eve", "GET", V3, "/messages?dir=b", None, "401 M_UNKNOWN_TOKEN"),
    ("ben", "GET", V3, "/messages?dir=b", None, "403 M_FORBIDDEN"),
    ("ada", "GET", V3, "/messages", None, "400 M_MISSING_PARAM"),
    ("ada", "GET", V3, "/messages?dir=x", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V3, "/messages?dir=b&limit=-1", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V3, "/messages?dir=b&limit=1e3", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V3, "/messages?dir=b&from=t99999999999999999999", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V3, "/messages?dir=b&from=nonsense", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V3, "/messages?dir=b&filter=%7B", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V3, "/messages?dir=b&filter=%7B%22types%22:%5B1%5D%7D", None, "400 M_INVALID_PARAM"),
    ("ben", "GET", V3, "/context/{root}", None, "403 M_FORBIDDEN"),
    ("ada", "GET", V3, "/context/$nothing", None, "404 M_NOT_FOUND"),
    ("ada", "GET", V3, "/context/nothing", None, "400 M_INVALID_PARAM"),
    ("ben", "GET", V3, "/event/{root}", None, "404 M_NOT_FOUND"),
    ("ada", "GET", V1, "/timestamp_to_event?dir=f", None, "400 M_MISSING_PARAM"),
    ("ada", "GET", V1, "/timestamp_to_event?dir=f&ts=9007199254740991", None, "404 M_NOT_FOUND"),
    ("ben", "GET", V1, "/timestamp_to_event?dir=f&ts=1", None, "403 M_FORBIDDEN"),
    ("ben", "GET", V3, "/state", None, "403 M_FORBIDDEN"),
    ("ben", "GET", V3, "/state/m.room.name", None, "403 M_FORBIDDEN"),
    ("ada", "GET", V3, "/state/m.room.nothing/", None, "404 M_NOT_FOUND"),
    ("ada", "GET", V3, "/state/m.room.name?format=x", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V3, "/members?membership=x", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V3, "/members?at=x", None, "400 M_INVALID_PARAM"),
    ("ben", "GET", V3, "/joined_members", None, "403 M_FORBIDDEN"),
    ("ben", "GET", V3, "/aliases", None, "403 M_FORBIDDEN"),
    ("ada", "GET", V1, "/relations/$nothing", None, "404 M_NOT_FOUND"),
    ("ada", "GET", V1, "/relations/{root}?limit=0", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V1, "/relations/{root}?recurse=yes", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V1, "/threads?include=x", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V1, "/threads?limit=0", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V1, "/threads?from=x", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V1, "/hierarchy?limit=0", None, "400 M_INVALID_PARAM"),
    ("ada", "GET", V1, "/hierarchy?from=x", None, "400 M_INVALID_PARAM"),
    ("ada", "POST", V3, "/receipt/m.other/{root}", {}, "400 M_INVALID_PARAM"),
    ("ada", "POST", V3, "/receipt/m.read/$nothing", {}, "400 M_INVALID_PARAM"),
    ("ada", "POST", V3, "/receipt/m.read/{root}", {"thread_id": 3}, "400 M_INVALID_PARAM"),
    ("ada", "POST", V3, "/receipt/m.read/{root}", {"thread_id": None}, "400 M_INVALID_PARAM"),
    ("ada", "POST", V3, "/receipt/m.read/{root}", {"thread_id": ""}, "400 M_INVALID_PARAM"),
    ("ada", "POST", V3, "/receipt/m.read/{child}", {"thread_id": "main"}, "400 M_INVALID_PARAM"),
    ("ada", "POST", V3, "/receipt/m.fully_read/{root}", {"thread_id": "main"}, "400 M_INVALID_PARAM"),
    ("ben", "POST", V3, "/receipt/m.read/{root}", {}, "403 M_FORBIDDEN"),
    ("ada", "POST", V3, "/receipt/m.read/{root}", b"{", "400 M_NOT_JSON"),
    ("ada", "POST", V3, "/read_markers", {"m.read": 3}, "400 M_BAD_JSON"),
    ("ada", "POST", V3, "/read_markers", [], "400 M_BAD_JSON"),
    ("ada", "PUT", V3, "/typing/%40ben:test.example", {"typing": True}, "403 M_FORBIDDEN"),
    ("ben", "PUT", V3, "/typing/%40ben:test.example", {"typing": True}, "403 M_FORBIDDEN"),
    ("ada", "PUT", V3, "/typing/%40ada:test.example", {}, "400 M_MISSING_PARAM"),
    ("ada", "PUT", V3, "/typing/%40ada:test.example", {"typing": True, "timeout": "x"}, "400 M_BAD_JSON"),
    ("ada", "POST", V3, "/report", {}, "400 M_MISSING_PARAM"),
    ("ada", "POST", V3, "/report", {"reason": "x" * 3000}, "400 M_INVALID_PARAM"),
    ("ben", "POST", V3, "/report/{root}", {"reason": "x"}, "404 M_NOT_FOUND"),
]


async def test_bad_requests_get_the_fields_own_words(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        for who, method, base, path, body, expected in BAD:
            status, answer = await s.call(who, method, s.room(path, base), body)
            assert f"{status} {answer.get('errcode')}" == expected, (path, answer)


async def test_rooms_that_do_not_exist_look_like_those_of_others(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        secret = await s.w.room(s.people["ada"])
        for path in ("/messages?dir=b", "/state", "/members", "/joined_members", "/aliases", "/context/$x"):
            answers = [
                await s.call("ben", "GET", f"{V3}/rooms/{quote(room)}{path}") for room in (secret, f"!nothing:{SERVER}")
            ]
            assert answers[0] == answers[1] and answers[0][0] == 403
        for room in (secret, f"!nothing:{SERVER}"):
            assert (await s.call("ben", "GET", f"{V1}/room_summary/{quote(room)}"))[0] == 404
            assert (await s.call("ben", "GET", f"{V1}/rooms/{quote(room)}/hierarchy"))[0] == 403


def _search(**criteria: Any) -> dict[str, Any]:
    return {"search_categories": {"room_events": {"search_term": "x", **criteria}}}


BAD_OUTSIDE: list[tuple[str, str, Any, str]] = [
    ("GET", f"/directory/room/{quote('#nothing:test.example')}", None, "404 M_NOT_FOUND"),
    ("GET", "/directory/room/nothing", None, "400 M_INVALID_PARAM"),
    ("PUT", f"/directory/room/{quote('#x:other.example')}", {"room_id": "!x:y"}, "400 M_INVALID_PARAM"),
    ("PUT", f"/directory/room/{quote('#x:test.example')}", {}, "400 M_MISSING_PARAM"),
    ("PUT", f"/directory/room/{quote('#x:test.example')}", {"room_id": 3}, "400 M_BAD_JSON"),
    ("PUT", f"/directory/room/{quote('#x:test.example')}", {"room_id": "!x:y"}, "403 M_FORBIDDEN"),
    ("DELETE", f"/directory/room/{quote('#x:test.example')}", None, "404 M_NOT_FOUND"),
    ("GET", "/directory/list/room/!nothing:test.example", None, "404 M_NOT_FOUND"),
    ("PUT", "/directory/list/room/!nothing:test.example", {"visibility": "x"}, "400 M_INVALID_PARAM"),
    ("GET", "/publicRooms?since=x", None, "400 M_INVALID_PARAM"),
    ("GET", "/publicRooms?server=other.example", None, "404 M_NOT_FOUND"),
    ("POST", "/publicRooms", {"filter": {"room_types": [3]}}, "400 M_BAD_JSON"),
    ("POST", "/publicRooms", {"limit": "many"}, "400 M_BAD_JSON"),
    ("POST", "/user_directory/search", {}, "400 M_MISSING_PARAM"),
    ("POST", "/user_directory/search", {"search_term": "x" * 300}, "400 M_INVALID_PARAM"),
    ("POST", "/search", {}, "400 M_MISSING_PARAM"),
    ("POST", "/search", {"search_categories": {"room_events": {}}}, "400 M_MISSING_PARAM"),
    ("POST", "/search", {"search_categories": {"room_events": {"search_term": 3}}}, "400 M_BAD_JSON"),
    ("POST", "/search", _search(keys=["y"]), "400 M_INVALID_PARAM"),
    ("POST", "/search", _search(order_by="x"), "400 M_INVALID_PARAM"),
    ("POST", "/search", _search(groupings={"group_by": [{"key": "x"}]}), "400 M_INVALID_PARAM"),
    ("POST", "/search", _search(event_context=3), "400 M_BAD_JSON"),
    ("POST", "/search?next_batch=x", _search(), "400 M_INVALID_PARAM"),
]


async def test_bad_requests_outside_of_rooms(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        for method, path, body, expected in BAD_OUTSIDE:
            status, answer = await s.call("ada", method, V3 + path, body)
            assert f"{status} {answer.get('errcode')}" == expected, (path, answer)


async def test_a_closed_house_shows_its_directory_to_its_own_people_only(tmp_path: Path) -> None:
    async with site(tmp_path, anonymous=False, public_rooms=False) as s:
        summary = f"{V1}/room_summary/{quote(s.room_id, safe='')}"
        assert [(await s.call(None, "GET", path))[0] for path in (V3 + "/publicRooms", summary)] == [401, 401]
        assert [(await s.call("ben", "GET", path))[0] for path in (V3 + "/publicRooms", summary)] == [200, 200]
        listed = f"{V3}/directory/list/room/{quote(s.room_id, safe='')}"
        status, answer = await s.call("ada", "PUT", listed, {"visibility": "public"})
        assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        assert (await s.call("ada", "PUT", listed, {"visibility": "private"}))[0] == 200


async def test_typing_and_leaving(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        path = s.room("/typing/%40ada:test.example")
        await s.call("ada", "PUT", path, {"typing": True})
        assert s.typing.users(s.room_id) == ["@ada:test.example"]
        await s.call("ada", "PUT", path, {"typing": False})
        assert s.typing.users(s.room_id) == []


async def test_state_keys_may_hold_slashes_and_nothing(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        ada = s.people["ada"]
        await put_state(s.w, ada, s.room_id, "custom", {"a": 1}, "x/y z")
        assert await s.call("ada", "GET", s.room("/state/custom/x%2Fy%20z")) == (200, {"a": 1})
        assert await s.call("ada", "GET", s.room("/state/m.room.name")) == (200, {"name": "Station"})


async def test_a_redacted_room_reads_well(tmp_path: Path, specification: Specification | None) -> None:
    async with site(tmp_path) as s:
        ada, ben = s.people["ada"], s.people["ben"]
        await s.w.join(ben, s.room_id)
        for number, event_id in enumerate((s.root, s.child)):
            await send.redact(s.w.author, ada, s.room_id, event_id, {}, f"r{number}")
        await leave.leave(s.w.author, s.w.members, ben, s.room_id)
        for who in ("ada", "ben"):
            status, answer = await s.call(who, "GET", s.room("/messages?dir=b&limit=100"))
            assert status == 200
            _check(specification, "GET", s.room("/messages"), answer)
            assert [event["content"] for event in answer["chunk"] if event["type"] == "m.room.message"] == [{}, {}]

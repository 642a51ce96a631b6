"""Push rules, pushers and notifications over HTTP, against the published descriptions where they are at hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from yarl import URL

from appliance.doors.client import push
from appliance.doors.web import Access, Surface
from appliance.matrix.errors import UnknownToken
from appliance.matrix.requester import Requester
from appliance.push.defaults import default_ruleset
from appliance.push.gateway import PATH
from tests.conformance.openapi import Specification
from tests.conftest import SPEC_DATA
from tests.push.post import Office, office

V3 = "/_matrix/client/v3"
RULES = V3 + "/pushrules/global"
PUSHER = {"app_id": "app", "pushkey": "key", "kind": "http", "app_display_name": "App", "device_display_name": "Phone",
          "lang": "de", "data": {"url": "https://push.example" + PATH, "format": "event_id_only"}}


@dataclass
class Site:
    o: Office
    http: ClientSession
    server: TestServer
    people: dict[str, Requester]

    async def call(self, method: str, path: str, body: Any = None, who: str = "ben") -> tuple[int, Any]:
        url = URL(f"http://{self.server.host}:{self.server.port}{path}", encoded=True)
        data = {"data": body} if isinstance(body, bytes) else {"json": body}
        async with self.http.request(method, url, headers={"Authorization": f"Bearer {who}"}, **data) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with office(tmp_path) as o:
        people = {name: await o.person(name) for name in ("ada", "ben")}

        async def authenticate(token: str, access: Access) -> Requester:
            if token not in people:
                raise UnknownToken()
            return people[token]

        routes = push.routes(o.rules, o.registration, o.history, o.clock)
        server = TestServer(Surface(authenticate, lambda kind, key: None).application(routes))
        await server.start_server()
        async with ClientSession() as http:
            yield Site(o, http, server, people)
        await server.close()


async def test_everybody_has_the_default_rules(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        mine = default_ruleset(s.people["ben"].user_id)
        for path in (V3 + "/pushrules", V3 + "/pushrules/"):
            assert await s.call("GET", path) == (200, {"global": mine})
        for path in (RULES, RULES + "/"):
            assert await s.call("GET", path) == (200, mine)
        status, rule = await s.call("GET", RULES + "/override/.m.rule.is_user_mention")
        assert (status, rule["conditions"][0]["value"]) == (200, s.people["ben"].user_id)


async def test_the_life_of_a_rule(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        assert await s.call("PUT", RULES + "/content/tea", {"pattern": "tea", "actions": ["notify"]}) == (200, {})
        assert await s.call("PUT", RULES + "/content/cake?before=tea", {"pattern": "cake", "actions": []}) == (200, {})
        _, rules = await s.call("GET", RULES)
        assert [rule["rule_id"] for rule in rules["content"]] == ["cake", "tea", ".m.rule.contains_user_name"]
        assert await s.call("GET", RULES + "/content/tea/enabled") == (200, {"enabled": True})
        assert await s.call("PUT", RULES + "/content/tea/enabled", {"enabled": False}) == (200, {})
        assert await s.call("PUT", RULES + "/content/tea/actions", {"actions": []}) == (200, {})
        assert await s.call("GET", RULES + "/content/tea") == (200, {
            "rule_id": "tea", "default": False, "enabled": False, "actions": [], "pattern": "tea"})
        assert await s.call("GET", RULES + "/content/tea/actions") == (200, {"actions": []})
        assert await s.call("DELETE", RULES + "/content/tea") == (200, {})
        assert (await s.call("GET", RULES + "/content/tea"))[1]["errcode"] == "M_NOT_FOUND"
        room = "/room/%21r%3Atest.example"
        assert await s.call("PUT", RULES + room, {"actions": []}) == (200, {})
        assert (await s.call("GET", RULES + room))[1]["rule_id"] == "!r:test.example"
        assert (await s.call("GET", RULES, who="ada"))[1] == default_ruleset(s.people["ada"].user_id)


@pytest.mark.parametrize(("method", "path", "body", "status", "errcode"), [
    ("GET", "/override/none", None, 404, "M_NOT_FOUND"), ("GET", "/none/x", None, 400, "M_INVALID_PARAM"),
    ("DELETE", "/underride/.m.rule.message", None, 404, "M_NOT_FOUND"),
    ("PUT", "/override/.mine", {"actions": []}, 400, "M_INVALID_PARAM"),
    ("PUT", "/override/a%2Fb", {"actions": []}, 400, "M_INVALID_PARAM"),
    ("PUT", "/override/x?before=none", {"actions": []}, 400, "M_UNKNOWN"),
    ("PUT", "/override/x?after=.m.rule.master", {"actions": []}, 400, "M_UNKNOWN"),
    ("PUT", "/override/x", {}, 400, "M_MISSING_PARAM"), ("PUT", "/override/x", b"[", 400, "M_NOT_JSON"),
    ("PUT", "/override/x", [], 400, "M_BAD_JSON"),
    ("PUT", "/override/x", {"actions": [{"set_tweak": "a", "value": 2**60}]}, 400, "M_BAD_JSON"),
    ("PUT", "/override/x/enabled", {"enabled": True}, 404, "M_NOT_FOUND"),
    ("PUT", "/override/.m.rule.master/enabled", {"enabled": 1}, 400, "M_BAD_JSON"),
    ("PUT", "/override/.m.rule.master/enabled", {}, 400, "M_MISSING_PARAM"),
    ("PUT", "/override/.m.rule.master/actions", {}, 400, "M_MISSING_PARAM"),
])
async def test_refusals(tmp_path: Path, method: str, path: str, body: Any, status: int, errcode: str) -> None:
    async with site(tmp_path) as s:
        answer = await s.call(method, RULES + path, body)
        assert (answer[0], answer[1]["errcode"]) == (status, errcode)
        assert (await s.call("GET", RULES))[1] == default_ruleset(s.people["ben"].user_id)


async def test_pushers_are_set_shown_and_removed(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        assert await s.call("POST", V3 + "/pushers/set", PUSHER) == (200, {})
        assert await s.call("POST", V3 + "/pushers/set", {**PUSHER, "lang": "en", "profile_tag": "x"}) == (200, {})
        shown = {**PUSHER, "lang": "en", "profile_tag": "x"}
        assert await s.call("GET", V3 + "/pushers") == (200, {"pushers": [shown]})
        assert await s.call("POST", V3 + "/pushers/set", PUSHER, who="ada") == (200, {})
        assert await s.call("GET", V3 + "/pushers") == (200, {"pushers": []})
        gone = {"app_id": "app", "pushkey": "key", "kind": None}
        assert await s.call("POST", V3 + "/pushers/set", gone, who="ada") == (200, {})
        assert await s.call("GET", V3 + "/pushers", who="ada") == (200, {"pushers": []})


@pytest.mark.parametrize(("change", "errcode"), [
    ({"kind": "email"}, "M_INVALID_PARAM"), ({"app_id": "x" * 65}, "M_INVALID_PARAM"),
    ({"pushkey": "ä" * 300}, "M_INVALID_PARAM"), ({"pushkey": 7}, "M_BAD_JSON"), ({"lang": None}, "M_MISSING_PARAM"),
    ({"data": None}, "M_MISSING_PARAM"), ({"data": {}}, "M_INVALID_PARAM"), ({"data": []}, "M_BAD_JSON"),
    ({"data": {"url": "http://push.example" + PATH}}, "M_INVALID_PARAM"),
    ({"data": {"url": "https://10.0.0.1" + PATH}}, "M_INVALID_PARAM"),
    ({"data": {**PUSHER["data"], "x": "y" * 10_000}}, "M_INVALID_PARAM"),  # type: ignore[dict-item]
    ({"append": "yes"}, "M_BAD_JSON"),
])
async def test_pushers_that_are_refused(tmp_path: Path, change: Any, errcode: str) -> None:
    async with site(tmp_path) as s:
        status, body = await s.call("POST", V3 + "/pushers/set", {**PUSHER, **change})
        assert (status, body["errcode"]) == (400, errcode)
        without_kind = {name: value for name, value in PUSHER.items() if name != "kind"}
        assert (await s.call("POST", V3 + "/pushers/set", without_kind))[1]["errcode"] == "M_MISSING_PARAM"
        assert await s.call("GET", V3 + "/pushers") == (200, {"pushers": []})


async def test_notifications_are_listed_page_by_page(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        ada, ben = s.people["ada"], s.people["ben"]
        room = await s.o.room(ada)
        await s.o.bring(ada, room, ben)
        sent = [await s.o.say(ada, room, f"{number} ben") for number in range(5)]
        status, page = await s.call("GET", V3 + "/notifications?limit=3")
        assert status == 200
        first = page["notifications"][0]
        assert (first["room_id"], first["read"], first["actions"][0]) == (room, False, "notify")
        assert "room_id" not in first["event"]
        status, rest = await s.call("GET", f"{V3}/notifications?only=highlight&from={page['next_token']}")
        ids = [found["event"]["event_id"] for found in page["notifications"] + rest["notifications"]]
        assert ids == sent[::-1]
        assert "next_token" not in rest
        for bad in ("from=x", "limit=x", "limit=0"):
            assert (await s.call("GET", f"{V3}/notifications?{bad}"))[0] == 400


async def test_answers_are_as_published(tmp_path: Path) -> None:
    if not SPEC_DATA.is_dir():
        pytest.skip("left out: the specification data is not laid beside this checkout (../shared/spec/data)")
    specification = Specification(SPEC_DATA)
    async with site(tmp_path) as s:
        ada, ben = s.people["ada"], s.people["ben"]
        room = await s.o.room(ada)
        await s.o.bring(ada, room, ben)
        await s.o.say(ada, room, "hello")
        await s.call("POST", V3 + "/pushers/set", PUSHER)
        for path in ("/pushrules/", "/pushrules/global/", "/pushers",
                     "/pushrules/global/underride/.m.rule.call", "/pushrules/global/underride/.m.rule.call/enabled",
                     "/pushrules/global/underride/.m.rule.call/actions", "/notifications"):
            status, body = await s.call("GET", V3 + path)
            found = specification.find("GET", V3 + path)
            assert found is not None, path
            assert specification.answer_faults(found[1], status, "application/json", body) == [], path

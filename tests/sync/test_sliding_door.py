"""The door of the sliding sync: what is understood and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from appliance.doors.client import sliding_sync
from appliance.doors.web import Access, Surface
from appliance.matrix.requester import Requester
from tests.sync.station import Station, station

Json = Any


@asynccontextmanager
async def door(w: Station, who: Requester) -> AsyncIterator[Any]:
    """Serve the sliding sync to one person; gives a function that posts and returns (status, body)."""

    async def authenticate(token: str, access: Access) -> Requester:
        return who

    surface = Surface(authenticate, lambda kind, key: None)
    async with TestServer(surface.application(sliding_sync.routes(w.sliding))) as server, ClientSession() as http:

        async def post(body: Json, **query: str) -> tuple[int, Json]:
            headers = {"Authorization": "Bearer x"}
            url = server.make_url(sliding_sync.PATH)
            async with http.post(url, json=body, params=query, headers=headers) as answer:
                return answer.status, await answer.json()

        yield post


def with_list(**fields: Json) -> Json:
    return {"lists": {"a": {"timeline_limit": 1, "required_state": [], "ranges": [[0, 9]], **fields}}}


BAD: list[tuple[Json, str]] = [
    ({"lists": []}, "M_BAD_JSON"),
    ({"lists": {"a": 1}}, "M_BAD_JSON"),
    ({"lists": {"a": {}}}, "M_MISSING_PARAM"),
    ({"lists": {str(number): {"timeline_limit": 1} for number in range(101)}}, "M_INVALID_PARAM"),
    (with_list(timeline_limit="1"), "M_BAD_JSON"),
    (with_list(timeline_limit=-1), "M_INVALID_PARAM"),
    (with_list(ranges=[[0]]), "M_BAD_JSON"),
    (with_list(ranges=[[0, True]]), "M_BAD_JSON"),
    (with_list(ranges=[[5, 2]]), "M_INVALID_PARAM"),
    (with_list(ranges=[[-1, 2]]), "M_INVALID_PARAM"),
    (with_list(required_state=[["a"]]), "M_BAD_JSON"),
    (with_list(required_state=[["a", 1]]), "M_BAD_JSON"),
    (with_list(required_state={}), "M_BAD_JSON"),
    (with_list(filters={"is_dm": "yes"}), "M_BAD_JSON"),
    (with_list(filters={"room_types": [1]}), "M_BAD_JSON"),
    (with_list(filters={"tags": "x"}), "M_BAD_JSON"),
    ({"room_subscriptions": {"!a:b": []}}, "M_BAD_JSON"),
    ({"conn_id": 1}, "M_BAD_JSON"),
    ({"conn_id": "x" * 300}, "M_INVALID_PARAM"),
    ({"extensions": {"e2ee": {"enabled": 1}}}, "M_BAD_JSON"),
    ({"extensions": {"to_device": {"enabled": True, "since": "x"}}}, "M_INVALID_PARAM"),
    ({"extensions": {"to_device": {"enabled": True, "limit": 0}}}, "M_INVALID_PARAM"),
    ({"pos": "5"}, "M_UNKNOWN_POS"),
]


@pytest.mark.parametrize(("body", "errcode"), BAD)
async def test_what_makes_no_sense_is_refused(tmp_path: Path, body: Json, errcode: str) -> None:
    async with station(tmp_path) as w, door(w, await w.person("ada")) as post:
        status, answer = await post(body)
        assert (status, answer["errcode"]) == (400, errcode)


async def test_bad_queries_are_refused(tmp_path: Path) -> None:
    async with station(tmp_path) as w, door(w, await w.person("ada")) as post:
        _, first = await post({})
        for query in ({"timeout": "x"}, {"timeout": "-1"}, {"set_presence": "asleep"}):
            assert (await post({}, pos=first["pos"], **query))[0] == 400
        assert (await post({}, pos="nonsense"))[1]["errcode"] == "M_UNKNOWN_POS"


async def test_an_ordinary_client_is_served(tmp_path: Path) -> None:
    """The request that a mobile client makes after log-in, and its second one."""
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada, name="Ward")
        extensions = {
            "e2ee": {"enabled": True}, "to_device": {"enabled": True}, "account_data": {"enabled": True},
            "receipts": {"enabled": True, "rooms": ["*"]}, "typing": {"enabled": True},
            "io.element.msc4308.thread_subscriptions": {"enabled": True, "limit": 10},
        }
        body = {
            "conn_id": "room-list", "extensions": extensions,
            "lists": {"all_rooms": {
                "ranges": [[0, 19]], "timeline_limit": 1,
                "required_state": [["m.room.name", ""], ["m.room.encryption", ""], ["m.room.member", "$LAZY"],
                                   ["m.room.member", "$ME"]],
                "filters": {"not_room_types": ["m.space"]},
            }},
        }
        async with door(w, ada) as post:
            status, first = await post(body)
            assert status == 200
            assert first["rooms"][room_id]["name"] == "Ward"
            assert first["extensions"]["to_device"] == {
                "events": [], "next_batch": first["extensions"]["to_device"]["next_batch"]
            }
            subscription = {"timeline_limit": 20, "required_state": [["m.room.create", ""]]}
            second_body = {**body, "room_subscriptions": {room_id: subscription}}
            status, second = await post(second_body, pos=first["pos"], timeout="0")
            assert second["rooms"][room_id]["unstable_expanded_timeline"] is True
            assert (await post({**body, "pos": second["pos"], "timeout": 0}))[1]["rooms"] == {}

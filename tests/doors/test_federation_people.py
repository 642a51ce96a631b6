"""What peers may ask about our people, aliases and published rooms, over HTTP."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from appliance.accounts.e2ee_keys import KeyServer
from appliance.accounts.openid import LIFE_MS, OpenId
from appliance.accounts.profile import Profiles
from appliance.doors.federation import openid, public_rooms, query, user_keys
from appliance.matrix.requester import Requester
from appliance.store import accounts, devices
from tests.doors.federation_site import V1, Site, serving
from tests.world.federation import RemoteWard, town


@dataclass
class Practice:
    """Ward `a` with Ada, one device of hers, and the neighbour `b`."""

    site: Site
    a: RemoteWard
    b: RemoteWard
    ada: Requester
    tokens: OpenId


@asynccontextmanager
async def practice(folder: Path, *, shown: bool = True) -> AsyncIterator[Practice]:
    async with town(folder, "a", "b") as (a, b):
        ada = await a.person("ada", "Ada")
        await a.store.write(accounts.insert, ada.user_id, None, False, 1)
        await a.store.write(devices.ensure, ada.user_id, ada.device_id, "Visite", 1, None)
        keys, tokens = KeyServer(a.store, a.server), OpenId(a.store, a.clock)
        device = {
            "user_id": ada.user_id, "device_id": ada.device_id, "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
            "keys": {f"ed25519:{ada.device_id}": "k"}, "signatures": {ada.user_id: {f"ed25519:{ada.device_id}": "s"}},
        }  # fmt: skip
        once = {f"signed_curve25519:A{n}": {"key": f"k{n}", "signatures": {}} for n in range(2)}
        await keys.upload(ada, device, once, None)
        routes = [
            *query.routes(a.store, a.server, Profiles(a.store, a.server)), *user_keys.routes(a.store, a.server, keys),
            *public_rooms.routes(a.store, shown=shown),
        ]  # fmt: skip
        async with serving(a, routes, openid.routes(tokens)) as site:
            yield Practice(site, a, b, ada, tokens)


async def test_profiles_and_aliases(tmp_path: Path) -> None:
    async with practice(tmp_path) as p:
        room_id = await p.a.room(p.ada, "public_chat", alias="#station:a.example")
        user = quote(p.ada.user_id)
        assert await p.site.ask(p.b, "GET", f"{V1}/query/profile?user_id={user}") == (200, {"displayname": "Ada"})
        got = await p.site.ask(p.b, "GET", f"{V1}/query/profile?user_id={user}&field=displayname")
        assert got == (200, {"displayname": "Ada"})
        status, found = await p.site.ask(p.b, "GET", f"{V1}/query/directory?room_alias=%23station:a.example")
        assert status == 200 and found == {"room_id": room_id, "servers": [p.a.server]}


async def test_devices_and_keys(tmp_path: Path) -> None:
    async with practice(tmp_path) as p:
        user, device = p.ada.user_id, p.ada.device_id
        status, found = await p.site.ask(p.b, "POST", f"{V1}/user/keys/query", {"device_keys": {user: []}})
        assert status == 200 and found["device_keys"][user][device]["keys"] == {f"ed25519:{device}": "k"}
        assert "user_signing_keys" not in found
        status, found = await p.site.ask(p.b, "GET", f"{V1}/user/devices/{quote(user)}")
        assert status == 200 and [one["device_id"] for one in found["devices"]] == [device]
        assert found["devices"][0]["device_display_name"] == "Visite" and "unsigned" not in found["devices"][0]["keys"]
        claimed = []
        for _ in range(3):
            wanted = {"one_time_keys": {user: {device: "signed_curve25519"}}}
            status, found = await p.site.ask(p.b, "POST", f"{V1}/user/keys/claim", wanted)
            assert status == 200
            claimed += list(found["one_time_keys"].get(user, {}).get(device, {}))
        assert sorted(claimed) == ["signed_curve25519:A0", "signed_curve25519:A1"]  # each once


async def test_openid_tokens(tmp_path: Path) -> None:
    async with practice(tmp_path) as p:
        token = await p.tokens.issue(p.ada.user_id)
        where = f"{V1}/openid/userinfo"
        assert await p.site.ask(p.b, "GET", f"{where}?access_token={token}") == (200, {"sub": p.ada.user_id})
        p.a.clock.now += LIFE_MS
        for target in (where, f"{where}?access_token=x", f"{where}?access_token={token}"):
            assert (await p.site.ask(p.b, "GET", target))[0] == 401


async def test_published_rooms(tmp_path: Path) -> None:
    async with practice(tmp_path) as p:
        for name in ("Station", "Labor"):
            await p.a.room(p.ada, "public_chat", name=name, public=True)
        status, found = await p.site.ask(p.b, "GET", f"{V1}/publicRooms?limit=1")
        assert status == 200 and len(found["chunk"]) == 1
        status, rest = await p.site.ask(p.b, "GET", f"{V1}/publicRooms?limit=1&since={found['next_batch']}")
        assert {found["chunk"][0]["name"], rest["chunk"][0]["name"]} == {"Station", "Labor"}
        body = {"filter": {"generic_search_term": "labor"}}
        status, found = await p.site.ask(p.b, "POST", f"{V1}/publicRooms", body)
        assert status == 200 and [room["name"] for room in found["chunk"]] == ["Labor"]


async def test_a_directory_that_is_not_for_others(tmp_path: Path) -> None:
    async with practice(tmp_path, shown=False) as p:
        assert (await p.site.ask(p.b, "GET", f"{V1}/publicRooms"))[0] == 403
        assert (await p.site.ask(p.b, "POST", f"{V1}/publicRooms", {}))[0] == 403


@pytest.mark.parametrize(
    ("target", "body", "status"),
    [
        ("/query/profile", None, 400), ("/query/profile?user_id=x", None, 400),
        ("/query/profile?user_id=@x:b.example", None, 400), ("/query/profile?user_id=@x:a.example", None, 404),
        ("/query/profile?user_id=@ada:a.example&field=pets", None, 404), ("/query/directory", None, 400),
        ("/query/directory?room_alias=x", None, 400), ("/query/directory?room_alias=%23x:a.example", None, 404),
        ("/query/directory?room_alias=%23x:b.example", None, 404), ("/user/devices/@x:a.example", None, 404),
        ("/user/devices/@x:b.example", None, 400), ("/user/devices/x", None, 400), ("/user/keys/query", {}, 400),
        ("/user/keys/query", {"device_keys": {"@x:b.example": []}}, 400),
        ("/user/keys/query", {"device_keys": {"@ada:a.example": {}}}, 400),
        ("/user/keys/query", {"device_keys": {f"@u{n}:a.example": [] for n in range(1001)}}, 400),
        ("/user/keys/claim", {"one_time_keys": {"@ada:a.example": {"D": 1}}}, 400),
        ("/user/keys/claim", {"one_time_keys": {"@x:b.example": {"D": "a"}}}, 400),
        ("/publicRooms?since=x", None, 400), ("/publicRooms", {"filter": []}, 400),
    ],
)  # fmt: skip
async def test_bad_questions(tmp_path: Path, target: str, body: dict[str, object] | None, status: int) -> None:
    async with practice(tmp_path) as p:
        got, answer = await p.site.ask(p.b, "GET" if body is None else "POST", V1 + target, body)
        assert got == status and answer["errcode"].startswith("M_")

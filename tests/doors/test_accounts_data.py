"""What belongs to a person over HTTP: devices, profile, account data, OpenID tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.accounts import account_data
from tests.accounts.practice import opened, segment
from tests.world.keys import DeviceKeys

# -- devices -----------------------------------------------------------------------------------------------------------


async def test_devices_are_listed_renamed_and_removed_with_all_that_is_theirs(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna", device_id="A"), await p.register("bernd")
        for name in ("B", "C", "D"):
            other = await p.login("anna", device_id=name, refresh_token=True)
            keys = DeviceKeys(anna.user_id, name)
            await other.fine("POST", "/keys/upload", {
                "device_keys": keys.device_keys(), "one_time_keys": keys.one_time_keys(2),
                "fallback_keys": keys.one_time_keys(1, fallback=True)})
            await other.fine("PUT", "/sendToDevice/m.x/t", {"messages": {anna.user_id: {name: {}}}})
        await anna.fine("PUT", "/devices/B", {"display_name": "Station 3"})
        await anna.fine("PUT", "/devices/B", {})
        assert (await anna.fine("GET", "/devices/B"))["display_name"] == "Station 3"
        assert [d["device_id"] for d in (await anna.fine("GET", "/devices"))["devices"]] == ["A", "B", "C", "D"]
        for method, body in (("GET", None), ("PUT", {"display_name": "x"}), ("PUT", {})):
            assert (await anna.ask(method, "/devices/X", body)).errcode == "M_NOT_FOUND"
            assert (await bernd.ask(method, "/devices/A", body)).errcode == "M_NOT_FOUND"
        assert (await anna.ask("PUT", "/devices/B", {"display_name": "x" * 101})).errcode == "M_INVALID_PARAM"
        assert (await anna.confirmed("DELETE", "/devices/B", {})).status == 200
        away = {"devices": ["C", "C", "D", "never-there"]}
        assert (await anna.confirmed("POST", "/delete_devices", away)).status == 200
        assert (await other.ask("GET", "/account/whoami")).errcode == "M_UNKNOWN_TOKEN"
        for table in ("device_key", "one_time_key", "fallback_key", "to_device"):
            assert await p.column(f"SELECT count(*) FROM {table}") == [0], table  # noqa: S608
        assert await p.column("SELECT device_id FROM device WHERE user_id=?", anna.user_id) == ["A"]
        assert await p.column("SELECT count(*) FROM token") == [2]
        assert (await anna.ask("POST", "/delete_devices", {})).errcode == "M_MISSING_PARAM"


# -- profiles ----------------------------------------------------------------------------------------------------------


async def test_a_new_face_is_seen_by_everybody_and_in_every_room(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        rooms = [await anna.room() for _ in range(2)]
        me = segment(anna.user_id)
        await anna.fine("PUT", f"/profile/{me}/displayname", {"displayname": "Anna Berger"})
        await anna.fine("PUT", f"/profile/{me}/avatar_url", {"avatar_url": "mxc://test.example/bild"})
        await anna.fine("PUT", f"/profile/{me}/org.example.dienst", {"org.example.dienst": {"frei": True}})
        face = {"displayname": "Anna Berger", "avatar_url": "mxc://test.example/bild"}
        assert await p.fine("GET", f"/profile/{me}") == {**face, "org.example.dienst": {"frei": True}}
        assert await bernd.fine("GET", f"/profile/{me}/displayname") == {"displayname": "Anna Berger"}
        for room in rooms:
            member = await anna.fine("GET", f"/rooms/{segment(room)}/state/m.room.member/{me}")
            assert member == {"membership": "join", **face}
        await anna.fine("PUT", f"/profile/{me}/displayname", {"displayname": ""})
        await anna.fine("DELETE", f"/profile/{me}/avatar_url")
        await anna.fine("DELETE", f"/profile/{me}/org.example.dienst")
        assert await p.fine("GET", f"/profile/{me}") == {}
        assert (await p.ask("GET", f"/profile/{me}/displayname")).errcode == "M_NOT_FOUND"
        member = await anna.fine("GET", f"/rooms/{segment(rooms[0])}/state/m.room.member/{me}")
        assert member == {"membership": "join"}


async def test_profiles_have_limits(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        me = segment(anna.user_id)

        async def refused(key: str, body: Any, status: int, errcode: str) -> None:
            got = await anna.ask("PUT", f"/profile/{me}/{segment(key)}", body)
            assert (got.status, got.errcode) == (status, errcode), key[:30]

        await refused("displayname", {"displayname": "x" * 257}, 400, "M_INVALID_PARAM")
        await refused("displayname", {"displayname": 5}, 400, "M_BAD_JSON")
        await refused("displayname", {}, 400, "M_MISSING_PARAM")
        await refused("avatar_url", {"avatar_url": "https://x/y"}, 400, "M_INVALID_PARAM")
        await refused("x" * 256, {"x" * 256: 1}, 400, "M_KEY_TOO_LARGE")
        await refused("Groß", {"Groß": 1}, 400, "M_INVALID_PARAM")
        await refused("a.b", {"c.d": 1}, 400, "M_MISSING_PARAM")
        await refused("a.b", {"a.b": 1.5}, 400, "M_BAD_JSON")
        await refused("a.b", {"a.b": "x" * 65_536}, 400, "M_PROFILE_TOO_LARGE")
        for number in range(2):
            await anna.fine("PUT", f"/profile/{me}/a.b{number}", {f"a.b{number}": "x" * 30_000})
        await refused("a.b2", {"a.b2": "x" * 10_000}, 400, "M_PROFILE_TOO_LARGE")
        await anna.fine("DELETE", f"/profile/{me}/a.b0")
        got = await anna.ask("PUT", f"/profile/{segment('@bernd:test.example')}/displayname", {"displayname": "x"})
        assert (got.status, got.errcode) == (403, "M_FORBIDDEN")
        for user in ("@niemand:test.example", "@x:elsewhere.example"):
            assert (await p.ask("GET", f"/profile/{segment(user)}")).errcode == "M_NOT_FOUND"


# -- account data and tags ---------------------------------------------------------------------------------------------


async def test_account_data_is_kept_for_oneself_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        room, me = segment(await anna.room()), segment(anna.user_id)
        since = (await anna.sync())["next_batch"]
        for base in (f"/user/{me}", f"/user/{me}/rooms/{room}"):
            path = f"{base}/account_data/org.example%2Fa"
            assert (await anna.ask("GET", path)).errcode == "M_NOT_FOUND"
            await anna.fine("PUT", path, {"n": 1.5, "t": "ä"})
            assert await anna.fine("GET", path) == {"n": 1.5, "t": "ä"}
            for method in ("GET", "PUT"):
                assert (await bernd.ask(method, path, {})).errcode == "M_FORBIDDEN"
            for type in ("m.push_rules", "m.fully_read"):
                got = await anna.ask("PUT", f"{base}/account_data/{type}", {})
                assert (got.status, got.errcode) == (405, "M_BAD_JSON")
            large = {"x": "y" * account_data.ENTRY_BYTES}
            got = await anna.ask("PUT", path, large)
            assert (got.status, got.errcode) == (413, "M_TOO_LARGE")
            assert (await p.ask("PUT", path, token=anna.token, raw=b"[1]")).errcode == "M_BAD_JSON"
            assert (await p.ask("PUT", path, token=anna.token, raw=b"{")).errcode == "M_NOT_JSON"
        news = await anna.sync(since)
        assert [event["type"] for event in news["account_data"]["events"]] == ["org.example/a"]


async def test_a_heap_of_account_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        monkeypatch.setattr(account_data, "ENTRIES", 3)
        for number in range(3):
            await anna.fine("PUT", f"/user/{segment(anna.user_id)}/account_data/t{number}", {})
        got = await anna.ask("PUT", f"/user/{segment(anna.user_id)}/account_data/t3", {})
        assert (got.status, got.errcode) == (413, "M_TOO_LARGE")
        await anna.fine("PUT", f"/user/{segment(anna.user_id)}/account_data/t0", {"n": 2})


async def test_tags(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        room = await anna.room()
        tags = f"/user/{segment(anna.user_id)}/rooms/{segment(room)}/tags"
        assert await anna.fine("GET", tags) == {"tags": {}}
        await anna.fine("PUT", f"{tags}/m.favourite", {"order": 0.25})
        await anna.fine("PUT", f"{tags}/u.Station%203", {})
        assert await anna.fine("GET", tags) == {"tags": {"m.favourite": {"order": 0.25}, "u.Station 3": {}}}
        since = (await anna.sync())["next_batch"]
        for _ in range(2):
            await anna.fine("DELETE", f"{tags}/m.favourite")
        joined = (await anna.sync(since))["rooms"]["join"][room]
        assert joined["account_data"]["events"] == [{"type": "m.tag", "content": {"tags": {"u.Station 3": {}}}}]
        assert (await anna.ask("PUT", f"{tags}/u.x", {"order": "first"})).errcode == "M_INVALID_PARAM"
        assert (await anna.ask("PUT", f"{tags}/{'x' * 256}", {})).errcode == "M_INVALID_PARAM"
        assert (await bernd.ask("PUT", f"{tags}/u.x", {})).errcode == "M_FORBIDDEN"
        gathered = [anna.ask("PUT", f"{tags}/u.{n}", {}) for n in range(account_data.TAGS + 5)]
        answers = await asyncio.gather(*gathered)
        assert sorted(got.status for got in answers) == [200] * (account_data.TAGS - 1) + [413] * 6
        assert len((await anna.fine("GET", tags))["tags"]) == account_data.TAGS


# -- who one is, and what this server can do ---------------------------------------------------------------------------


async def test_an_openid_token_names_its_owner_for_an_hour_and_opens_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        path = f"/user/{segment(anna.user_id)}/openid/request_token"
        got = await anna.fine("POST", path, {})
        assert (got["token_type"], got["expires_in"], got["matrix_server_name"]) == ("Bearer", 3600, "test.example")
        assert await p.people.openid.user(got["access_token"]) == anna.user_id
        assert (await p.ask("GET", "/account/whoami", token=got["access_token"])).errcode == "M_UNKNOWN_TOKEN"
        assert (await bernd.ask("POST", path, {})).errcode == "M_FORBIDDEN"
        p.clock.now += 3_600_000
        with pytest.raises(Exception, match="expired"):
            await p.people.openid.user(got["access_token"])


async def test_capabilities_and_contacts(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        found = (await anna.fine("GET", "/capabilities"))["capabilities"]
        assert found["m.room_versions"]["default"] in found["m.room_versions"]["available"]
        assert found["m.change_password"] == {"enabled": True} and found["m.3pid_changes"] == {"enabled": False}
        assert await anna.fine("GET", "/account/3pid") == {"threepids": []}


async def test_every_door_of_a_person_wants_their_token(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        me = segment("@anna:test.example")
        for method, path in (
            ("GET", "/account/whoami"), ("GET", "/capabilities"), ("GET", "/devices"), ("DELETE", "/devices/A"),
            ("POST", "/delete_devices"), ("POST", "/keys/upload"), ("POST", "/keys/query"), ("POST", "/keys/claim"),
            ("GET", "/keys/changes"), ("POST", "/keys/device_signing/upload"), ("POST", "/keys/signatures/upload"),
            ("GET", "/room_keys/version"), ("GET", "/room_keys/keys"), ("PUT", "/sendToDevice/m.x/t"),
            ("PUT", f"/profile/{me}/displayname"), ("GET", f"/user/{me}/account_data/x"),
            ("POST", f"/user/{me}/openid/request_token"), ("POST", "/logout"), ("POST", "/logout/all"),
            ("POST", "/_matrix/client/v1/login/get_token"), ("POST", "/account/password"),
        ):
            body = {"new_password": "x"} if path == "/account/password" else {}
            assert (await p.ask(method, path, body)).errcode == "M_MISSING_TOKEN", path
            got = await p.ask(method, path, body, token="sla_unknown")
            assert (got.status, got.errcode) == (401, "M_UNKNOWN_TOKEN"), path

"""Encryption keys over HTTP: published, asked for, claimed once, signed; what changed; the dehydrated device."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.accounts.practice import Device, Practice, opened, segment
from tests.world.keys import CrossSigning, DeviceKeys

SIGNED = "signed_curve25519"
DEHYDRATED = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"


async def _claim(by: Device, of: Device, algorithm: str = SIGNED) -> dict[str, Any]:
    body = {"one_time_keys": {of.user_id: {of.device_id: algorithm}}}
    found = (await by.fine("POST", "/keys/claim", body))["one_time_keys"]
    return dict(found.get(of.user_id, {}).get(of.device_id, {}))


async def _query(by: Device, user_id: str) -> dict[str, Any]:
    return await by.fine("POST", "/keys/query", {"device_keys": {user_id: []}})


# -- device, one-time and fallback keys --------------------------------------------------------------------------------


async def test_a_hundred_claims_over_fifty_keys_get_each_once_and_then_the_fallback(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        keys = DeviceKeys(anna.user_id, anna.device_id)
        once, fallback = keys.one_time_keys(50), keys.one_time_keys(1, fallback=True)
        got = await anna.fine("POST", "/keys/upload", {"one_time_keys": once, "fallback_keys": fallback})
        assert got["one_time_key_counts"] == {SIGNED: 50}
        found = await asyncio.gather(*(_claim(bernd, anna) for _ in range(100)))
        names = [next(iter(key)) for key in found]
        assert sorted(name for name in names if name in once) == sorted(once)
        assert [name for name in names if name not in once] == list(fallback) * 50
        assert all(key == {name: {**once, **fallback}[name]} for key, name in zip(found, names, strict=True))
        sync = await anna.sync()
        assert sync["device_one_time_keys_count"] == {SIGNED: 0}, "a nought is said"
        assert sync["device_unused_fallback_key_types"] == []
        assert (await anna.fine("POST", "/keys/upload", {}))["one_time_key_counts"] == {SIGNED: 0}


async def test_keys_are_given_out_in_the_order_of_the_uploads(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        keys = DeviceKeys(anna.user_id, anna.device_id)
        first, second = keys.one_time_keys(3), keys.one_time_keys(2)
        low = {"signed_curve25519:000": keys.one_time_keys(1).popitem()[1]}
        for batch in (second, low, first):
            await anna.fine("POST", "/keys/upload", {"one_time_keys": batch})
        names = [next(iter(await _claim(anna, anna))) for _ in range(6)]
        assert names == [*sorted(second), *low, *sorted(first)]
        assert await _claim(anna, anna) == {}


async def test_the_same_key_again_is_no_key_more_and_another_under_its_id_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        keys = DeviceKeys(anna.user_id, anna.device_id)
        batch = keys.one_time_keys(3)
        for _ in range(2):
            got = await anna.fine("POST", "/keys/upload", {"one_time_keys": batch})
            assert got["one_time_key_counts"] == {SIGNED: 3}
        name = next(iter(batch))
        other = {name: keys.one_time_keys(1).popitem()[1], **keys.one_time_keys(1)}
        refused = await anna.ask("POST", "/keys/upload", {"one_time_keys": other})
        assert (refused.status, refused.errcode) == (400, "M_INVALID_PARAM")
        assert (await anna.fine("POST", "/keys/upload", {}))["one_time_key_counts"] == {SIGNED: 3}, "all or nothing"
        claimed = await _claim(anna, anna)
        got = await anna.fine("POST", "/keys/upload", {"one_time_keys": batch})  # the answer was lost, sent again
        assert got["one_time_key_counts"] == {SIGNED: 2}
        rest = [await _claim(anna, anna) for _ in range(2)]
        assert claimed not in rest and await _claim(anna, anna) == {}


async def test_a_fallback_key_stays_used_until_it_is_replaced(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        keys = DeviceKeys(anna.user_id, anna.device_id)
        first, second = keys.one_time_keys(1, fallback=True), keys.one_time_keys(1, fallback=True)
        await anna.fine("POST", "/keys/upload", {"fallback_keys": first})
        assert (await anna.sync())["device_unused_fallback_key_types"] == [SIGNED]
        assert await _claim(anna, anna) == first
        await anna.fine("POST", "/keys/upload", {"fallback_keys": first})
        assert (await anna.sync())["device_unused_fallback_key_types"] == []
        await anna.fine("POST", "/keys/upload", {"fallback_keys": second})
        assert (await anna.sync())["device_unused_fallback_key_types"] == [SIGNED]
        assert await _claim(anna, anna) == second


async def test_what_is_published_is_found_as_it_was_published(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna", initial_device_display_name="Tablet"), await p.register("bernd")
        keys = DeviceKeys(anna.user_id, anna.device_id).device_keys()
        await anna.fine("POST", "/keys/upload", {"device_keys": {**keys, "unsigned": {"forged": True}}})
        people = (anna.user_id, bernd.user_id, "@niemand:test.example", "@x:elsewhere.example")
        wanted: dict[str, list[str]] = {person: [] for person in people}
        got = await bernd.fine("POST", "/keys/query", {"device_keys": wanted, "timeout": 100})
        assert got["device_keys"][anna.user_id] == {
            anna.device_id: {**keys, "unsigned": {"device_display_name": "Tablet"}}}
        assert got["device_keys"][bernd.user_id] == {} and "elsewhere.example" in got["failures"]
        none = await bernd.fine("POST", "/keys/query", {"device_keys": {anna.user_id: ["OTHER"]}})
        assert none["device_keys"][anna.user_id] == {}


@pytest.mark.parametrize(
    "body",
    [
        {"device_keys": []},
        {"device_keys": {}},
        {"one_time_keys": []},
        {"one_time_keys": {"no-colon": "x"}},
        {"one_time_keys": {"signed_curve25519:A": 5}},
        {"one_time_keys": {"signed_curve25519:A": {"signatures": {}}}},
        {"one_time_keys": {"signed_curve25519:A": {"key": "x", "signatures": {"@a:b": 1}}}},
        {"one_time_keys": {"signed_curve25519:A": {"key": "x", "signatures": {}, "n": 1.5}}},
        {"one_time_keys": {f"x:{n}": "y" for n in range(600)}},
        {"fallback_keys": {"x": "y"}},
    ],
)
async def test_keys_of_the_wrong_form_are_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        got = await anna.ask("POST", "/keys/upload", body)
        assert got.status == 400 and got.errcode in ("M_BAD_JSON", "M_INVALID_PARAM"), got


async def test_nobody_publishes_keys_of_another_user_or_device(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        for user, device in (("@bernd:test.example", anna.device_id), (anna.user_id, "OTHER")):
            got = await anna.ask("POST", "/keys/upload", {"device_keys": DeviceKeys(user, device).device_keys()})
            assert (got.status, got.errcode) == (400, "M_INVALID_PARAM")


async def test_too_large_questions_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        many: dict[str, list[str]] = {f"@u{n}:test.example": [] for n in range(10_001)}
        assert (await anna.ask("POST", "/keys/query", {"device_keys": many})).errcode == "M_INVALID_PARAM"
        devices = {anna.user_id: {f"D{n}": SIGNED for n in range(10_001)}}
        assert (await anna.ask("POST", "/keys/claim", {"one_time_keys": devices})).errcode == "M_INVALID_PARAM"
        assert (await anna.ask("POST", "/keys/query", {"device_keys": {"anna": []}})).errcode == "M_INVALID_PARAM"
        assert (await anna.ask("POST", "/keys/claim", {})).errcode == "M_MISSING_PARAM"


# -- what changed ------------------------------------------------------------------------------------------------------


async def test_changes_between_two_syncs(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd, clara = [await p.register(name) for name in ("anna", "bernd", "clara")]
        room = await anna.room(bernd.user_id)
        before = (await anna.sync())["next_batch"]
        await bernd.fine("POST", f"/join/{segment(room)}", {})
        for device in (bernd, clara):
            keys = DeviceKeys(device.user_id, device.device_id).device_keys()
            await device.fine("POST", "/keys/upload", {"device_keys": keys})
        middle = (await anna.sync(before))["next_batch"]
        got = await anna.fine("GET", "/keys/changes", **{"from": before, "to": middle})
        assert got == {"changed": [bernd.user_id], "left": []}, "clara shares no room"
        await bernd.fine("POST", f"/rooms/{segment(room)}/leave", {})
        end = (await anna.sync(middle))["next_batch"]
        got = await anna.fine("GET", "/keys/changes", **{"from": middle, "to": end})
        assert got == {"changed": [], "left": [bernd.user_id]}
        assert await anna.fine("GET", "/keys/changes", **{"from": end, "to": end}) == {"changed": [], "left": []}
        assert await anna.fine("GET", "/keys/changes", **{"from": end, "to": before}) == {"changed": [], "left": []}
        for query in ({}, {"from": before}, {"to": end}):
            assert (await anna.ask("GET", "/keys/changes", **query)).errcode == "M_MISSING_PARAM"
        assert (await anna.ask("GET", "/keys/changes", **{"from": "x", "to": end})).errcode == "M_INVALID_PARAM"


# -- cross-signing -----------------------------------------------------------------------------------------------------


async def _with_keys(p: Practice, name: str) -> tuple[Device, DeviceKeys, CrossSigning]:
    device = await p.register(name)
    keys, signing = DeviceKeys(device.user_id, device.device_id), CrossSigning(device.user_id)
    await device.fine("POST", "/keys/upload", {"device_keys": keys.device_keys()})
    await device.fine("POST", "/keys/device_signing/upload", signing.upload())
    return device, keys, signing


async def test_the_first_keys_need_no_password_others_do(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, _, signing = await _with_keys(p, "anna")
        await anna.fine("POST", "/keys/device_signing/upload", signing.upload())  # a repetition
        other = CrossSigning(anna.user_id)
        refused = await anna.confirmed("POST", "/keys/device_signing/upload", other.upload(), "falsch")
        assert (refused.status, refused.errcode) == (401, "M_FORBIDDEN")
        assert (await _query(anna, anna.user_id))["master_keys"][anna.user_id] == signing.upload()["master_key"]
        assert (await anna.confirmed("POST", "/keys/device_signing/upload", other.upload())).status == 200
        assert (await _query(anna, anna.user_id))["master_keys"][anna.user_id] == other.upload()["master_key"]
        half = {"self_signing_key": other.signed(CrossSigning(anna.user_id).upload()["self_signing_key"], "master")}
        assert (await anna.ask("POST", "/keys/device_signing/upload", half)).status == 401


async def test_keys_that_the_master_did_not_sign_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        signing, stranger = CrossSigning(anna.user_id), CrossSigning(anna.user_id)
        mixed = {**signing.upload(), "self_signing_key": stranger.upload()["self_signing_key"]}
        got = await anna.ask("POST", "/keys/device_signing/upload", mixed)
        assert (got.status, got.errcode) == (400, "M_INVALID_SIGNATURE")
        alone = {"self_signing_key": signing.upload()["self_signing_key"]}
        assert (await anna.ask("POST", "/keys/device_signing/upload", alone)).errcode == "M_MISSING_PARAM"
        foreign = CrossSigning("@bernd:test.example").upload()
        assert (await anna.ask("POST", "/keys/device_signing/upload", foreign)).errcode == "M_INVALID_PARAM"
        twisted = {**signing.upload()["master_key"], "usage": ["user_signing"]}
        assert (await anna.ask("POST", "/keys/device_signing/upload", {"master_key": twisted})).status == 400
        named = await p.login("anna", device_id=signing.public("master"))
        got = await named.ask("POST", "/keys/device_signing/upload", signing.upload())
        assert (got.status, got.errcode) == (403, "M_FORBIDDEN"), "a key is not called like a device"
        assert (await _query(anna, anna.user_id))["master_keys"] == {}


async def test_who_may_sign_what_and_who_sees_it(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, keys, mine = await _with_keys(p, "anna")
        bernd, _, his = await _with_keys(p, "bernd")
        clara = await p.register("clara")
        his_master = his.upload()["master_key"]
        body = {
            anna.user_id: {anna.device_id: mine.signed(keys.device_keys(), "self_signing")},
            bernd.user_id: {his.public("master"): mine.signed(his_master, "user_signing")},
        }
        assert (await anna.fine("POST", "/keys/signatures/upload", body))["failures"] == {}
        by_user_signing = f"ed25519:{mine.public('user_signing')}"
        for viewer, sees in ((anna, True), (bernd, False), (clara, False)):
            got = await _query(viewer, bernd.user_id)
            signed = got["master_keys"][bernd.user_id].get("signatures", {}).get(anna.user_id, {})
            assert (by_user_signing in signed) is sees
            device = (await _query(viewer, anna.user_id))["device_keys"][anna.user_id][anna.device_id]
            assert f"ed25519:{mine.public('self_signing')}" in device["signatures"][anna.user_id]
            assert ("user_signing_keys" in got and anna.user_id in (await _query(viewer, anna.user_id))[
                "user_signing_keys"]) is (viewer is anna)


async def test_wrong_signatures_are_named_one_by_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, keys, mine = await _with_keys(p, "anna")
        bernd, _, his = await _with_keys(p, "bernd")
        good = mine.signed(keys.device_keys(), "self_signing")
        forged = {**good, "signatures": {anna.user_id: {f"ed25519:{mine.public('self_signing')}": "A" * 86}}}
        changed = mine.signed({**keys.device_keys(), "algorithms": []}, "self_signing")
        by_master = mine.signed(keys.device_keys(), "master")
        his_master = his.upload()["master_key"]
        cases = [
            (anna.user_id, anna.device_id, forged, "M_INVALID_SIGNATURE"),
            (anna.user_id, anna.device_id, changed, "M_INVALID_PARAM"),
            (anna.user_id, anna.device_id, by_master, "M_INVALID_SIGNATURE"),
            (anna.user_id, anna.device_id, "x", "M_BAD_JSON"),
            (anna.user_id, "UNKNOWN", good, "M_NOT_FOUND"),
            (bernd.user_id, his.public("master"), his_master, "M_INVALID_SIGNATURE"),
            (bernd.user_id, his.public("self_signing"), mine.signed(his.upload()["self_signing_key"], "user_signing"),
             "M_NOT_FOUND"),
            (bernd.user_id, his.public("master"), mine.signed(his_master, "self_signing"), "M_INVALID_SIGNATURE"),
        ]
        for user, target, signed, errcode in cases:
            got = await anna.fine("POST", "/keys/signatures/upload", {user: {target: signed}})
            assert got["failures"][user][target]["errcode"] == errcode, (target, got)
        assert await p.column("SELECT count(*) FROM key_signature") == [0]
        both = {anna.user_id: {anna.device_id: good, "UNKNOWN": good}}
        got = await anna.fine("POST", "/keys/signatures/upload", both)
        assert list(got["failures"][anna.user_id]) == ["UNKNOWN"]
        assert await p.column("SELECT count(*) FROM key_signature") == [1]


async def test_a_verified_colleague_is_news_for_the_verifier_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, _, mine = await _with_keys(p, "anna")
        bernd, _, his = await _with_keys(p, "bernd")
        clara = await p.register("clara")
        room = await anna.room(bernd.user_id, clara.user_id)
        for device in (bernd, clara):
            await device.fine("POST", f"/join/{segment(room)}", {})
        since = {device.user_id: (await device.sync())["next_batch"] for device in (anna, bernd, clara)}
        signed = mine.signed(his.upload()["master_key"], "user_signing")
        await anna.fine("POST", "/keys/signatures/upload", {bernd.user_id: {his.public("master"): signed}})
        changed = {device.user_id: (await device.sync(since[device.user_id])).get("device_lists", {}).get("changed", [])
                   for device in (anna, bernd, clara)}
        assert changed == {anna.user_id: [bernd.user_id], bernd.user_id: [], clara.user_id: []}


# -- the dehydrated device ---------------------------------------------------------------------------------------------


def _asleep(user_id: str, device_id: str = "ASLEEP") -> dict[str, Any]:
    keys = DeviceKeys(user_id, device_id)
    return {
        "device_id": device_id, "device_data": {"algorithm": "x", "device_pickle": "y"},
        "initial_device_display_name": "schläft", "device_keys": keys.device_keys(),
        "one_time_keys": keys.one_time_keys(2), "fallback_keys": keys.one_time_keys(1, fallback=True),
    }


async def test_a_sleeping_device_collects_messages_and_is_replaced_whole(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        assert (await anna.ask("GET", DEHYDRATED)).errcode == "M_NOT_FOUND"
        first, second = _asleep(anna.user_id), _asleep(anna.user_id, "LATER")
        assert await anna.fine("PUT", DEHYDRATED, first) == {"device_id": "ASLEEP"}
        got = await anna.fine("GET", DEHYDRATED)
        assert got == {"device_id": "ASLEEP", "device_data": first["device_data"]}
        for number in range(130):
            message = {"messages": {anna.user_id: {"ASLEEP": {"n": number}}}}
            await bernd.fine("PUT", f"/sendToDevice/m.x/{number}", message)
        one = await anna.fine("POST", f"{DEHYDRATED}/ASLEEP/events", {})
        two = await anna.fine("POST", f"{DEHYDRATED}/ASLEEP/events", {"next_batch": one["next_batch"]})
        three = await anna.fine("POST", f"{DEHYDRATED}/ASLEEP/events", {"next_batch": two["next_batch"]})
        seen = [event["content"]["n"] for batch in (one, two, three) for event in batch["events"]]
        assert seen == list(range(130)) and three["events"] == []
        assert (await anna.ask("POST", f"{DEHYDRATED}/{anna.device_id}/events", {})).errcode == "M_FORBIDDEN"
        await anna.fine("PUT", DEHYDRATED, second)
        assert (await _query(bernd, anna.user_id))["device_keys"][anna.user_id].keys() == {"LATER"}
        assert await p.column("SELECT DISTINCT device_id FROM one_time_key") == ["LATER"]
        assert await p.column("SELECT count(*) FROM to_device") == [0]
        assert await anna.fine("DELETE", DEHYDRATED) == {"device_id": "LATER"}
        devices = (await anna.fine("GET", "/devices"))["devices"]
        assert [device["device_id"] for device in devices] == [anna.device_id]


async def test_a_living_device_cannot_be_put_to_sleep_by_its_name(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        got = await anna.ask("PUT", DEHYDRATED, _asleep(anna.user_id, anna.device_id))
        assert (got.status, got.errcode) == (400, "M_INVALID_PARAM")
        for change in ({"device_id": ""}, {"device_id": None}, {"device_data": "x"}, {"device_keys": None}):
            assert (await anna.ask("PUT", DEHYDRATED, {**_asleep(anna.user_id), **change})).status == 400, change
        await anna.fine("PUT", DEHYDRATED, _asleep(anna.user_id))
        await anna.fine("POST", "/logout/all", {})
        again = await p.login("anna")
        assert (await again.fine("GET", DEHYDRATED))["device_id"] == "ASLEEP", "it sleeps on while nobody is logged in"

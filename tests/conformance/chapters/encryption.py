"""Device keys, one-time keys, cross-signing, to-device, key backup, dehydrated devices."""

from __future__ import annotations

from typing import Any

from tests.conformance.chapters.talking import conversation
from tests.conformance.walk import Walk, segment, transaction_id
from tests.world.keys import CrossSigning, DeviceKeys

BACKUP = "m.megolm_backup.v1.curve25519-aes-sha2"
DEHYDRATED = "/unstable/org.matrix.msc3814.v1/dehydrated_device"


async def keys(w: Walk) -> None:
    c = await conversation(w, "keyer")
    mine = DeviceKeys(c.ada.user_id, c.ada.device_id)
    since = (await c.bob.sync())["next_batch"]
    body = {
        "device_keys": mine.device_keys(),
        "one_time_keys": mine.one_time_keys(3),
        "fallback_keys": mine.one_time_keys(1, fallback=True),
    }
    got = await w(c.ada, "POST", "/v3/keys/upload", body)
    assert got["one_time_key_counts"].get("signed_curve25519") == 3, got
    await w(c.ada, "POST", "/v3/keys/upload", {})
    key_id, key = next(iter(body["one_time_keys"].items()))
    await w(c.ada, "POST", "/v3/keys/upload", {"one_time_keys": {key_id: key}})
    other = mine.one_time_keys(1).popitem()[1]
    await w(c.ada, "POST", "/v3/keys/upload", {"one_time_keys": {key_id: other}}, expect=400)
    wanted = {"device_keys": {c.ada.user_id: [], "@nobody:elsewhere.invalid": []}, "timeout": 1000}
    await w(c.bob, "POST", "/v3/keys/query", wanted)
    claim = {"one_time_keys": {c.ada.user_id: {c.ada.device_id: "signed_curve25519"}}, "timeout": 1000}
    claimed = [await w(c.bob, "POST", "/v3/keys/claim", claim) for _ in range(5)]
    given = [next(iter(got["one_time_keys"][c.ada.user_id][c.ada.device_id])) for got in claimed]
    assert sorted(given[:3]) == sorted(body["one_time_keys"]), "one-time keys first, each once"
    assert set(given[3:]) == set(body["fallback_keys"]), "then the fallback key, again and again"
    now = (await c.bob.sync())["next_batch"]
    changes = await w(c.bob, "GET", "/v3/keys/changes", params={"from": since, "to": now})
    assert c.ada.user_id in changes["changed"], changes


async def cross_signing(w: Walk) -> None:
    c = await conversation(w, "signer")
    mine, ours = DeviceKeys(c.ada.user_id, c.ada.device_id), CrossSigning(c.ada.user_id)
    await c.ada.call("POST", "/v3/keys/upload", {"device_keys": mine.device_keys()})
    await w(c.ada, "POST", "/v3/keys/device_signing/upload", ours.upload())  # the first time without the password
    await w.confirmed(c.ada, "POST", "/v3/keys/device_signing/upload", CrossSigning(c.ada.user_id).upload())
    ours_again = ours.upload()
    await w.confirmed(c.ada, "POST", "/v3/keys/device_signing/upload", ours_again)
    signed = ours.signed(mine.device_keys(), "self_signing")
    body = {c.ada.user_id: {c.ada.device_id: signed}}
    got = await w(c.ada, "POST", "/v3/keys/signatures/upload", body)
    assert not got.get("failures"), got
    got = await w(c.bob, "POST", "/v3/keys/query", {"device_keys": {c.ada.user_id: []}})
    found = got["device_keys"][c.ada.user_id][c.ada.device_id]["signatures"][c.ada.user_id]
    assert f"ed25519:{ours.public('self_signing')}" in found, found
    assert got["master_keys"][c.ada.user_id]["keys"] == ours_again["master_key"]["keys"]
    await w(c.ada, "POST", "/v3/keys/query", {"device_keys": {c.ada.user_id: [c.ada.device_id]}})


async def to_device(w: Walk) -> None:
    c = await conversation(w, "courier")
    path = f"/v3/sendToDevice/m.room_key_request/{transaction_id()}"
    content = {"action": "request_cancellation", "request_id": "1", "requesting_device_id": c.ada.device_id}
    for _ in range(2):  # the second is the same transaction
        await w(c.ada, "PUT", path, {"messages": {c.bob.user_id: {"*": content}}})
    got = await w(c.bob, "GET", "/v3/sync", params={"timeout": "0"})
    assert len(got["to_device"]["events"]) == 1, got["to_device"]


async def backup(w: Walk) -> None:
    ada = await w.person("keeper")
    await w(ada, "GET", "/v3/room_keys/version", expect=404)
    new: dict[str, Any] = {"algorithm": BACKUP, "auth_data": {"public_key": "A" * 43, "signatures": {}}}
    version = (await w(ada, "POST", "/v3/room_keys/version", new)).get("version", "")
    await w(ada, "GET", "/v3/room_keys/version")
    await w(ada, "GET", f"/v3/room_keys/version/{version}")
    changed = {**new, "version": version, "auth_data": {**new["auth_data"], "public_key": "B" * 43}}
    await w(ada, "PUT", f"/v3/room_keys/version/{version}", changed)
    await backup_keys(w, ada, version)
    newer = (await w(ada, "POST", "/v3/room_keys/version", new)).get("version", "")
    wrong = await w(ada, "PUT", "/v3/room_keys/keys", {"rooms": {}}, params={"version": version}, expect=403)
    assert wrong.get("current_version") == newer, wrong
    await w(ada, "DELETE", f"/v3/room_keys/version/{newer}")
    await w(ada, "GET", f"/v3/room_keys/version/{newer}", expect=404)


async def backup_keys(w: Walk, ada: Any, version: str) -> None:
    """The nine operations on the keys of one version."""
    at = {"version": version}
    room = segment("!ward:localhost")
    data = {"ephemeral": "A" * 43, "ciphertext": "QUFB", "mac": "QUFBQUFBQUE"}
    key = {"first_message_index": 3, "forwarded_count": 0, "is_verified": False, "session_data": data}
    better = {**key, "first_message_index": 1}
    await w(ada, "PUT", f"/v3/room_keys/keys/{room}/s1", key, params=at)
    await w(ada, "PUT", f"/v3/room_keys/keys/{room}", {"sessions": {"s1": better, "s2": key}}, params=at)
    await w(ada, "PUT", "/v3/room_keys/keys", {"rooms": {"!other:localhost": {"sessions": {"s/3": key}}}}, params=at)
    got = await w(ada, "GET", f"/v3/room_keys/keys/{room}/s1", params=at)
    assert got["first_message_index"] == 1, got
    await w(ada, "GET", f"/v3/room_keys/keys/{room}", params=at)
    got = await w(ada, "GET", "/v3/room_keys/keys", params=at)
    assert {name: len(part["sessions"]) for name, part in got["rooms"].items()} == {
        "!ward:localhost": 2,
        "!other:localhost": 1,
    }
    assert (await w(ada, "GET", f"/v3/room_keys/version/{version}"))["count"] == 3
    await w(ada, "GET", f"/v3/room_keys/keys/{room}/none", params=at, expect=404)
    await w(ada, "DELETE", f"/v3/room_keys/keys/{room}/s1", params=at)
    await w(ada, "DELETE", f"/v3/room_keys/keys/{room}", params=at)
    await w(ada, "DELETE", "/v3/room_keys/keys", params=at)


async def dehydrated(w: Walk) -> None:
    ada = await w.person("sleeper")
    await w(ada, "GET", DEHYDRATED, expect=404)
    asleep = DeviceKeys(ada.user_id, "ASLEEP")
    body = {
        "device_id": "ASLEEP",
        "device_data": {"algorithm": "org.matrix.msc3814.v2", "device_pickle": "x", "nonce": "y"},
        "initial_device_display_name": "asleep",
        "device_keys": asleep.device_keys(),
        "one_time_keys": asleep.one_time_keys(2),
        "fallback_keys": asleep.one_time_keys(1, fallback=True),
    }
    got = await w(ada, "PUT", DEHYDRATED, body)
    assert got.get("device_id") == "ASLEEP", got
    got = await w(ada, "GET", DEHYDRATED)
    assert got.get("device_data") == body["device_data"], got
    path = f"/v3/sendToDevice/m.test.box/{transaction_id()}"
    await w(ada, "PUT", path, {"messages": {ada.user_id: {"ASLEEP": {"n": 1}}}})
    got = await w(ada, "POST", f"{DEHYDRATED}/ASLEEP/events", {})
    assert [event["content"] for event in got["events"]] == [{"n": 1}], got
    await w(ada, "POST", f"{DEHYDRATED}/ASLEEP/events", {"next_batch": got["next_batch"]})
    await w(ada, "DELETE", DEHYDRATED)
    await w(ada, "GET", DEHYDRATED, expect=404)


CHAPTERS = (keys, cross_signing, to_device, backup, dehydrated)

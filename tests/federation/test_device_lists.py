"""Whose devices are whose, across servers: nothing missed, whatever is lost, repeated, late or cut off."""

import json
from pathlib import Path
from typing import Any

from appliance.matrix import canonical
from appliance.store import device_lists, devices, keys, outbox
from appliance.store.database import Store
from appliance.store.readers import Rx
from appliance.store.writer import Tx
from tests.federation.pair import ADA, BEN, Side, pair, seat, settled
from tests.federation.post import A, B, Clock, Post, until


def changes(rx: Rx, user: str) -> int:
    return int(rx.execute("SELECT count(*) FROM device_list_change WHERE user_id=?", (user,)).fetchone()[0])


def updates(post: Post) -> list[dict[str, Any]]:
    return [dict(edu["content"]) for letter in post.sent for edu in letter.edus]


async def stale(side: Side) -> bool:
    return bool(await side.store.read(device_lists.stale, 10))


async def test_a_new_device_is_known_to_others_and_asked_for_once(tmp_path: Path) -> None:
    post = Post()
    async with pair(tmp_path, post) as (a, b):
        await a.device(ADA, "PHONE")
        await settled(a)
        assert await b.known(ADA) == {"PHONE": "k1"} and b.questions == [f"devices {ADA}"]
        await a.device(ADA, "DESK", "k2")
        await a.device(ADA, "PHONE", "k3")
        await settled(a)
        assert await b.known(ADA) == {"PHONE": "k3", "DESK": "k2"}
        before = await b.store.read(changes, ADA)
        await a.drop(ADA, "PHONE")
        await settled(a)
        assert await b.known(ADA) == {"DESK": "k2"} and await b.store.read(changes, ADA) == before + 1
        assert b.questions == [f"devices {ADA}"]
        chain = [(content["stream_id"], content["prev_id"]) for content in updates(post)]
        assert all(prev == ([before] if index else []) for index, ((_, prev), before) in enumerate(
            zip(chain, [0, *(number for number, _ in chain)], strict=False)))  # fmt: skip


async def test_a_gap_is_noticed_and_filled_and_a_failed_attempt_is_repeated_after_a_restart(tmp_path: Path) -> None:
    post, clock = Post(), Clock()
    async with pair(tmp_path, post, clock) as (a, b):
        await a.device(ADA, "PHONE")
        await settled(a)
        assert await b.known(ADA) == {"PHONE": "k1"}
        b.deaf = True
        await a.store.write(lose_next, ADA)
        await a.device(ADA, "DESK", "k2")
        await settled(a)
        await until(lambda: len(b.questions) == 2)
        assert await stale(b)
        assert await b.known(ADA) == {"PHONE": "k1"}  # better than nothing while a is away
    clock.now += 25 * 3_600_000
    async with pair(tmp_path, post, clock) as (a, b):
        await until(lambda: b.questions == [f"devices {ADA}"])
        await settled(a, b)
        assert not await stale(b)
        assert await b.known(ADA) == {"PHONE": "k1", "DESK": "k2"} and len(b.questions) == 1


def lose_next(tx: Tx, user: str) -> None:
    """Count a list on without telling anybody: as if an update had been lost on its way."""
    device_lists.next_version(tx, user)


async def test_a_server_that_is_back_is_asked_at_once(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.device(ADA, "PHONE")
        await settled(a)
        await b.known(ADA)
        b.deaf = True
        await a.store.write(lose_next, ADA)
        await a.device(ADA, "DESK", "k2")
        await settled(a)
        await until(lambda: len(b.questions) == 2)
        await settled(b)
        b.deaf = False
        b.traffic.heard(A)
        await until(lambda: len(b.questions) == 3)
        await settled(b)
        assert await b.known(ADA) == {"PHONE": "k1", "DESK": "k2"} and len(b.questions) == 3


async def test_repeated_and_reordered_updates_change_nothing_back(tmp_path: Path) -> None:
    post = Post()
    async with pair(tmp_path, post) as (a, b):
        await a.device(ADA, "PHONE")
        await settled(a)
        await b.known(ADA)
        await a.device(ADA, "PHONE", "k2")
        await a.device(ADA, "PHONE", "k3")
        await settled(a)
        old = [edu for letter in post.sent for edu in letter.edus]
        before = await b.store.read(changes, ADA)
        await b.edus.handle(A, [*reversed(old), *old])
        assert await b.known(ADA) == {"PHONE": "k3"} and await b.store.read(changes, ADA) == before
        assert len(b.questions) == 1


async def test_an_update_that_overtakes_a_fetch_is_not_lost(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.device(ADA, "PHONE")
        await settled(a)

        async def meanwhile() -> None:
            b.before_answer = None
            await a.device(ADA, "DESK", "k2")
            await settled(a)

        b.before_answer = meanwhile
        assert "PHONE" in await b.known(ADA)
        await until(lambda: len(b.questions) == 2)
        await settled(a, b)
        assert await b.known(ADA) == {"PHONE": "k1", "DESK": "k2"}


async def test_telling_survives_a_crash_at_any_moment_and_tells_once(tmp_path: Path) -> None:
    post = Post(down={B})
    store = await Store.open(tmp_path / f"{A}.db")  # a process that dies before it told anybody
    await store.write(seat, {ADA: "join", BEN: "join"})
    await store.write(devices.ensure, ADA, "PHONE", None, 1, None)
    await store.close()
    async with pair(tmp_path, post) as (a, _):
        await a.device(ADA, "PHONE")
        await a.device(ADA, "DESK", "k2")
        await settled(a)
        assert await a.store.read(outbox.owed, B) == 2
    post.down.clear()
    clock = Clock(Clock().now + 10**7)
    async with pair(tmp_path, post, clock) as (a, b):
        await until(lambda: len(updates(post)) == 2)
        await settled(a, b)
        assert sorted(content["device_id"] for content in updates(post)) == ["DESK", "PHONE"]
        assert await b.known(ADA) == {"PHONE": "k1", "DESK": "k2"}


async def test_cross_signing_keys_are_told_and_followed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.device(ADA, "PHONE")
        await settled(a)
        await b.known(ADA)

        def publish(tx: Tx) -> None:
            made = {
                usage: canonical.encode({"user_id": ADA, "usage": [usage], "keys": {f"ed25519:{usage}": usage}})
                for usage in ("master", "self_signing", "user_signing")
            }
            keys.put_cross_signing(tx, ADA, made)
            devices.list_changed(tx, ADA)

        await a.store.write(publish)
        await settled(a)
        found = await b.users.query_keys(A, {ADA: []})
        assert found["master_keys"][ADA]["keys"] == {"ed25519:master": "master"}
        assert found["self_signing_keys"][ADA]["usage"] == ["self_signing"]
        assert "user_signing" not in json.dumps(found)


async def test_a_server_speaks_for_its_own_users_only_and_strangers_are_not_followed(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.device(ADA, "PHONE")
        await settled(a)
        await b.known(ADA)
        before = await b.store.read(changes, ADA)
        forged = {"user_id": ADA, "device_id": "EVIL", "stream_id": 10**6, "prev_id": []}
        for origin in ("evil.example", B):
            await b.edus.handle(origin, [{"edu_type": "m.device_list_update", "content": forged}])  # type: ignore[arg-type]
            await b.edus.handle(origin, [{"edu_type": "m.signing_key_update", "content": {"user_id": ADA}}])  # type: ignore[arg-type]
        stranger = {**forged, "user_id": "@nobody:a.example"}
        await b.edus.handle(A, [{"edu_type": "m.device_list_update", "content": stranger}])
        for nonsense in ({}, {"user_id": ADA}, {**forged, "stream_id": "x"}, {**forged, "prev_id": [None]}, 7):
            await b.edus.handle(A, [{"edu_type": "m.device_list_update", "content": nonsense}, {"edu_type": 5}])
        assert await b.store.read(changes, ADA) == before and not await stale(b)
        assert await b.store.read(changes, "@nobody:a.example") == 0


async def test_copies_end_with_the_last_common_room(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        await a.device(ADA, "PHONE")
        await settled(a)
        await b.known(ADA)
        assert await b.store.read(device_lists.copy, ADA) is not None
        await b.store.write(seat, {BEN: "leave"})
        assert await b.store.write(device_lists.drop_unwatched, B) == 1
        assert await b.store.read(device_lists.copy, ADA) is None
        assert await b.known(ADA) == {"PHONE": "k1"}  # asked directly, and not kept
        assert await b.store.read(device_lists.copy, ADA) is None and b.questions[-1] == "keys"


async def test_somebody_unreachable_is_named_and_never_shown_without_devices(tmp_path: Path) -> None:
    async with pair(tmp_path) as (_, b):
        b.deaf = True
        found = await b.users.query_keys(A, {ADA: []})
        assert found["failures"] and ADA not in found["device_keys"]


async def test_a_list_is_told_anew_to_those_who_may_hold_an_old_one(tmp_path: Path) -> None:
    post = Post()
    async with pair(tmp_path, post) as (a, b):
        await a.device(ADA, "PHONE")
        await settled(a)
        assert len(updates(post)) == 1
        await a.store.write(again)
        await settled(a, b)
        assert [content["device_id"] for content in updates(post)] == ["PHONE", "PHONE"]


def again(tx: Tx) -> None:
    device_lists.tell_again(tx, ADA)
    tx.wake_user(ADA)

"""What servers tell each other beside events: for their own users only, once, and where the room lets them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from appliance.accounts.to_device import ToDevice
from appliance.federation.passing import owe_receipt
from appliance.federation.users import EDU_BYTES
from appliance.matrix import canonical
from appliance.matrix.ids import DeviceId, UserId
from appliance.matrix.requester import Requester
from appliance.store import devices, outbox, receipts, rooms, state, to_device
from appliance.store.readers import Rx
from appliance.store.writer import Tx
from tests.federation.pair import ADA, BEN, ROOM, Side, pair, seat, settled
from tests.federation.post import A, B, Clock, Post, until


def letters(rx: Rx, user: str, device: str) -> list[bytes]:
    return [raw for _, raw in to_device.pending(rx, user, device, 0, 2**60, 1000)]


async def inbox_of(side: Side, user: str, device: str) -> list[bytes]:
    return await side.store.read(letters, user, device)


def sender_of(side: Side) -> ToDevice:
    return ToDevice(side.store, side.clock, side.name, side.users)


ADAS = Requester(ADA, DeviceId("PHONE"), 1)


async def test_a_message_for_a_device_arrives_once(tmp_path: Path) -> None:
    post = Post()
    async with pair(tmp_path, post) as (a, b):
        await b.device(BEN, "ONE")
        await b.device(BEN, "TWO")
        await settled(b)
        messages: dict[str, Any] = {BEN: {"ONE": {"n": 1}, "GONE": {"n": 2}}}
        for _ in range(3):
            await sender_of(a).send(ADAS, "m.room_key", "t1", messages)
        await sender_of(a).send(ADAS, "m.room_key", "t2", {str(BEN): {"*": {"n": 3}}})
        await settled(a)
        one, two = await inbox_of(b, BEN, "ONE"), await inbox_of(b, BEN, "TWO")
        assert [b'"n":1' in raw for raw in one] == [True, False] and len(two) == 1
        assert all(b'"sender":"@ada:a.example"' in raw and b'"type":"m.room_key"' in raw for raw in one)
        edus = [edu for letter in post.sent if letter.peer == B for edu in letter.edus]
        assert all(len(edu["content"]["message_id"]) <= 32 for edu in edus)
        for _ in range(5):
            await b.edus.handle(A, edus)  # in transactions of other ids
        assert await inbox_of(b, BEN, "ONE") == one and await inbox_of(b, BEN, "TWO") == two


async def test_messages_wait_for_a_peer_that_is_away_and_survive_a_restart(tmp_path: Path) -> None:
    post, clock = Post(down={B}), Clock()
    async with pair(tmp_path, post, clock) as (a, b):
        await b.device(BEN, "ONE")
        for number in range(5):
            await sender_of(a).send(ADAS, "x", f"t{number}", {str(BEN): {"ONE": {"n": number}}})
        await until(a.outbound.idle)
    post.down.clear()
    clock.now += 10**7
    async with pair(tmp_path, post, clock) as (a, b):
        await settled(a)
        assert [raw.split(b'"n":')[1][:1] for raw in await inbox_of(b, BEN, "ONE")] == [b"0", b"1", b"2", b"3", b"4"]


async def test_a_large_batch_is_cut_into_bounded_edus(tmp_path: Path) -> None:
    post = Post()
    async with pair(tmp_path, post) as (a, _):
        messages: dict[str, Any] = {f"@u{n}:{B}": {"D": {"blob": "x" * 20_000}} for n in range(60)}
        await sender_of(a).send(ADAS, "x", "t", messages)
        await settled(a)
        edus = [edu["content"] for letter in post.sent for edu in letter.edus]
        assert len(edus) == 5 and all(len(str(edu)) < EDU_BYTES + 10_000 for edu in edus)
        assert {user for edu in edus for user in edu["messages"]} == set(messages)


def message(**changes: Any) -> dict[str, Any]:
    content = {"sender": ADA, "type": "x", "message_id": "m", "messages": {BEN: {"ONE": {}}}, **changes}
    return {"edu_type": "m.direct_to_device", "content": content}


@pytest.mark.parametrize(
    "edu",
    [
        message(sender=BEN),
        message(sender="@eve:evil.example"),
        message(sender=None),
        message(message_id=""),
        message(message_id="x" * 300),
        message(type=7),
        message(messages=[]),
        message(messages={BEN: []}),
        message(messages={BEN: {"ONE": "text"}}),
        message(messages={BEN: {"ONE": {"x": "y" * 70_000}}}),
        message(messages={BEN: {f"D{n}": {} for n in range(5_001)}}),
        message(messages={BEN: {"ONE": {"x": 1.5}}}),
        message(messages={ADA: {"ONE": {}}}),
    ],
)
async def test_untrue_or_malformed_messages_reach_nobody(tmp_path: Path, edu: dict[str, Any]) -> None:
    async with pair(tmp_path) as (_, b):
        await b.device(BEN, "ONE")
        await b.store.write(devices.ensure, ADA, "ONE", None, 1, None)
        await b.edus.handle(A, [edu])
        assert await inbox_of(b, BEN, "ONE") == [] and await inbox_of(b, ADA, "ONE") == []
        await b.edus.handle(A, [edu, message(message_id="good")])
        assert len(await inbox_of(b, BEN, "ONE")) == 1


# -- receipts ---------------------------------------------------------------------------------------------------------


def event(tx: Tx, event_id: str) -> int:
    """Put an event into the ward's timeline."""
    room = rooms.find(tx, ROOM)
    assert room is not None
    tx.execute(
        "INSERT INTO event (event_id, rid, pos, type, sender, ts, depth, flags, json) VALUES (?,?,?,?,?,1,1,0,?)",
        (event_id, room.rid, tx.next_pos(), "m.room.message", ADA, b"{}"),
    )
    return room.rid


def read_by(rx: Rx, user: str) -> list[tuple[str, str, int]]:
    room = rooms.find(rx, ROOM)
    assert room is not None
    return [(row.event_id, row.thread_id, row.ts) for row in receipts.of_user(rx, room.rid, user)]


def receipt(user: str = ADA, event_id: object = "$1", room: str = ROOM, **data: Any) -> dict[str, Any]:
    entry = {"event_ids": [event_id], "data": {"ts": 5, **data}}
    return {"edu_type": "m.receipt", "content": {room: {"m.read": {user: entry}}}}


async def test_receipts_are_owed_and_the_newest_is_enough(tmp_path: Path) -> None:
    post = Post(down={B})
    async with pair(tmp_path, post) as (a, b):
        rid = 0
        for side in (b, a):
            for event_id in ("$1", "$2", "$3"):
                rid = await side.store.write(event, event_id)
        owe = owe_receipt(A)
        for number in (1, 2, 3):
            await a.store.write(owe, rid, ROOM, ADA, "", f"${number}", number)
            await a.store.write(owe, rid, ROOM, ADA, "$root", f"${number}", number)
            await until(a.outbound.idle)
        post.down.clear()
        a.outbound.heard(B)
        a.clock.now += 10_000
        a.outbound.nudge()
        await settled(a)
        assert sorted(await b.store.read(read_by, ADA)) == [("$3", "", 3), ("$3", "$root", 3)]
        assert sum(len(letter.edus) for letter in post.sent) <= 4


@pytest.mark.parametrize(
    "edu",
    [
        receipt(BEN),
        receipt(f"@absent:{A}"),
        receipt(room="!other:a.example"),
        receipt(event_id="$unknown"),
        receipt(event_id=5),
        receipt(ts="now"),
        receipt(thread_id=5),
        {"edu_type": "m.receipt", "content": {ROOM: {"m.read.private": {ADA: {}}}}},
        {"edu_type": "m.receipt", "content": {ROOM: 5}},
    ],
)
async def test_untrue_receipts_are_passed_over(tmp_path: Path, edu: dict[str, Any]) -> None:
    async with pair(tmp_path) as (_, b):
        await b.store.write(event, "$1")
        await b.edus.handle(A, [edu])
        for user in (ADA, BEN, f"@absent:{A}"):
            assert await b.store.read(read_by, user) == []
        await b.edus.handle(A, [receipt()])
        assert await b.store.read(read_by, ADA) == [("$1", "", 5)]


# -- typing, presence --------------------------------------------------------------------------------------------------


async def test_typing_goes_both_ways_and_is_not_echoed(tmp_path: Path) -> None:
    post = Post()
    async with pair(tmp_path, post) as (a, b):
        a.typing.set(ROOM, ADA, 30_000)
        await until(lambda: b.typing.users(ROOM) == [ADA])
        a.typing.set(ROOM, ADA, 30_000)
        b.typing.set(ROOM, BEN, 30_000)
        await until(lambda: a.typing.users(ROOM) == [ADA, BEN])
        a.typing.stop(ROOM, ADA)
        await until(lambda: b.typing.users(ROOM) == [BEN])
        await settled(a, b)
        kinds = [(letter.peer, edu["content"]["typing"]) for letter in post.sent for edu in letter.edus]
        assert kinds == [(B, True), (A, True), (B, False)]
        a.clock.now += 30_000
        a.typing.set(ROOM, ADA, 30_000)
        a.clock.now += 30_000
        a.typing.set(ROOM, ADA, 30_000)  # goes on: others would forget them
        await until(lambda: len(post.sent) >= 4)
        await settled(a)


@pytest.mark.parametrize(
    "changes", [{"user_id": BEN}, {"user_id": "@eve:a.example"}, {"room_id": "!x:y"}, {"user_id": 5}]
)
async def test_untrue_typing_is_passed_over(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    async with pair(tmp_path) as (_, b):
        content = {"user_id": ADA, "room_id": ROOM, "typing": True, **changes}
        await b.edus.handle(A, [{"edu_type": "m.typing", "content": content}])
        assert b.typing.users(ROOM) == [] and b.typing.users("!x:y") == []


async def test_a_room_that_shuts_a_server_out_does_not_hear_its_typing_and_receipts(tmp_path: Path) -> None:
    async with pair(tmp_path) as (_, b):
        await b.store.write(event, "$1")
        await b.store.write(shut_out)
        await b.edus.handle(A, [receipt(), {"edu_type": "m.typing", "content": {
            "user_id": ADA, "room_id": ROOM, "typing": True}}])  # fmt: skip
        assert b.typing.users(ROOM) == [] and await b.store.read(read_by, ADA) == []


def shut_out(tx: Tx) -> None:
    room = rooms.find(tx, ROOM)
    assert room is not None
    pdu: dict[str, Any] = {
        "type": "m.room.server_acl", "state_key": "", "sender": BEN, "room_id": ROOM, "depth": 1, "auth_events": [],
        "prev_events": [], "origin_server_ts": 1, "content": {"allow": ["*"], "deny": [A]},
    }  # fmt: skip
    row = tx.execute(
        "INSERT INTO event (event_id, rid, pos, type, sender, ts, depth, flags, json) VALUES ('$acl',?,?,?,?,1,1,0,?) "
        "RETURNING eid", (room.rid, tx.next_pos(), "m.room.server_acl", BEN, canonical.encode(pdu)),
    ).fetchone()  # fmt: skip
    sk = state.key_id(tx, ("m.room.server_acl", ""))
    tx.execute("INSERT INTO current_state (rid, sk, eid) VALUES (?, ?, ?)", (room.rid, sk, row[0]))


async def test_presence_of_those_whom_we_meet(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        a.passing.appeared(ADA)
        a.passing.appeared(BEN)  # not ours to tell
        await until(lambda: bool(b.seen))
        await settled(a)
        assert b.seen == [(ADA, "online", None, 0)] and a.seen == []
        b.seen.clear()
        entries = [
            {"user_id": BEN, "presence": "online"}, {"user_id": f"@stranger:{A}", "presence": "online"},
            {"user_id": ADA, "presence": "dancing"}, {"user_id": 3, "presence": "online"},
        ]  # fmt: skip
        for entry in entries:
            await b.edus.handle(A, [{"edu_type": "m.presence", "content": {"push": [entry]}}])
        await b.edus.handle(A, [{"edu_type": "m.presence", "content": {"push": 3}}])
        assert b.seen == []
        await b.store.write(seat, {BEN: "leave"})
        update = {"user_id": ADA, "presence": "online", "status_msg": 5, "last_active_ago": "x"}
        await b.edus.handle(A, [{"edu_type": "m.presence", "content": {"push": [update]}}])
        assert b.seen == []


async def test_profile_and_claims_come_from_the_users_server(tmp_path: Path) -> None:
    async with pair(tmp_path) as (a, b):
        assert await b.users.profile(ADA, None) == {"displayname": "X"}
        found = await b.users.claim_keys(A, {ADA: {"PHONE": "x"}})
        assert found["one_time_keys"] == {ADA: {"PHONE": {"x:1": "k"}}}
        assert b.questions == ["profile", "claim"] and a.questions == []
        b.deaf = True
        with pytest.raises(Exception, match="Profile not found"):
            await b.users.profile(UserId(ADA), "displayname")
        assert await a.store.read(outbox.owed, B) == 0

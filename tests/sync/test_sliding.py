"""The sliding sync: windows, filters, and what a room's section says at every turn of a membership."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.rooms.join import knock
from appliance.store import devices
from appliance.sync.sliding_ask import Extensions, LettersAsk, ListFilter, Scope
from appliance.sync.sliding_connections import PER_DEVICE, UnknownPos
from tests.sync.station import members, names, station, texts
from tests.sync.window import ALL, EVERYTHING, LAZY, config, slide


async def test_a_room_comes_whole_once_and_then_what_is_new(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob", "Bob")
        room_id = await w.room(ada, "public_chat", name="Ward 3")
        await w.join(bob, room_id)
        await w.say(bob, room_id, "hello")
        first = await slide(w, ada, limit=2, wanted=LAZY)
        room = first["rooms"][room_id]
        assert first["lists"] == {"all": {"count": 1}}
        assert (room["initial"], room["name"], room["joined_count"], room["limited"]) == (True, "Ward 3", 2, True)
        assert (room["num_live"], room["notification_count"], room["membership"]) == (0, 1, "join")
        assert members(room["required_state"]) == names([ada, bob])
        assert texts(room["timeline"]) == ["hello"]
        await w.say(bob, room_id, "again")
        second: Any = {}
        for _ in range(2):
            second = await slide(w, ada, first["pos"], limit=2, wanted=LAZY)
            room = second["rooms"][room_id]
            assert texts(room["timeline"]) == ["again"]
            assert "initial" not in room and "name" not in room
            assert (room["required_state"], room["limited"], room["num_live"]) == ([], False, 1)
        assert room["bump_stamp"] > first["rooms"][room_id]["bump_stamp"]
        assert (await slide(w, ada, second["pos"], limit=2, wanted=LAZY))["rooms"] == {}


async def test_rooms_are_ordered_by_activity_and_a_window_shows_the_latest(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        found = [await w.room(ada) for _ in range(4)]
        first = await slide(w, ada, upto=1)
        assert (set(first["rooms"]), first["lists"]["all"]["count"]) == (set(found[2:]), 4)
        await w.say(ada, found[0], "up")
        second = await slide(w, ada, first["pos"], upto=1)
        assert list(second["rooms"]) == [found[0]]
        assert second["rooms"][found[0]]["initial"] is True
        assert second["rooms"][found[0]]["num_live"] == 1
        for number in range(3):
            await w.say(ada, found[2], str(number))  # it fell out of the window and comes back with all it missed
        third = await slide(w, ada, second["pos"], upto=1)
        assert texts(third["rooms"][found[2]]["timeline"]) == ["0", "1", "2"]
        assert "initial" not in third["rooms"][found[2]]
        wider = await slide(w, ada, third["pos"], upto=9)
        assert set(wider["rooms"]) == {found[1]}


async def test_a_wider_config_brings_more_of_the_past_and_more_state(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada, name="Ward")
        for number in range(6):
            await w.say(ada, room_id, str(number))
        first = await slide(w, ada, limit=1, wanted=[("m.room.create", "")])
        assert texts(first["rooms"][room_id]["timeline"]) == ["5"]
        room = (await slide(w, ada, first["pos"], limit=4, wanted=[("m.room.name", "")]))["rooms"][room_id]
        assert texts(room["timeline"]) == ["2", "3", "4", "5"]
        assert room["unstable_expanded_timeline"] is True
        assert (room["num_live"], room["limited"], "initial" in room) == (0, True, False)
        assert [event["type"] for event in room["required_state"]] == ["m.room.name"]
        subscription = {room_id: config(1, [("m.room.power_levels", "")])}
        both = await slide(w, ada, first["pos"], limit=1, subscriptions=subscription)
        assert [event["type"] for event in both["rooms"][room_id]["required_state"]] == ["m.room.power_levels"]
        assert (await slide(w, ada, both["pos"], limit=1, subscriptions=subscription))["rooms"] == {}


async def test_filters_choose_rooms(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        plain, chat, secret = await w.room(ada), await w.room(ada), await w.room(ada)
        space = await w.room(ada, creation_content={"type": "m.space"})
        invited = await w.room(bob)
        await w.state(bob, invited, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
        await w.invite(bob, invited, ada)
        await w.state(ada, secret, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
        await w.state(ada, space, "m.space.child", {"via": ["test.example"]}, plain)
        await w.state(ada, space, "m.space.child", {}, chat)
        await w.put(ada, "m.direct", {bob.user_id: [chat]})
        await w.put(ada, "m.tag", {"tags": {"m.favourite": {}}}, plain)
        await w.put(ada, "m.tag", {"tags": {"m.lowpriority": {}, "m.favourite": {}}}, chat)
        everything = {plain, chat, secret, space, invited}
        cases: list[tuple[ListFilter, Any]] = [
            (ListFilter(), everything),
            (ListFilter(is_dm=True), {chat}),
            (ListFilter(is_dm=False), everything - {chat}),
            (ListFilter(is_encrypted=True), {secret, invited}),
            (ListFilter(is_encrypted=False), {plain, chat, space}),
            (ListFilter(is_invite=True), {invited}),
            (ListFilter(is_invite=False), everything - {invited}),
            (ListFilter(room_types=frozenset({"m.space"})), {space}),
            (ListFilter(room_types=frozenset({None})), everything - {space}),
            (ListFilter(not_room_types=frozenset({"m.space"})), everything - {space}),
            (ListFilter(not_room_types=frozenset({None})), {space}),
            (ListFilter(tags=frozenset({"m.favourite"})), {plain, chat}),
            (ListFilter(tags=frozenset({"m.favourite"}), not_tags=frozenset({"m.lowpriority"})), {plain}),
            (ListFilter(spaces=frozenset({space})), {plain}),
            (ListFilter(spaces=frozenset({"!unknown:x"})), set()),
        ]
        for only, expected in cases:
            answer = await slide(w, ada, only=only)
            assert (set(answer["rooms"]), answer["lists"]["all"]["count"]) == (expected, len(expected)), only
        assert (await slide(w, ada, only=ListFilter(is_dm=True)))["rooms"][chat]["is_dm"] is True


async def test_a_room_becomes_a_direct_chat_and_stops_being_one(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        pos = (await slide(w, ada))["pos"]
        for content, expected in (({"@b:x": [room_id]}, True), ({"@b:x": []}, False)):
            await w.put(ada, "m.direct", content)
            answer = await slide(w, ada, pos)
            assert answer["rooms"][room_id]["is_dm"] is expected
            pos = answer["pos"]
        assert (await slide(w, ada, pos))["rooms"] == {}


async def test_invited_joined_kicked(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, name="Ward")
        await w.say(ada, room_id, "for members")
        first = await slide(w, bob)
        await w.invite(ada, room_id, bob)
        second = await slide(w, bob, first["pos"])
        room = second["rooms"][room_id]
        assert {"m.room.name", "m.room.member"} <= {event["type"] for event in room["invite_state"]}
        assert room["initial"] is True and "timeline" not in room and "name" not in room
        assert (await slide(w, bob, second["pos"]))["rooms"] == {}
        await w.join(bob, room_id)
        third = await slide(w, bob, second["pos"])
        room = third["rooms"][room_id]
        assert (room["initial"], room["name"], room["num_live"]) == (True, "Ward", 1)
        await w.say(ada, room_id, "last words")
        await w.kick(ada, room_id, bob.user_id)
        await w.say(ada, room_id, "not for bob")
        fourth = await slide(w, bob, third["pos"], wanted=LAZY)
        room = fourth["rooms"][room_id]
        assert (texts(room["timeline"]), room["membership"]) == (["last words"], "leave")
        assert "joined_count" not in room
        assert (await slide(w, bob, fourth["pos"], wanted=LAZY))["rooms"] == {}
        assert room_id in (await slide(w, bob))["rooms"], "who was kicked may not know it yet"


async def test_who_leaves_or_declines_hears_of_it_once_and_a_new_connection_never(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        left, declined = await w.room(ada, "public_chat"), await w.room(ada)
        await w.join(bob, left)
        await w.invite(ada, declined, bob)
        first = await slide(w, bob)
        assert set(first["rooms"]) == {left, declined}
        await w.leave(bob, left)
        await w.leave(bob, declined)
        second = await slide(w, bob, first["pos"])
        assert {room_id: room["membership"] for room_id, room in second["rooms"].items()} == {
            left: "leave", declined: "leave"
        }
        assert second["rooms"][declined]["required_state"][0]["content"]["membership"] == "leave"
        assert (await slide(w, bob, second["pos"]))["rooms"] == {}
        assert (await slide(w, bob))["rooms"] == {}


async def test_strangers_see_nothing_by_subscribing(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, eve = await w.person("ada"), await w.person("eve")
        room_id = await w.room(ada, "public_chat")
        await w.ban(ada, room_id, eve.user_id)
        wanted = {room_id: config(10, EVERYTHING), "!unknown:x": config(10, EVERYTHING)}
        answer = await slide(w, eve, subscriptions=wanted)
        assert (answer["rooms"], answer["lists"]["all"]["count"]) == ({}, 0)
        own = await slide(w, ada, subscriptions=wanted, lists={})
        assert set(own["rooms"]) == {room_id}


async def test_a_knock_shows_what_was_shown(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada)
        await w.state(ada, room_id, "m.room.join_rules", {"join_rule": "knock"})
        await knock(w.author, bob, room_id)
        room = (await slide(w, bob))["rooms"][room_id]
        assert (room["membership"], bool(room["invite_state"])) == ("knock", True)


async def test_positions_are_known_only_to_their_connection(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        second = w.another_device(ada)
        first = await slide(w, ada)
        newer = await slide(w, ada, first["pos"])
        await slide(w, ada, newer["pos"])
        for who, pos, conn_id in (
            (ada, first["pos"], ""), (bob, newer["pos"], ""), (second, newer["pos"], ""), (ada, newer["pos"], "other"),
            (ada, "x", ""), (ada, "-1", ""), (ada, "9" * 40, ""), (ada, "\N{SUPERSCRIPT TWO}", ""),
        ):
            with pytest.raises(UnknownPos):
                await slide(w, who, pos, conn_id=conn_id)
        await slide(w, ada, newer["pos"])
        for number in range(PER_DEVICE):
            await slide(w, ada, conn_id=f"c{number}")
        with pytest.raises(UnknownPos):
            await slide(w, ada, newer["pos"])


async def test_a_long_poll_wakes_for_what_concerns_it(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, "public_chat")
        await w.join(bob, room_id)
        pos = (await slide(w, bob, extensions=ALL))["pos"]
        task = asyncio.create_task(slide(w, bob, pos, timeout=20_000, extensions=ALL))
        await w.waiting(bob)
        await w.room(ada)
        w.typing.set(room_id, ada.user_id, 20_000)
        async with asyncio.timeout(5):
            answer = await task
        assert answer["extensions"]["typing"]["rooms"][room_id]["content"] == {"user_ids": [ada.user_id]}
        task = asyncio.create_task(slide(w, bob, answer["pos"], timeout=20_000, extensions=ALL))
        await w.waiting(bob)
        await w.say(ada, room_id, "hello")
        async with asyncio.timeout(5):
            assert texts((await task)["rooms"][room_id]["timeline"]) == ["hello"]
        assert (await slide(w, bob, answer["pos"], timeout=50))["rooms"]


async def test_extensions(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id, other = await w.room(ada, "public_chat"), await w.room(ada)
        await w.join(bob, room_id)
        said = await w.say(ada, room_id, "hello")
        await w.read(bob, room_id, said)
        await w.put(ada, "org.example", {"a": 1})
        await w.put(ada, "m.tag", {"tags": {}}, room_id)
        await w.letter(ada, 1)
        first = await slide(w, ada, extensions=ALL)
        found = first["extensions"]
        assert {"type": "org.example", "content": {"a": 1}} in found["account_data"]["global"]
        assert set(found["account_data"]["rooms"]) == {room_id}
        assert list(found["receipts"]["rooms"][room_id]["content"]) == [said]
        assert found["e2ee"]["device_one_time_keys_count"] == {"signed_curve25519": 0}
        assert "device_lists" not in found["e2ee"]
        assert [message["content"]["number"] for message in found["to_device"]["events"]] == [1]
        again = await slide(w, ada, first["pos"], extensions=ALL)
        assert len(again["extensions"]["to_device"]["events"]) == 1, "not acknowledged"
        since = int(found["to_device"]["next_batch"])
        quiet = Extensions(LettersAsk(since, 100), True, Scope(), Scope(), Scope())
        again = await slide(w, ada, first["pos"], extensions=quiet)
        assert again["extensions"].keys() == {"to_device", "e2ee"}
        assert again["extensions"]["to_device"]["events"] == []
        await w.store.write(devices.list_changed, bob.user_id)
        await w.put(ada, "m.tag", {"tags": {"u.x": {}}}, other)
        await w.read(bob, room_id, said, "m.read.private")
        next_one = await slide(w, ada, first["pos"], extensions=quiet)
        assert next_one["extensions"]["e2ee"]["device_lists"] == {"changed": [bob.user_id], "left": []}
        assert set(next_one["extensions"]["account_data"]["rooms"]) == {other}
        assert "receipts" not in next_one["extensions"], "private receipts are nobody else's business"
        scoped = Extensions(account_data=Scope(frozenset({"none"}), frozenset()))
        assert (await slide(w, ada, first["pos"], extensions=scoped))["extensions"] == {}


async def test_account_data_that_came_while_the_room_was_out_of_the_window(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        one, two = await w.room(ada), await w.room(ada)
        first = await slide(w, ada, extensions=ALL)
        narrow = await slide(w, ada, first["pos"], upto=0, extensions=ALL)
        await w.put(ada, "m.tag", {"tags": {}}, one)
        narrow = await slide(w, ada, narrow["pos"], upto=0, extensions=ALL)
        assert "account_data" not in narrow["extensions"]
        wide = await slide(w, ada, narrow["pos"], extensions=ALL)
        assert set(wide["extensions"]["account_data"]["rooms"]) == {one}
        assert set(wide["rooms"]) == set(), two


async def test_ignored_people_are_not_heard(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, eve = await w.person("ada"), await w.person("eve")
        room_id = await w.room(ada, "public_chat")
        await w.join(eve, room_id)
        await w.put(ada, "m.ignored_user_list", {"ignored_users": {eve.user_id: {}}})
        pos = (await slide(w, ada))["pos"]
        await w.say(eve, room_id, "noise")
        await w.invite(eve, await w.room(eve), ada)
        answer = await slide(w, ada, pos)
        assert texts(answer["rooms"].get(room_id, {"timeline": []})["timeline"]) == []
        assert answer["lists"]["all"]["count"] == 1

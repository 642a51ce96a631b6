"""State in the classic sync: what changed, lazily loaded members, state after the timeline, full state, filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.matrix.ids import RoomId
from appliance.matrix.requester import Requester
from tests.sync.station import Station, joined, members, names, station, texts, timeline
from tests.sync.window import ALL, slide

LAZY = {"room": {"state": {"lazy_load_members": True}}}
TINY = {"room": {"timeline": {"limit": 1}}}


async def crowd(w: Station, size: int) -> tuple[list[Requester], RoomId]:
    """Make a room with so many people in it."""
    people = [await w.person(f"p{number}") for number in range(size)]
    room_id = await w.room(people[0], "public_chat")
    for person in people[1:]:
        await w.join(person, room_id)
    return people, room_id


def topic(events: list[Any]) -> list[str]:
    return [event["content"]["topic"] for event in events if event["type"] == "m.room.topic"]


async def test_state_hidden_in_a_gap_is_in_the_state_section(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        token = await w.token(ada)
        await w.state(ada, room_id, "m.room.topic", {"topic": "one"})
        await w.state(ada, room_id, "m.room.topic", {"topic": "two"})
        await w.say(ada, room_id, "x")
        part = joined(await w.sync(ada, token, filter=TINY), room_id)
        assert (topic(part["state"]["events"]), texts(part["timeline"]["events"])) == (["two"], ["x"])


async def test_state_before_a_limited_timeline_is_rewound_to_its_start(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        token = await w.token(ada)
        await w.state(ada, room_id, "m.room.topic", {"topic": "one"})
        await w.state(ada, room_id, "m.room.topic", {"topic": "two"})
        part = joined(await w.sync(ada, token, filter=TINY), room_id)
        assert (topic(part["state"]["events"]), topic(part["timeline"]["events"])) == (["one"], ["two"])
        after = joined(await w.sync(ada, token, filter=TINY, state_after=True), room_id)
        assert (topic(after["state_after"]["events"]), "state" in after) == (["two"], False)
        unstable = joined(await w.sync(ada, token, filter=TINY, state_after=True, unstable_names=True), room_id)
        assert topic(unstable["org.matrix.msc4222.state_after"]["events"]) == ["two"]


async def test_full_state_answers_at_once_with_all_state_of_every_room(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        people, room_id = await crowd(w, 3)
        token = await w.token(people[0])
        part = joined(await w.sync(people[0], token, 10_000, full_state=True), room_id)
        kinds = {event["type"] for event in part["state"]["events"]}
        assert {"m.room.create", "m.room.power_levels"} <= kinds
        assert members(part["state"]["events"]) == names(people)


async def test_lazy_members_are_those_who_speak_and_come_once(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        people, room_id = await crowd(w, 8)
        me = people[0]
        for person in people[1:4]:
            for number in range(5):
                await w.say(person, room_id, str(number))
        first = await w.sync(me, filter={"room": {**LAZY["room"], "timeline": {"limit": 10}}})
        assert members(joined(first, room_id)["state"]["events"]) >= names([me, people[2], people[3]])
        assert people[1].user_id not in members(joined(first, room_id)["state"]["events"]) or (
            people[1].user_id in joined(first, room_id)["summary"].get("m.heroes", ())
        )
        token = first["next_batch"]
        for speaker, expected in ((people[2], set()), (people[7], names([people[7]])), (people[7], set())):
            await w.say(speaker, room_id, "hello")
            answer = await w.sync(me, token, filter=LAZY)
            assert texts(timeline(answer, room_id)) == ["hello"]
            assert members(joined(answer, room_id)["state"]["events"]) == expected
            again = await w.sync(me, token, filter=LAZY)
            assert members(joined(again, room_id)["state"]["events"]) == expected, "the first answer may be lost"
            token = answer["next_batch"]
        redundant = {"room": {"state": {"lazy_load_members": True, "include_redundant_members": True}}}
        await w.say(people[7], room_id, "hello")
        answer = await w.sync(me, token, filter=redundant)
        assert members(joined(answer, room_id)["state"]["events"]) == names([people[7]])


async def test_a_first_sync_forgets_which_members_were_sent(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        people, room_id = await crowd(w, 3)
        await w.say(people[1], room_id, "one")
        for _ in range(2):
            answer = await w.sync(people[0], filter=LAZY)
            assert people[1].user_id in members(
                joined(answer, room_id)["state"]["events"] + timeline(answer, room_id)
            )


async def test_a_changed_member_comes_although_it_was_sent_before(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        people, room_id = await crowd(w, 3)
        me, other = people[0], people[1]
        await w.say(other, room_id, "one")
        token = (await w.sync(me, filter=LAZY))["next_batch"]
        content = {"membership": "join", "displayname": "New"}
        await w.state(other, room_id, "m.room.member", content, other.user_id)
        await w.say(other, room_id, "two")
        tiny = {"room": {**LAZY["room"], "timeline": {"limit": 1}}}
        part = joined(await w.sync(me, token, filter=tiny), room_id)
        assert [event["content"].get("displayname") for event in part["state"]["events"]] == ["New"]


async def test_filters_take_out_types_senders_rooms_and_fields(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        people, room_id = await crowd(w, 3)
        me, other = people[0], people[1]
        elsewhere = await w.room(me)
        token = await w.token(me)
        await w.say(me, room_id, "mine")
        await w.say(other, room_id, "theirs")
        await w.state(me, room_id, "m.room.topic", {"topic": "t"})
        await w.say(me, elsewhere, "there")
        await w.put(me, "m.tag", {"tags": {}}, room_id)
        await w.put(me, "org.example", {"a": 1})

        async def ask(**wanted: Any) -> Any:
            return await w.sync(me, token, filter=wanted)

        assert texts(timeline(await ask(room={"timeline": {"senders": [other.user_id]}}), room_id)) == ["theirs"]
        assert texts(timeline(await ask(room={"timeline": {"not_senders": [other.user_id]}}), room_id)) == ["mine"]
        only = timeline(await ask(room={"timeline": {"types": ["m.room.to*"]}}), room_id)
        assert [event["type"] for event in only] == ["m.room.topic"]
        assert set((await ask(room={"rooms": [elsewhere]}))["rooms"]["join"]) == {elsewhere}
        assert set((await ask(room={"not_rooms": [elsewhere]}))["rooms"]["join"]) == {room_id}
        assert "account_data" not in await ask(account_data={"not_types": ["*"]})
        assert joined(await ask(room={"account_data": {"types": []}}), room_id)["account_data"]["events"] == []
        picked = timeline(await ask(event_fields=["content.body", "type"], room={"timeline": {"limit": 5}}), room_id)
        assert picked[0] == {"content": {"body": "mine"}, "type": "m.room.message"}
        raw = timeline(await ask(event_format="federation"), room_id)
        assert {"hashes", "signatures", "auth_events", "depth"} <= raw[0].keys()


async def test_account_data_comes_globally_and_by_room_and_with_a_room_that_is_new(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, "public_chat")
        await w.put(bob, "m.tag", {"tags": {"m.favourite": {}}}, room_id)
        token = await w.token(bob)
        await w.join(bob, room_id)
        answer = await w.sync(bob, token)
        assert joined(answer, room_id)["account_data"]["events"] == [
            {"type": "m.tag", "content": {"tags": {"m.favourite": {}}}}
        ]
        await w.put(bob, "org.example", {"a": 1})
        answer = await w.sync(bob, answer["next_batch"])
        assert answer["account_data"]["events"] == [{"type": "org.example", "content": {"a": 1}}]


async def test_a_redacted_event_never_reaches_anybody_in_its_old_form(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        people, room_id = await crowd(w, 2)
        token = await w.token(people[1])
        said = await w.say(people[0], room_id, "secret")
        await w.state(people[0], room_id, "m.room.topic", {"topic": "secret"})
        await w.sync(people[1], token)
        await w.redact(people[0], room_id, said)
        for since in (None, token):
            answer = await w.sync(people[1], since)
            assert "secret" not in texts(timeline(answer, room_id))
            assert any("redacted_because" in event["unsigned"] for event in timeline(answer, room_id))


async def test_the_summary_names_heroes_of_a_nameless_room_only(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        people, room_id = await crowd(w, 3)
        summary = joined(await w.sync(people[0]), room_id)["summary"]
        assert set(summary["m.heroes"]) == names(people[1:])
        assert (summary["m.joined_member_count"], summary["m.invited_member_count"]) == (3, 0)
        await w.state(people[0], room_id, "m.room.name", {"name": "Ward"})
        assert "m.heroes" not in joined(await w.sync(people[0]), room_id)["summary"]


async def test_push_rules_are_told_to_those_who_never_changed_one(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        first = await w.sync(ada)
        rules = {event["type"]: event["content"] for event in first["account_data"]["events"]}["m.push_rules"]
        assert ada.user_id in str(rules["global"]), "the placeholders are filled"
        assert "account_data" not in await w.sync(ada, first["next_batch"]), "an empty server is no reason to repeat"
        await w.put(ada, "m.push_rules", {"global": {}})
        for since in (None, first["next_batch"]):
            answer = await w.sync(ada, since)
            assert answer["account_data"]["events"] == [{"type": "m.push_rules", "content": {"global": {}}}]
        sliding = await slide(w, w.another_device(ada), extensions=ALL)
        assert [event["type"] for event in sliding["extensions"]["account_data"]["global"]] == ["m.push_rules"]

"""Timelines of the classic sync: gaps, tokens, what a newcomer sees, and that nothing is lost or doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.matrix.errors import InvalidParam
from appliance.matrix.tokens import stream_token, timeline_point
from tests.rooms.reading import history
from tests.sync.station import joined, station, texts, timeline


async def test_a_gap_is_filled_by_messages_so_that_every_event_comes_exactly_once(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, "public_chat")
        await w.join(bob, room_id)
        token, seen = await w.token(bob), []
        for burst in (1, 3, 12, 2, 30):
            sent = [await w.say(ada, room_id, str(number)) for number in range(burst)]
            answer = await w.sync(bob, token, filter={"room": {"timeline": {"limit": 5}}})
            part = joined(answer, room_id)["timeline"]
            assert part["limited"] is (burst > 5)
            gap: list[str] = []
            at = part["prev_batch"]
            while part["limited"] and len(gap) + 5 < burst:
                page = await history(w, bob, room_id, start=timeline_point(at), limit=4)
                gap += [event["event_id"] for event in page["chunk"]]
                at = page["end"]
            found = gap[: burst - 5][::-1] + [event["event_id"] for event in part["events"]]
            assert found == sent
            seen += found
            token = answer["next_batch"]
        assert len(seen) == len(set(seen)) == 48


async def test_the_same_token_gives_the_same_events_and_the_next_one_nothing(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        token = await w.token(ada)
        await w.say(ada, room_id, "one")
        first, again = await w.sync(ada, token), await w.sync(ada, token)
        assert texts(timeline(first, room_id)) == texts(timeline(again, room_id)) == ["one"]
        assert "rooms" not in await w.sync(ada, first["next_batch"])


@pytest.mark.parametrize("text", ["", "x", "s1", "s1_", "s-1_2", "s1_2_3_4", "t5", "s99999999999999999999_1", "s1_2\n"])
def test_garbage_is_no_token(text: str) -> None:
    with pytest.raises(InvalidParam):
        stream_token(text)


async def test_a_token_from_the_future_starts_the_client_anew(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        answer = await w.sync(ada, "s999999_1")
        assert joined(answer, room_id)["state"]["events"] or timeline(answer, room_id)
        assert stream_token(answer["next_batch"]).stream == w.store.changes.position


async def test_a_newcomer_sees_what_the_rooms_history_visibility_allows(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        token = await w.token(bob)
        rules = {"shared": ["before"], "joined": [], "invited": [], "world_readable": ["before"]}
        for visibility, before in rules.items():
            room_id = await w.room(ada, "public_chat")
            await w.state(ada, room_id, "m.room.history_visibility", {"history_visibility": visibility})
            await w.say(ada, room_id, "before")
            await w.join(bob, room_id)
            await w.say(ada, room_id, "after")
            assert texts(timeline(await w.sync(bob), room_id)) == [*before, "after"], visibility
            answer = await w.sync(bob, token)
            assert texts(timeline(answer, room_id)) == [*before, "after"], visibility
            token = answer["next_batch"]


async def test_a_newly_joined_room_comes_whole(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, "public_chat")
        await w.say(ada, room_id, "hello")
        token = await w.token(bob)
        await w.join(bob, room_id)
        part = joined(await w.sync(bob, token), room_id)
        kinds = {event["type"] for event in part["state"]["events"] + part["timeline"]["events"]}
        assert {"m.room.create", "m.room.power_levels", "m.room.join_rules", "m.room.member"} <= kinds
        assert part["summary"]["m.joined_member_count"] == 2


async def test_who_rejoins_gets_the_room_whole_and_who_only_changes_their_name_does_not(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, "public_chat")
        await w.join(bob, room_id)
        token = await w.token(bob)
        await w.state(bob, room_id, "m.room.member", {"membership": "join", "displayname": "Bobby"}, bob.user_id)
        answer = await w.sync(bob, token)
        assert joined(answer, room_id)["state"]["events"] == []
        assert [event["type"] for event in timeline(answer, room_id)] == ["m.room.member"]
        await w.leave(bob, room_id)
        left = await w.sync(bob, answer["next_batch"])
        await w.state(ada, room_id, "m.room.topic", {"topic": "secret"})
        await w.join(bob, room_id)
        part = joined(await w.sync(bob, left["next_batch"]), room_id)
        topics = [e["content"].get("topic") for e in part["state"]["events"] + part["timeline"]["events"]]
        assert "secret" in topics


async def test_leaving_being_kicked_and_being_banned_end_the_timeline_with_the_event(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada, "public_chat")
        for number, how in enumerate(("leave", "kick", "ban")):
            bob = await w.person(f"bob{number}")
            await w.join(bob, room_id)
            token = await w.token(bob)
            await w.say(ada, room_id, "last words")
            if how == "leave":
                await w.leave(bob, room_id)
            else:
                await (w.kick if how == "kick" else w.ban)(ada, room_id, bob.user_id)
            await w.say(ada, room_id, "not for bob")
            answer = await w.sync(bob, token)
            assert not joined(answer, room_id)
            events = answer["rooms"]["leave"][room_id]["timeline"]["events"]
            assert texts(events) == ["last words"]
            assert events[-1]["state_key"] == bob.user_id
            assert events[-1]["content"]["membership"] == ("ban" if how == "ban" else "leave")
            assert "rooms" not in await w.sync(bob, answer["next_batch"])


async def test_left_rooms_come_in_a_first_sync_only_if_asked_for(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, "public_chat")
        await w.join(bob, room_id)
        await w.leave(bob, room_id)
        assert "rooms" not in await w.sync(bob)
        answer = await w.sync(bob, filter={"room": {"include_leave": True}})
        assert room_id in answer["rooms"]["leave"]
        answer = await w.sync(bob, answer["next_batch"], filter={"room": {"include_leave": True}}, full_state=True)
        assert room_id in answer["rooms"]["leave"]


async def test_invitations_and_knocks_come_once_with_stripped_state(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob = await w.person("ada"), await w.person("bob")
        room_id = await w.room(ada, name="Ward 3")
        token = await w.token(bob)
        await w.invite(ada, room_id, bob)
        answer = await w.sync(bob, token)
        state = answer["rooms"]["invite"][room_id]["invite_state"]["events"]
        assert {"m.room.create", "m.room.name", "m.room.member"} <= {event["type"] for event in state}
        assert all("event_id" not in event for event in state)
        assert "rooms" not in await w.sync(bob, answer["next_batch"])
        assert room_id in (await w.sync(bob))["rooms"]["invite"]
        await w.leave(bob, room_id)
        declined = await w.sync(bob, answer["next_batch"])
        assert len(declined["rooms"]["leave"][room_id]["timeline"]["events"]) == 1


async def test_an_invitation_of_somebody_ignored_is_not_shown(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob, eve = await w.person("ada"), await w.person("bob"), await w.person("eve")
        room_id = await w.room(ada, "public_chat")
        for person in (bob, eve):
            await w.join(person, room_id)
        await w.put(bob, "m.ignored_user_list", {"ignored_users": {eve.user_id: {}}})
        token = await w.token(bob)
        await w.invite(eve, await w.room(eve), bob)
        await w.say(eve, room_id, "noise")
        await w.say(ada, room_id, "signal")
        await w.state(eve, room_id, "m.room.member", {"membership": "join", "displayname": "Eva"}, eve.user_id)
        answer = await w.sync(bob, token)
        assert "invite" not in answer["rooms"]
        assert texts(timeline(answer, room_id)) == ["signal"]
        assert [event["sender"] for event in timeline(answer, room_id)] == [ada.user_id, eve.user_id]
        await w.say(eve, room_id, "more noise")
        assert timeline(await w.sync(bob, answer["next_batch"]), room_id) == []

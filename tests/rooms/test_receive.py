"""Receiving events of other servers: the numbered steps, one after the other, between real stores."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, RoomId, ServerName
from appliance.rooms import leave, send
from appliance.rooms.receive import Verdict
from appliance.store.events import REJECTED, SOFT_FAILED
from tests.world.federation import Meeting, RemoteWard, meeting, town


async def _say(ward: RemoteWard, m: Meeting, who: int, body: str) -> Event:
    event_id = await ward.say(m.people[who], m.room_id, body)
    return next(event for event in ward.sent if event.event_id == event_id)


@pytest.mark.parametrize("version", ["9", "10", "11", "12"])
async def test_a_conversation_between_three_servers(tmp_path: Path, version: str) -> None:
    async with town(tmp_path, "a", "b", "c") as wards:
        m = await meeting(wards, version)
        for number in range(3):
            for who, ward in enumerate(wards):
                event = await _say(ward, m, who, f"{who} says {number}")
                for other in wards:
                    if other is not ward:
                        assert (await other.get(event, ward)).verdict == Verdict.ACCEPTED
        states = [await ward.state(m.room_id) for ward in wards]
        assert states[0] == states[1] == states[2]
        bodies = [[e.content["body"] for e in await w.timeline(m.room_id) if e.type == "m.room.message"] for w in wards]
        assert bodies[0] == bodies[1] == bodies[2] and len(bodies[0]) == 9
        assert len({frozenset(await ward.tips(m.room_id)) for ward in wards}) == 1


async def test_the_same_event_again_changes_nothing(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        event = await _say(a, m, 0, "once")
        results = await asyncio.gather(*(b.get(event, a) for _ in range(10)))
        assert {result.verdict for result in results} == {Verdict.ACCEPTED}
        assert b.seen.count(event.event_id) == 1


async def test_what_has_no_form_no_signature_or_another_room_is_dropped(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        good = await a.make(a, m.room_id, m.people[0].user_id, "m.room.message", {"body": "x"})
        forged = await b.make(a, m.room_id, m.people[0].user_id, "m.room.message", {"body": "forged"})
        broken = [
            {**good.pdu, "depth": -1}, {**good.pdu, "content": []}, {**good.pdu, "prev_events": "x"},
            {**good.pdu, "signatures": {}}, {**good.pdu, "room_id": "!other:a.example"}, {}, forged.pdu,
            {**good.pdu, "content": {"body": "x" * 70_000}}, {**good.pdu, "content": {"f": 1.5}},
            {**good.pdu, "prev_events": list(good.prev_events) * 30},
        ]  # fmt: skip
        before = await b.tips(m.room_id)
        for pdu in broken:
            assert (await b.get(pdu, a)).verdict == Verdict.DROPPED
        assert await b.tips(m.room_id) == before


async def test_changed_content_is_taken_away_and_the_event_kept(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        event = await _say(a, m, 0, "true words")
        outcome = await b.get({**event.pdu, "content": {"body": "false words"}}, a)
        assert outcome.verdict == Verdict.ACCEPTED and outcome.event_id == event.event_id
        assert (await b.timeline(m.room_id))[-1].content == {}


async def test_a_rejected_auth_event_poisons_nothing(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        thief = m.people[1].user_id
        state = await a.state(m.room_id)
        levels = {"users": {thief: 100}}
        stolen = await b.make(b, m.room_id, thief, "m.room.power_levels", levels, "")
        assert (await a.get(stolen, b)).verdict == Verdict.REJECTED
        cited = [EventId(state[key]) for key in (("m.room.create", ""), ("m.room.member", thief))]
        child = await b.make(
            b, m.room_id, thief, "m.room.name", {"name": "mine"}, "", prev=[stolen], auth_ids=[*cited, stolen.event_id]
        )
        assert (await a.get(child, b)).verdict == Verdict.REJECTED
        assert await a.state(m.room_id) == state
        assert (await a.get(child, b)).verdict == Verdict.REJECTED  # remembered
        after = await b.make(b, m.room_id, thief, "m.room.message", {"body": "honest"}, prev=[child])
        assert (await a.get(after, b)).verdict == Verdict.ACCEPTED  # only what is rejected counts for nothing
        assert await a.state(m.room_id) == state
        assert await a.tips(m.room_id) == {after.event_id}


async def test_somebody_banned_who_continues_from_before_is_not_seen(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b, c])
        villain = m.people[1].user_id
        old = await b.make(b, m.room_id, villain, "m.room.message", {"body": "I am back"})
        await leave.ban(a.author, m.people[0], m.room_id, villain, None)
        ban = a.sent[-1]
        await c.get(ban, a)
        assert (await c.get(old, b)).verdict == Verdict.SOFT_FAILED
        assert await c.flags(old) == SOFT_FAILED
        assert old.event_id not in c.seen and await c.tips(m.room_id) == {ban.event_id}
        # Somebody who accepted it builds on it: the event is a good predecessor.
        state = await c.state(m.room_id)
        child = await a.make(a, m.room_id, m.people[0].user_id, "m.room.message", {"body": "hm"}, prev=[ban, old])
        assert (await c.get(child, a)).verdict == Verdict.ACCEPTED
        assert await c.state(m.room_id) == state and await c.tips(m.room_id) == {child.event_id}


async def test_a_fork_is_resolved_alike_and_joined_again(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        levels = (await a.heads.state_of(await a.author.head(m.room_id), [("m.room.power_levels", "")]))
        content = {**levels["m.room.power_levels", ""].content, "events": {"m.room.topic": 0}}
        await send.state(a.author, m.people[0], m.room_id, "m.room.power_levels", "", content)
        await m.settle()
        await send.state(a.author, m.people[0], m.room_id, "m.room.topic", "", {"topic": "A"})
        await send.state(b.author, m.people[1], m.room_id, "m.room.topic", "", {"topic": "B"})
        mine, theirs = a.sent[-1], b.sent[-1]
        assert (await b.get(mine, a)).verdict == (await a.get(theirs, b)).verdict == Verdict.ACCEPTED
        assert await a.tips(m.room_id) == await b.tips(m.room_id) == {mine.event_id, theirs.event_id}
        assert await a.state(m.room_id) == await b.state(m.room_id)
        a.sent.clear()
        last = await _say(a, m, 0, "together again")
        assert set(last.prev_events) == {mine.event_id, theirs.event_id}
        assert (await b.get(last, a)).verdict == Verdict.ACCEPTED
        assert await a.tips(m.room_id) == await b.tips(m.room_id) == {last.event_id}
        assert await a.state(m.room_id) == await b.state(m.room_id)


async def test_a_redaction_that_comes_first_still_takes_the_content_away(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        author = m.people[0].user_id
        secret = await a.make(a, m.room_id, author, "m.room.message", {"body": "secret"})
        other = await a.make(a, m.room_id, author, "m.room.message", {"body": "other"})
        redaction = await a.make(a, m.room_id, author, "m.room.redaction", {}, prev=[other], redacts=secret.event_id)
        for event in (other, redaction):
            assert (await b.get(event, a)).verdict == Verdict.ACCEPTED
        assert (await b.get(secret, a)).verdict == Verdict.ACCEPTED
        found = {event.event_id: event for event in await b.timeline(m.room_id)}
        assert found[secret.event_id].content == {} and found[other.event_id].content == {"body": "other"}


async def test_a_redaction_without_the_right_to_it_takes_nothing(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        said = await _say(a, m, 0, "stays")
        villain = m.people[1].user_id
        first = await b.make(a, m.room_id, villain, "m.room.message", {"body": "x"})
        redaction = await b.make(a, m.room_id, villain, "m.room.redaction", {}, prev=[first], redacts=said.event_id)
        c = b
        for event in (first, redaction):
            await a.get(event, c)
        assert next(e for e in await a.timeline(m.room_id) if e.event_id == said.event_id).content["body"] == "stays"


async def test_a_server_that_the_room_shuts_out_is_not_heard(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        rules = {"allow": ["*"], "deny": ["b.*"], "allow_ip_literals": True}
        await send.state(a.author, m.people[0], m.room_id, "m.room.server_acl", "", rules)
        event = await b.make(b, m.room_id, m.people[1].user_id, "m.room.message", {"body": "x"})
        assert (await a.get(event, b)).verdict == Verdict.DROPPED
        assert (await a.receiver.receive(event.pdu, ServerName("elsewhere.example"))).verdict != Verdict.DROPPED


async def test_events_of_rooms_without_us_are_dropped(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada = await a.person("ada")
        room_id = await a.room(ada)
        await a.say(ada, room_id, "x")
        assert (await b.get(a.sent[-1], a)).verdict == Verdict.DROPPED
        assert await b.heads.get(RoomId(room_id)) is None


async def test_a_transaction_keeps_its_order_and_is_quick(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        for number in range(50):
            await a.say(m.people[0], m.room_id, str(number))
        outcomes = await b.receiver.receive_all([event.pdu for event in a.sent], a.server)
        assert [outcome.verdict for outcome in outcomes] == [Verdict.ACCEPTED] * 50
        assert b.seen[-50:] == [event.event_id for event in a.sent]
        assert not a.town.calls or all(question != "missing_events" for question, _ in a.town.calls)


async def test_rejected_is_remembered_where_its_predecessors_are_unknown(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        thief = m.people[1].user_id
        await b.say(m.people[1], m.room_id, "never delivered")
        stolen = await b.make(b, m.room_id, thief, "m.room.power_levels", {"users": {thief: 100}}, "")
        calls = len(a.town.calls)
        assert (await a.get(stolen, b)).verdict == Verdict.REJECTED
        assert len(a.town.calls) == calls  # nothing is fetched for it
        assert await a.flags(stolen) == REJECTED

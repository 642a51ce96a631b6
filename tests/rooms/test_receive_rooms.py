"""Rooms over their life between servers: coming back, starting again, reading what was missed."""

from __future__ import annotations

from pathlib import Path

from appliance.rooms import leave, send
from appliance.rooms.receive import LONGEST_PAUSE_MS, MOST_TRIES, Receiver, Verdict
from appliance.store import graph, rooms
from tests.world.federation import Meeting, RemoteWard, meeting, town


async def _messages(ward: RemoteWard, m: Meeting) -> list[str]:
    return [e.event_id for e in await ward.timeline(m.room_id) if e.type == "m.room.message"]


async def test_a_server_that_was_away_comes_back_to_the_room_as_it_is(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        ben = m.people[1]
        await b.say(ben, m.room_id, "I go")
        await leave.leave(b.author, b.members, ben, m.room_id)
        await m.settle()
        await send.state(a.author, m.people[0], m.room_id, "m.room.name", "", {"name": "Without Ben"})
        for number in range(30):
            await a.say(m.people[0], m.room_id, str(number))
            assert (await b.get(a.sent[-1], a)).verdict == Verdict.DROPPED  # nobody of us is there
        a.sent.clear()
        await b.enter(ben, a, m.room_id)
        b.sent.clear()
        assert await b.state(m.room_id) == await a.state(m.room_id)
        await a.say(m.people[0], m.room_id, "welcome back")
        await b.say(ben, m.room_id, "thank you")
        await m.settle()
        assert await b.state(m.room_id) == await a.state(m.room_id)
        assert await a.tips(m.room_id) == await b.tips(m.room_id)
        await b.backfill.reach(ben.user_id, m.room_id, None, 1000)
        ours, theirs = await _messages(a, m), await _messages(b, m)
        assert len(theirs) == len(set(theirs)) and set(theirs) == set(ours)


async def test_what_waits_survives_a_restart(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        for number in range(3):
            await a.say(m.people[0], m.room_id, str(number))
        said, a.sent = a.sent, []
        a.town.silent = {a.server}
        assert (await b.get(said[2], a)).verdict == Verdict.WAITING
        b.receiver = Receiver(b.store, b.heads, b.ledger, b.members, a.town, a.town, b.server, b.clock)
        assert (await b.get(said[0], a)).verdict == Verdict.ACCEPTED
        assert (await b.get(said[1], a)).verdict == Verdict.ACCEPTED
        assert b.seen[-3:] == [event.event_id for event in said]
        assert await b.store.read(graph.rooms_with_parked) == []


async def test_what_waits_is_tried_again_without_new_events(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        for number in range(3):
            await a.say(m.people[0], m.room_id, str(number))
        a.town.silent = {a.server}
        assert (await b.get(a.sent[2], a)).verdict == Verdict.WAITING
        await b.receiver.retry_all()
        assert len(await b.store.read(graph.rooms_with_parked)) == 1
        a.town.silent = set()
        await b.receiver.retry_all()
        assert len(await b.store.read(graph.rooms_with_parked)) == 1  # its time has not come
        b.clock.now += 3_600_000
        await b.receiver.retry_all()
        assert b.seen[-3:] == [event.event_id for event in a.sent]


async def test_a_room_of_many_is_joined_whole(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, preset="public_chat", name="Everybody")
        for number in range(60):
            await a.join(await a.person(f"n{number}"), room_id)
        await b.enter(ben, a, room_id)
        assert await b.state(room_id) == await a.state(room_id)
        standing = (await b.members.rooms_of(ben.user_id))[room_id]
        assert standing.membership == "join" and standing.pos > 0
        room = await b.store.read(rooms.find, room_id)
        assert room is not None and room.version == "11"
        assert [event.type for event in await b.timeline(room_id)] == ["m.room.member"]  # the join alone


async def test_who_was_thrown_out_by_somebody_banned_is_still_there(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b, c])
        ada, bob, carl = m.people
        levels = {"users": {ada.user_id: 100, bob.user_id: 60}}
        await send.state(a.author, ada, m.room_id, "m.room.power_levels", "", levels)
        await m.settle()
        await leave.kick(b.author, bob, m.room_id, carl.user_id, None)
        kick = b.sent.pop()
        await leave.ban(a.author, ada, m.room_id, bob.user_id, None)
        ban = a.sent.pop()
        assert (await c.get(kick, b)).verdict == Verdict.ACCEPTED
        assert await c.members.local_joined(m.room_id) == frozenset()
        after = await b.make(b, m.room_id, bob.user_id, "m.room.message", {"body": "only us"}, prev=[kick])
        assert (await c.get(after, b)).verdict == Verdict.DROPPED
        assert (await c.get(ban, a)).verdict == Verdict.ACCEPTED
        assert await c.members.local_joined(m.room_id) == {carl.user_id}
        await a.get(kick, b)
        assert await a.state(m.room_id) == await c.state(m.room_id)
        await c.say(carl, m.room_id, "still here")
        assert (await a.get(c.sent[-1], c)).verdict == Verdict.ACCEPTED


async def test_what_nobody_ever_has_is_given_up(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        for number in range(2):
            await a.say(m.people[0], m.room_id, str(number))
        a.town.silent = {a.server}
        await b.get(a.sent[1], a)
        for _ in range(MOST_TRIES):
            b.clock.now += LONGEST_PAUSE_MS + 1
            await b.receiver.retry_all()
        assert await b.store.read(graph.rooms_with_parked) == []
        assert a.sent[1].event_id not in b.seen

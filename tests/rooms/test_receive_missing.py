"""What an event stands on is missing: fetched, borrowed, waited for; and every event arrives once."""

from __future__ import annotations

from pathlib import Path

from appliance.matrix.event import Event
from appliance.matrix.ids import EventId
from appliance.rooms import leave, send
from appliance.rooms.receive import Verdict
from appliance.store import events, graph
from appliance.store.readers import Rx
from tests.world.federation import Meeting, RemoteWard, States, meeting, town


async def _burst(ward: RemoteWard, m: Meeting, count: int) -> list[Event]:
    ward.sent.clear()
    for number in range(count):
        await ward.say(m.people[0], m.room_id, str(number))
    return list(ward.sent)


async def _complete(a: RemoteWard, b: RemoteWard, m: Meeting) -> None:
    """Both have the same messages, each once, and the same state."""
    lines = [[e.event_id for e in await w.timeline(m.room_id) if e.type == "m.room.message"] for w in (a, b)]
    assert len(lines[1]) == len(set(lines[1])) and set(lines[0]) == set(lines[1])
    assert len(b.seen) == len(set(b.seen))
    assert await a.state(m.room_id) == await b.state(m.room_id)


async def test_what_was_lost_on_the_way_is_fetched_in_order(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        said = await _burst(a, m, 60)
        assert (await b.get(said[-1], a)).verdict == Verdict.ACCEPTED
        assert b.seen[-60:] == [event.event_id for event in said]
        await _complete(a, b, m)
        assert await b.tips(m.room_id) == {said[-1].event_id}


async def test_one_event_withheld_and_delivered_later(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        said = await _burst(a, m, 6)
        a.town.withheld = {said[2].event_id}
        for event in (*said[:2], *said[3:]):
            assert (await b.get(event, a)).verdict == Verdict.ACCEPTED, event.content
        assert await b.tips(m.room_id) >= {said[-1].event_id}
        assert said[2].event_id in await b.store.read(graph.gaps, 1, 2**62, 10)
        assert (await b.get(said[2], a)).verdict == Verdict.ACCEPTED
        assert said[2].event_id not in await b.store.read(graph.gaps, 1, 2**62, 10)
        assert await b.tips(m.room_id) == {said[-1].event_id}
        await _complete(a, b, m)


async def test_a_silent_peer_makes_events_wait_and_nothing_is_lost(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        said = await _burst(a, m, 5)
        a.town.silent = {a.server}
        for event in (said[4], said[3], said[1], said[2]):
            assert (await b.get(event, a)).verdict == Verdict.WAITING
        assert b.seen.count(said[4].event_id) == 0
        assert (await b.get(said[0], a)).verdict == Verdict.ACCEPTED
        assert b.seen[-5:] == [event.event_id for event in said]
        assert await b.store.read(graph.rooms_with_parked) == []
        await _complete(a, b, m)


async def test_what_waits_is_tried_again_after_a_pause(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        said = await _burst(a, m, 3)
        a.town.silent = {a.server}
        assert (await b.get(said[2], a)).verdict == Verdict.WAITING
        a.town.silent = set()
        b.clock.now += 3_600_000
        await b.get((await _burst(a, m, 1))[0], a)
        await _complete(a, b, m)


async def test_a_state_event_between_is_not_lost(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        await send.state(a.author, m.people[0], m.room_id, "m.room.name", "", {"name": "Ward 3"})
        hidden = a.sent[-1]
        said = await _burst(a, m, 2)
        a.town.withheld = {hidden.event_id}
        a.town.lies["missing_events"] = lambda latest: []
        # Nobody gives the name away, but the state before the next message has it: the answer is not complete.
        assert (await b.get(said[0], a)).verdict == Verdict.WAITING
        a.town.withheld = set()
        a.town.lies.clear()
        assert (await b.get(said[1], a)).verdict == Verdict.ACCEPTED
        await _complete(a, b, m)


async def test_nobody_undoes_a_ban_by_telling_another_state(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        villain = m.people[1].user_id
        rosy = await a.store.read(_told, [event for event in (await a.state(m.room_id)).values()])
        await leave.ban(a.author, m.people[0], m.room_id, villain, None)
        ban = a.sent[-1]
        state = await a.state(m.room_id)
        a.town.lies.update(state=lambda event_id: rosy, missing_events=lambda latest: [])
        unknown = EventId("$" + "A" * 43)
        cited = [one for key, one in state.items() if key[0] == "m.room.create"]
        member = next(p for p in rosy.pdus if p.get("state_key") == villain)
        rosy_ids = dict(zip(rosy.pdu_ids, rosy.pdus, strict=True))
        levels = next(k for k, p in rosy_ids.items() if p["type"] == "m.room.power_levels")
        joined = next(k for k, p in rosy_ids.items() if p is member)
        event = await b.make(
            a, m.room_id, villain, "m.room.message", {"body": "still here"}, prev=[ban],
            auth_ids=[EventId(one) for one in (*cited, levels, joined)],
        )
        sneaky = b.resign(event, prev=[ban.event_id, unknown])
        outcome = await a.get(sneaky, b)
        assert outcome.verdict in (Verdict.REJECTED, Verdict.SOFT_FAILED), outcome
        alone = b.resign(event, prev=[unknown])
        assert (await a.get(alone, b)).verdict == Verdict.SOFT_FAILED
        assert await a.state(m.room_id) == state


def _told(rx: Rx, ids: list[str]) -> States:
    rows = events.fetch(rx, ids)
    chain = graph.auth_chain(rx, ids)
    return States([row.event.pdu for row in rows.values()], [event.pdu for event in chain.values()])


async def test_reading_back_fetches_the_past(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, preset="public_chat")
        for number in range(150):
            await a.say(ada, room_id, str(number))
        await b.enter(ben, a, room_id)
        m = Meeting([a, b], room_id, [ada, ben])
        live = len(b.seen)
        state = await b.state(room_id)
        while await b.backfill.fill(room_id):
            pass
        assert len(b.seen) == live  # the past is no news
        mine, theirs = await a.timeline(room_id), await b.timeline(room_id)
        assert [e.event_id for e in mine] == [e.event_id for e in theirs]
        assert await b.state(room_id) == state == await a.state(room_id)
        assert await b.tips(room_id) == await a.tips(room_id)
        await _complete(a, b, m)


async def test_a_past_that_nobody_gives_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        a.town.silent = {a.server}
        assert await b.backfill.fill(m.room_id) == 0
        calls = len(a.town.calls)
        assert await b.backfill.fill(m.room_id) == 0 and len(a.town.calls) == calls
        a.town.silent = set()
        b.clock.now += 3_600_000
        assert await b.backfill.fill(m.room_id) > 0


async def test_somebody_who_reads_back_gets_as_much_as_they_ask_for(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben, eve = await a.person("ada"), await b.person("ben"), await b.person("eve")
        room_id = await a.room(ada, preset="public_chat")
        for number in range(150):
            await a.say(ada, room_id, str(number))
        await b.enter(ben, a, room_id)
        a.town.calls.clear()
        await b.backfill.reach(eve.user_id, room_id, None, 50)
        assert not a.town.calls  # not for strangers
        await b.backfill.reach(ben.user_id, room_id, None, 50)
        assert 51 <= len(await b.timeline(room_id)) < 150
        calls = len(a.town.calls)
        await b.backfill.reach(ben.user_id, room_id, None, 50)
        assert len(a.town.calls) == calls  # they are here already
        first = -len(await b.timeline(room_id)) // 2
        await b.backfill.reach(ben.user_id, room_id, first, 1000)
        assert [e.event_id for e in await b.timeline(room_id)] == [e.event_id for e in await a.timeline(room_id)]
        await b.backfill.reach(ben.user_id, room_id, None, 1000)

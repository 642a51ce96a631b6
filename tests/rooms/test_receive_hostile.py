"""Peers that mean harm: what they send costs little, breaks nothing, and delays nobody else."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from appliance.matrix import versions
from appliance.matrix.errors import MatrixError
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId
from appliance.rooms.imported import BadRoom, import_join
from appliance.rooms.receive import Verdict
from appliance.rooms.steps import asking
from appliance.rooms.steps.admit import allowed
from appliance.rooms.steps.place import MOST_TIPS
from appliance.store import events, graph, rooms
from appliance.store.readers import Rx
from tests.world.federation import Meeting, RemoteWard, States, V, meeting, town


async def _endless(b: RemoteWard, m: Meeting, first: str) -> tuple[dict[str, Event], Event]:
    """Make an event on top of a chain of auth events that each need another one."""
    state = await b.state(m.room_id)
    villain = m.people[1].user_id
    create = EventId(state["m.room.create", ""])
    below = EventId("$" + first * 43)
    found: dict[str, Event] = {}
    for number in range(300):
        event = await b.make(
            b, m.room_id, villain, "m.room.member", {"membership": "join", "n": number}, villain,
            auth_ids=[create, below],
        )  # fmt: skip
        found[event.event_id] = event
        below = event.event_id
    top = await b.make(b, m.room_id, villain, "m.room.message", {"body": "x"}, auth_ids=[create, below])
    return found, top


async def test_an_endless_auth_chain_ends_with_the_budget(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        chain, top = await _endless(b, m, "E")
        a.town.lies["event_auth"] = lambda event_id: []
        a.town.lies["event"] = lambda event_id: chain[event_id].pdu if event_id in chain else {}
        a.town.calls.clear()
        assert (await a.get(top, b)).verdict == Verdict.WAITING
        assert len(a.town.calls) <= asking.CALLS
        assert await a.store.read(graph.known, chain) == {}  # nothing that hangs in the air is kept
        a.town.lies.clear()
        good = await b.make(b, m.room_id, m.people[1].user_id, "m.room.message", {"body": "fine"})
        assert (await a.get(good, b)).verdict == Verdict.ACCEPTED


async def test_a_chain_without_ground_is_not_kept(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        chain, top = await _endless(b, m, "F")
        a.town.lies["event_auth"] = lambda event_id: [event.pdu for event in chain.values()] * 5
        a.town.lies["event"] = lambda event_id: top.pdu
        assert (await a.get(top, b)).verdict == Verdict.WAITING
        assert await a.store.read(graph.known, chain) == {}


async def test_answers_to_other_questions_get_nobody_in(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        villain = m.people[1].user_id
        other = await b.make(b, m.room_id, villain, "m.room.message", {"body": "smuggled"})
        lost = await b.make(b, m.room_id, villain, "m.room.message", {"body": "lost"})
        top = await b.make(b, m.room_id, villain, "m.room.message", {"body": "top"}, prev=[lost])
        nonsense = [{}, {"room_id": 7}, {"content": {"x": 1.5}}, other.pdu, lost.pdu, lost.pdu]
        a.town.lies["missing_events"] = lambda latest: nonsense
        assert (await a.get(top, b)).verdict == Verdict.ACCEPTED
        assert lost.event_id in a.seen and other.event_id not in a.seen


async def test_a_state_that_is_made_up_is_not_believed(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        villain = m.people[1].user_id
        state = await a.state(m.room_id)
        stolen = await b.make(b, m.room_id, villain, "m.room.power_levels", {"users": {villain: 100}}, "")
        told = await a.store.read(_told, m.room_id)
        without_levels = [pdu for pdu in told.pdus if pdu["type"] != "m.room.power_levels"]
        a.town.lies.update(
            missing_events=lambda latest: [],
            state=lambda event_id: States([*without_levels, stolen.pdu], told.auth_chain),
            event=lambda event_id: stolen.pdu,
        )
        event = await b.make(b, m.room_id, villain, "m.room.message", {"body": "x"})
        await a.get(b.resign(event, prev=[EventId("$" + "G" * 43)]), b)
        after = await a.state(m.room_id)
        assert after["m.room.power_levels", ""] == state["m.room.power_levels", ""]
        assert after == state


def _told(rx: Rx, room_id: str) -> States:
    room = rooms.find(rx, room_id)
    assert room is not None
    found = [row.event for row in events.current_events(rx, room.rid)]
    chain = graph.auth_chain(rx, [event.event_id for event in found])
    return States([event.pdu for event in found], [event.pdu for event in chain.values()])


async def test_thousands_of_branches_are_bounded(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        root = await b.make(b, m.room_id, m.people[1].user_id, "m.room.message", {"body": "root"})
        await a.get(root, b)
        fans = [
            await b.make(b, m.room_id, m.people[1].user_id, "m.room.message", {"body": str(n)}, prev=[root])
            for n in range(MOST_TIPS + 150)
        ]
        for event in fans:
            assert (await a.get(event, b)).verdict == Verdict.ACCEPTED
        assert len(await a.tips(m.room_id)) <= MOST_TIPS
        for _ in range(MOST_TIPS // 10):  # our own people fold the branches together, twenty at a time
            await a.say(m.people[0], m.room_id, "tidy")
        assert len(await a.tips(m.room_id)) == 1


async def test_a_slow_peer_delays_neither_other_rooms_nor_other_peers(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b, c])
        other = await meeting([a, b])
        lost = await b.make(b, m.room_id, m.people[1].user_id, "m.room.message", {"body": "lost"})
        top = await b.make(b, m.room_id, m.people[1].user_id, "m.room.message", {"body": "top"}, prev=[lost])
        hangs, asked = asyncio.Event(), asyncio.Event()

        async def never(*_: object, **__: object) -> list[object]:
            asked.set()
            await hangs.wait()
            return [lost.pdu]

        a.town.missing_events = never  # type: ignore[assignment, method-assign]
        slow = asyncio.ensure_future(a.get(top, b))
        await asked.wait()
        began = time.monotonic()
        theirs = await c.make(c, m.room_id, m.people[2].user_id, "m.room.message", {"body": "quick"})
        elsewhere = await b.make(b, other.room_id, other.people[1].user_id, "m.room.message", {"body": "quick"})
        assert (await a.get(theirs, c)).verdict == Verdict.ACCEPTED
        assert (await a.get(elsewhere, b)).verdict == Verdict.ACCEPTED
        await a.say(m.people[0], m.room_id, "our own go on as well")
        assert time.monotonic() - began < 2 and not slow.done()
        hangs.set()
        assert (await slow).verdict == Verdict.ACCEPTED


async def test_the_line_of_a_peer_in_a_room_is_bounded(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        events = [await b.make(b, m.room_id, m.people[1].user_id, "x", {"n": n}) for n in range(100)]
        outcomes = await asyncio.gather(*(a.get(event, b) for event in events))
        assert {outcome.verdict for outcome in outcomes} == {Verdict.ACCEPTED, Verdict.DROPPED}


async def test_events_in_the_name_of_others_are_dropped(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b, c])
        for person in (m.people[0], m.people[2]):
            forged = await b.make(b, m.room_id, person.user_id, "m.room.message", {"body": "not mine"})
            assert (await a.get(forged, b)).verdict == Verdict.DROPPED
        # A third server may hand on what is properly signed.
        theirs = await c.make(c, m.room_id, m.people[2].user_id, "m.room.message", {"body": "mine"})
        assert (await a.get(theirs, b)).verdict == Verdict.ACCEPTED


@pytest.mark.parametrize("fault", ["no create", "two names", "forged join", "other version", "no levels", "empty"])
async def test_a_room_that_does_not_hold_together_is_not_joined(tmp_path: Path, fault: str) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, preset="public_chat", name="one")
        V[room_id] = "11"
        join, state, chain = await a.admit(b, ben.user_id, room_id)
        pdu = join.pdu
        if fault == "no create":
            state = [one for one in state if one["type"] != "m.room.create"]
        elif fault == "two names":
            second = await a.make(a, room_id, ada.user_id, "m.room.name", {"name": "two"}, "")
            state = [*state, second.pdu]
        elif fault == "forged join":
            pdu = {**pdu, "signatures": {}}
        elif fault == "no levels":
            chain = state = [one for one in state if one["type"] != "m.room.power_levels"]
        elif fault == "empty":
            state, chain = [], []
        version = versions.get("10") if fault == "other version" else join.version
        with pytest.raises(MatrixError) as refused:
            await import_join(b.receiver, room_id, version, pdu, state, chain, a.server)
        assert isinstance(refused.value, BadRoom) or fault == "other version"
        assert await b.heads.get(room_id) is None


def test_server_lists() -> None:
    everybody = {"allow": ["*"]}
    assert allowed(everybody, "a.example") and allowed(everybody, "1.2.3.4:8448")
    assert not allowed({**everybody, "allow_ip_literals": False}, "1.2.3.4:8448")
    assert not allowed({**everybody, "allow_ip_literals": False}, "[::1]")
    assert not allowed({**everybody, "deny": ["*.evil.example"]}, "X.Evil.example:80")
    assert allowed({"allow": ["?.example"]}, "a.example") and not allowed({"allow": ["?.example"]}, "aa.example")
    assert not allowed({}, "a.example") and not allowed({"allow": [7], "deny": 3}, "a.example")
    began = time.monotonic()
    assert not allowed({"allow": ["*a" * 100 + "b"]}, "a" * 200)
    assert time.monotonic() - began < 1

"""State resolution: against the naive transcription on random forks, and in any order of the arguments."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.matrix import versions
from appliance.matrix.auth import Key, auth_keys
from appliance.matrix.canonical import Json
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, UserId
from appliance.matrix.resolve import resolve
from tests.matrix import naive_resolve
from tests.matrix.room import ALICE, BOB, CAROL, DAVE, Graph, make

PEOPLE = (ALICE, BOB, CAROL, DAVE)
VERSIONS = ("6", "10", "11", "12")
Story: TypeAlias = list[tuple[str, int, int, int, int, int]]


@st.composite
def steps(draw: st.DrawFn) -> Story:
    """A story of a room: kind of event, sender, target, level or rule, branch, and a clock that may lie."""
    kinds = st.sampled_from(
        ["join", "join", "leave", "kick", "ban", "unban", "invite", "knock", "levels", "levels", "rules", "topic",
         "topic", "name", "message", "fork", "merge"]
    )  # fmt: skip
    small = st.integers(0, 3)
    return draw(st.lists(st.tuples(kinds, small, small, small, small, st.integers(0, 9)), min_size=6, max_size=32))


def tell(version: versions.RoomVersion, story: Story) -> tuple[Graph, list[EventId]]:
    """Play the story with the naive resolver; returns the room and the tips of its branches."""
    room = Graph(version, naive_resolve.resolve)
    tip = room.member([room.create], ALICE, "join")
    levels: dict[str, object] = {} if version.privileged_creators else {"users": {ALICE: 100}}
    tip = room.must([tip], "m.room.power_levels", ALICE, levels, "")
    tip = room.must([tip], "m.room.join_rules", ALICE, {"join_rule": "public"}, "")
    tips = [tip]
    for kind, who, whom, level, branch, clock in story:
        at = branch % len(tips)
        if kind == "fork":
            tips = [*tips, tips[at]][:4]
            continue
        if kind == "merge":
            merged = room.add(tips, "m.room.message", ALICE, {})
            tips = [merged] if merged is not None else tips
            continue
        made = act(room, tips[at], kind, PEOPLE[who], PEOPLE[whom], level, clock)
        if made is not None:
            tips[at] = made
    return room, tips


def act(room: Graph, tip: EventId, kind: str, who: str, whom: str, level: int, clock: int) -> EventId | None:
    """Let somebody do something at a tip of the room."""
    power = (0, 25, 50, 100)[level]
    users = {person: (100, 50, power, 0)[index] for index, person in enumerate(PEOPLE)}
    if room.version.privileged_creators:
        del users[ALICE]
    rules = ("public", "invite", "knock", "private")
    what: dict[str, tuple[str, Mapping[str, object], str | None]] = {
        "join": ("m.room.member", {"membership": "join", "n": clock}, who),
        "leave": ("m.room.member", {"membership": "leave"}, who),
        "knock": ("m.room.member", {"membership": "knock"}, who),
        "kick": ("m.room.member", {"membership": "leave"}, whom),
        "unban": ("m.room.member", {"membership": "leave"}, whom),
        "ban": ("m.room.member", {"membership": "ban"}, whom),
        "invite": ("m.room.member", {"membership": "invite"}, whom),
        "levels": ("m.room.power_levels", {"users": users, "events_default": clock % 2, "ban": power}, ""),
        "rules": ("m.room.join_rules", {"join_rule": rules[level]}, ""),
        "topic": ("m.room.topic", {"topic": str(clock)}, ""),
        "name": ("m.room.name", {"name": str(level)}, ""),
        "message": ("m.room.message", {"body": "x"}, None),
    }
    type, content, state_key = what[kind]
    return room.add([tip], type, who, content, state_key, ts=clock)


@pytest.mark.parametrize("name", VERSIONS)
@settings(max_examples=60)
@given(story=steps(), seed=st.integers(0, 1000))
def test_fast_equals_naive_and_order_changes_nothing(
    name: str, story: Story, seed: int
) -> None:
    version = versions.get(name)
    room, tips = tell(version, story)
    sets = [room.after[tip] for tip in tips]
    expected = naive_resolve.resolve(version, sets, room.events)
    assert resolve(version, sets, room.events) == expected
    shuffle = random.Random(seed).shuffle
    shuffle(sets)
    turned = [dict(shuffled(state, shuffle)) for state in sets]
    assert resolve(version, turned + turned[:1], room.events.__getitem__) == expected


def wild_room(version: versions.RoomVersion, dice: random.Random) -> tuple[dict[EventId, Event], EventId]:
    """Make state events that cite arbitrary earlier ones: no server would, but peers may and the algorithm must cope.

    Returns the events and the create event's id.
    """
    first = Graph(version, naive_resolve.resolve)
    events = dict(first.events)
    by_key: dict[Key, list[EventId]] = {events[first.create].key: [first.create]}
    for _ in range(28):
        type, sender, content, state_key = wild_event(version, dice)
        keys = auth_keys(version, type, sender, state_key, content)
        cited = [dice.choice(by_key[key]) for key in keys if key in by_key and dice.random() < 0.9]
        event = make(
            version, type, sender, content, state_key, room=first.room_id, ts=dice.randrange(6), auth_events=cited
        )
        events[event.event_id] = event
        by_key.setdefault(event.key, []).append(event.event_id)
    return events, first.create


def wild_event(version: versions.RoomVersion, dice: random.Random) -> tuple[str, UserId, Mapping[str, Json], str]:
    """Draw type, sender, content and state key of a state event; `n` keeps equal draws apart."""
    who, whom, n = dice.choice(PEOPLE), dice.choice(PEOPLE), dice.randrange(10**6)
    users: dict[str, Json] = {person: dice.choice((0, 50, 100)) for person in PEOPLE if person != ALICE}
    if not version.privileged_creators:
        users[ALICE] = 100
    match dice.randrange(7):
        case 0 | 1:
            return "m.room.power_levels", who, {"users": users, "n": n}, ""
        case 2:
            return "m.room.join_rules", who, {"join_rule": dice.choice(("public", "invite")), "n": n}, ""
        case 3 | 4:
            return "m.room.member", who, {"membership": "join", "n": n}, who
        case 5:
            return "m.room.member", who, {"membership": dice.choice(("leave", "ban", "invite")), "n": n}, whom
        case _:
            return "m.room.topic", who, {"topic": str(n)}, ""


@pytest.mark.parametrize("name", VERSIONS)
def test_fast_equals_naive_where_anything_cites_anything(name: str) -> None:
    version = versions.get(name)
    for seed in range(150):
        dice = random.Random(seed)
        events, create = wild_room(version, dice)
        by_key: dict[Key, list[EventId]] = {}
        for event in events.values():
            by_key.setdefault(event.key, []).append(event.event_id)
        common = {key: dice.choice(found) for key, found in by_key.items() if dice.random() < 0.4}
        sets = []
        for _ in range(dice.randint(2, 4)):
            own = {key: dice.choice(found) for key, found in by_key.items() if dice.random() < 0.8}
            sets.append({**own, **common, ("m.room.create", ""): create})
        rejected = {event_id for event_id in events if dice.random() < 0.1} - {create}
        expected = naive_resolve.resolve(version, sets, events, rejected=rejected)
        assert resolve(version, sets, events, rejected=rejected) == expected, f"seed {seed}"
        assert resolve(version, sets[::-1], events, rejected=rejected) == expected, f"seed {seed}"


def shuffled(state: Mapping[Key, EventId], shuffle: object) -> list[tuple[Key, EventId]]:
    """Return the entries of a state in another order."""
    entries = list(state.items())
    assert callable(shuffle)
    shuffle(entries)
    return entries


@pytest.mark.parametrize("name", VERSIONS)
@settings(max_examples=40)
@given(story=steps(), picks=st.lists(st.integers(0, 60), min_size=2, max_size=4), bad=st.integers(0, 60))
def test_fast_equals_naive_on_any_states_with_rejected_events(
    name: str, story: Story, picks: list[int], bad: int
) -> None:
    """States from anywhere in the graph, not only from its tips, and one auth event declared rejected."""
    version = versions.get(name)
    room, _ = tell(version, story)
    known = list(room.events)
    sets = [room.after[known[pick % len(known)]] for pick in picks]
    rejected = {known[bad % len(known)]} - {room.create}
    expected = naive_resolve.resolve(version, sets, room.events, rejected=rejected)
    assert resolve(version, sets, room.events, rejected=rejected) == expected

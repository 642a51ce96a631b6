"""State resolution: the specification's example and the resets that other homeservers were bitten by."""

from __future__ import annotations

import pytest

from appliance.matrix import versions
from appliance.matrix.ids import EventId
from appliance.matrix.resolve import resolve
from tests.matrix import naive_resolve
from tests.matrix.room import ALICE, BOB, CAROL, DAVE, Graph, make

VERSIONS = ("6", "10", "11", "12")


def room_with(name: str) -> tuple[Graph, EventId]:
    """Open a public room with Alice, its tip returned."""
    version = versions.get(name)
    room = Graph(version, resolve)
    tip = room.member([room.create], ALICE, "join")
    levels: dict[str, object] = {} if version.privileged_creators else {"users": {ALICE: 100}}
    tip = room.must([tip], "m.room.power_levels", ALICE, levels, "")
    return room, room.must([tip], "m.room.join_rules", ALICE, {"join_rule": "public"}, "")


@pytest.mark.parametrize("name", VERSIONS)
def test_leaving_and_rejoining_is_not_rewound_by_old_branches(name: str) -> None:
    """Synapse issue 1953: somebody left, joined, left; old branches must not bring an old membership back."""
    room, tip = room_with(name)
    zero = room.member([tip], BOB, "join")
    left = room.member([zero], BOB, "leave")
    joined = room.member([left], BOB, "join")
    left_again = room.member([joined], BOB, "leave")
    key = ("m.room.member", BOB)
    for older, newer in ((left, left_again), (left, joined), (joined, left_again), (zero, left_again)):
        late = room.add([older], "m.room.message", ALICE, {"body": "from an old branch"})
        assert late is not None
        assert room.state_before([late, newer])[key] == newer
        assert room.state_before([newer, late, older])[key] == newer


@pytest.mark.parametrize(("name", "survives"), [("6", False), ("11", False), ("12", True)])
def test_old_joins_and_a_stricter_join_rule(name: str, survives: bool) -> None:
    """Synapse issues 16629 and 16825: members whose joins are conflicted are judged by today's join rule.

    Algorithm 2 drops them; 2.1, which starts from nothing, was made to keep them.
    """
    room, tip = room_with(name)
    once = room.member([tip], BOB, "join")
    twice = room.must([tip], "m.room.member", BOB, {"membership": "join", "displayname": "Bob"}, BOB)
    strict = room.must([tip], "m.room.join_rules", ALICE, {"join_rule": "invite"}, "")
    sets = [{**room.after[strict], ("m.room.member", BOB): join} for join in (once, twice)]
    result = resolve(room.version, sets, room.events)
    assert result == naive_resolve.resolve(room.version, sets, room.events)
    assert result.get(("m.room.member", BOB)) == (twice if survives else None)
    assert result[("m.room.join_rules", "")] == strict


@pytest.mark.parametrize(("name", "survives"), [("6", False), ("11", False), ("12", True)])
def test_power_levels_are_not_reset_over_a_missing_link(name: str, survives: bool) -> None:
    """The levels in between are common knowledge, so algorithm 2 does not replay them and loses what follows.

    Algorithm 2.1 finds them on the path between the two conflicted events.
    """
    room, tip = room_with(name)
    tip = room.member([tip], BOB, "join")
    own: dict[str, int] = {} if room.version.privileged_creators else {ALICE: 100}
    first = room.must([tip], "m.room.power_levels", ALICE, {"users": {**own, CAROL: 10}}, "")
    second = room.must([first], "m.room.power_levels", ALICE, {"users": {**own, BOB: 99}}, "")
    witness = room.must([second], "m.room.topic", ALICE, {"topic": "cites the second"}, "")
    third = room.must([witness], "m.room.power_levels", BOB, {"users": {**own, BOB: 99, DAVE: 5}}, "")
    key = ("m.room.power_levels", "")
    sets = [{**room.after[third], key: first}, room.after[third]]
    result = resolve(room.version, sets, room.events)
    assert result == naive_resolve.resolve(room.version, sets, room.events)
    assert result[key] == (third if survives else first)


@pytest.mark.parametrize("name", VERSIONS)
def test_a_ban_beats_what_the_banned_did_meanwhile(name: str) -> None:
    """The example of the server-server API, "Soft failure": a topic set beside a ban does not stand."""
    room, tip = room_with(name)
    tip = room.member([tip], BOB, "join")
    own: dict[str, int] = {} if room.version.privileged_creators else {ALICE: 100}
    tip = room.must([tip], "m.room.power_levels", ALICE, {"users": {**own, BOB: 50}}, "")
    topic = room.must([tip], "m.room.topic", BOB, {"topic": "evasion"}, "", ts=1)
    ban = room.must([tip], "m.room.member", ALICE, {"membership": "ban"}, BOB, ts=9)
    merged = room.state_before([topic, ban])
    assert merged[("m.room.member", BOB)] == ban
    assert ("m.room.topic", "") not in merged


@pytest.mark.parametrize("name", VERSIONS)
def test_the_banned_cannot_close_the_room_meanwhile(name: str) -> None:
    room, tip = room_with(name)
    tip = room.member([tip], BOB, "join")
    own: dict[str, int] = {} if room.version.privileged_creators else {ALICE: 100}
    tip = room.must([tip], "m.room.power_levels", ALICE, {"users": {**own, BOB: 60}, "ban": 50}, "")
    by_bob = room.must([tip], "m.room.join_rules", BOB, {"join_rule": "invite"}, "", ts=1)
    by_alice = room.must([tip], "m.room.member", ALICE, {"membership": "ban"}, BOB, ts=99)
    merged = room.state_before([by_bob, by_alice])
    assert room.events[merged[("m.room.join_rules", "")]].content == {"join_rule": "public"}


def test_nothing_recurses_on_a_long_history() -> None:
    """Four thousand generations of power levels and memberships, forked at the very beginning."""
    room, tip = room_with("11")
    fork = tip
    key, member = ("m.room.power_levels", ""), ("m.room.member", ALICE)
    state = dict(room.after[tip])
    for generation in range(4000):
        type, content, state_key = (
            ("m.room.power_levels", {"users": {ALICE: 100}, "n": generation}, "")
            if generation % 2
            else ("m.room.member", {"membership": "join", "n": generation}, ALICE)
        )
        event = make(
            room.version, type, ALICE, content, state_key, room=room.room_id, ts=generation,
            auth_events=[state[("m.room.create", "")], state[key], state[member]],
        )  # fmt: skip
        room.events[event.event_id] = event
        state[event.key] = event.event_id
    other = room.must([fork], "m.room.topic", ALICE, {"topic": "old branch"}, "", ts=5)
    result = resolve(room.version, [state, room.after[other]], room.events)
    assert result[key] == state[key] and result[member] == state[member]
    assert result[("m.room.topic", "")] == other


def test_trivial_cases() -> None:
    room, tip = room_with("12")
    state = room.after[tip]
    assert resolve(room.version, [], room.events) == {}
    assert resolve(room.version, [state], {}) == state
    assert resolve(room.version, [state, dict(reversed(state.items())), state], {}) == state
    with pytest.raises(KeyError):
        resolve(room.version, [state, {}], {})

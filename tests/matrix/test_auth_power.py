"""Power levels: how they are read in every room version, and rule 9 (10 in room version 12) on changing them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.matrix import auth, versions
from appliance.matrix.canonical import Json
from appliance.matrix.power import DEFAULTS, INFINITE, Power, creators_of, read_level
from tests.matrix.room import ALICE, BOB, CAROL, DAVE, make
from tests.matrix.rule_table import CREATE, POWER_LEVELS, Case, base_state, everywhere, judge, title

LEVELS = "m.room.power_levels"
NAMES = list(DEFAULTS)
NO_RULE: Mapping[int, str | None] = {6: None}


def change(name: str, rules: Mapping[int, str | None], before: Mapping[str, Any] | None, after: Mapping[str, Any],
           sender: str = BOB) -> Case:  # fmt: skip
    """Write a change of power levels; Bob has 50 and Carol 10 in the levels before unless they say otherwise."""
    old = None if before is None else {"users": {BOB: 50, CAROL: 10}, **before}
    return Case(name, rules, sender, LEVELS, {"users": {BOB: 50, CAROL: 10}, **after}, "", {POWER_LEVELS: old})


def numbers(six: str, ten: str, twelve: str) -> Mapping[int, str | None]:
    """Return the rule's number in room versions 6 to 9, 10 and 11, and 12."""
    return {6: six, 10: ten, 12: twelve}


FORM = [
    change("first", NO_RULE, None, {}, ALICE),
    change("no users at all", NO_RULE, {"users": {BOB: 50}}, {"users": {BOB: 50}}),
    *(change(f"{name} no number", numbers("9.3", "9.1", "10.1"), {}, {name: []}) for name in NAMES),
    *(change(f"{name} null", numbers("9.3", "9.1", "10.1"), {}, {name: None}) for name in NAMES),
    *(change(f"{name} true", numbers("9.3", "9.1", "10.1"), {}, {name: True}) for name in NAMES),
    *(change(f"{name} as text", {6: None, 10: "9.1", 12: "10.1"}, {}, {name: "  +049 "}) for name in NAMES),
    *(change(f"{name} as a float's text", numbers("9.3", "9.1", "10.1"), {}, {name: "1.5"}) for name in NAMES),
    *(
        change(f"{name} no object", {6: None, 10: "9.2", 12: "10.2"}, {}, {name: []})
        for name in ("events", "notifications")
    ),
    *(
        change(f"{name} of texts", {6: None, 10: "9.2", 12: "10.2"}, {}, {name: {"x": "1"}})
        for name in ("events", "notifications")
    ),
    *(
        change(f"{name} of nonsense", numbers("9.5", "9.2", "10.2"), {}, {name: {"x": "one"}})
        for name in ("events", "notifications")
    ),
    change("users no object", numbers("9.1", "9.3", "10.3"), {}, {"users": [BOB]}),
    change("users no ids", numbers("9.1", "9.3", "10.3"), {}, {"users": {BOB: 50, "carol": 0}}),
    change("users no numbers", numbers("9.1", "9.3", "10.3"), {}, {"users": {BOB: 50, CAROL: None}}),
    change("users as texts", {6: None, 10: "9.3", 12: "10.3"}, {}, {"users": {BOB: "50", CAROL: "10"}}),
    change("historical user ids", NO_RULE, {}, {"users": {BOB: 50, CAROL: 10, "@Ü x:a.example": 1}}),
    change("creator among the users", {6: None, 12: "10.4"}, None, {"users": {ALICE: 100}}, ALICE),
]
SCALARS = [
    *(change(f"{name} up to the own level", NO_RULE, {name: 10}, {name: 50}) for name in NAMES),
    *(change(f"{name} removed", NO_RULE, {name: 50}, {}) for name in NAMES),
    *(
        change(f"{name} above the own level", numbers("9.3.2", "9.5.2", "10.6.2"), {name: 10}, {name: 51})
        for name in NAMES
    ),
    *(
        change(f"{name} out of reach", numbers("9.3.1", "9.5.1", "10.6.1"), {name: 51, "events": {LEVELS: 0}},
               {name: 10, "events": {LEVELS: 0}})
        for name in NAMES if name != "users_default"
    ),
    *(
        change(f"{name} out of reach, removed", numbers("9.3.1", "9.5.1", "10.6.1"),
               {name: 51, "events": {LEVELS: 0}}, {"events": {LEVELS: 0}})
        for name in NAMES if name != "users_default"
    ),
    change("unchanged however high", NO_RULE, {"ban": 99, "kick": 99}, {"ban": 99, "kick": 99}),
    change("true is not one", numbers("9.3", "9.1", "10.1"), {"ban": 1}, {"ban": True}),
    change("the same as text", {6: None, 10: "9.1", 12: "10.1"}, {"ban": 99}, {"ban": "99"}),
]  # fmt: skip
MAPS = [
    line
    for place in ("events", "notifications")
    for line in (
        change(f"{place} added", NO_RULE, {}, {place: {"x": 50}}),
        change(f"{place} changed", NO_RULE, {place: {"x": 10}}, {place: {"x": 50}}),
        change(f"{place} removed", NO_RULE, {place: {"x": 50}}, {}),
        change(f"{place} unchanged", NO_RULE, {place: {"x": 99}}, {place: {"x": 99}}),
        change(f"{place} added too high", numbers("9.5.1", "9.7.1", "10.8.1"), {}, {place: {"x": 51}}),
        change(f"{place} too high", numbers("9.5.1", "9.7.1", "10.8.1"), {place: {"x": 1}}, {place: {"x": 51}}),
        change(f"{place} out of reach", numbers("9.4.1", "9.6.1", "10.7.1"), {place: {"x": 51}}, {place: {"x": 1}}),
        change(f"{place} removed out of reach", numbers("9.4.1", "9.6.1", "10.7.1"), {place: {"x": 51}}, {}),
    )
]
USERS = [
    change("raise another to the own level", NO_RULE, {}, {"users": {BOB: 50, CAROL: 50}}),
    change("add somebody", NO_RULE, {}, {"users": {BOB: 50, CAROL: 10, DAVE: 50}}),
    change("step down", NO_RULE, {}, {"users": {BOB: 1, CAROL: 10}}),
    change("leave the list", NO_RULE, {}, {"users": {CAROL: 10}}),
    change("raise oneself", numbers("9.7.1", "9.9.1", "10.10.1"), {}, {"users": {BOB: 51, CAROL: 10}}),
    change("raise another higher", numbers("9.7.1", "9.9.1", "10.10.1"), {}, {"users": {BOB: 50, CAROL: 51}}),
    change("add somebody higher", numbers("9.7.1", "9.9.1", "10.10.1"), {},
           {"users": {BOB: 50, CAROL: 10, DAVE: 51}}),
    change("lower an equal", numbers("9.6.1", "9.8.1", "10.9.1"), {"users": {BOB: 50, CAROL: 50}},
           {"users": {BOB: 50, CAROL: 49}}),
    change("remove an equal", numbers("9.6.1", "9.8.1", "10.9.1"), {"users": {BOB: 50, CAROL: 50}},
           {"users": {BOB: 50}}),
    change("remove a lower one", NO_RULE, {}, {"users": {BOB: 50}}),
    change("not allowed at all", {6: "7", 12: "8"}, {}, {}, CAROL),
    change("creators may do anything", {12: None}, {"ban": 2**53 - 1, "users": {BOB: 2**53 - 1}},
           {"ban": 0, "users": {}}, ALICE),
]  # fmt: skip


@pytest.mark.parametrize(("line", "name", "refused_by"), everywhere(FORM, SCALARS, MAPS, USERS), ids=title)
def test_changing_power_levels(line: Case, name: str, refused_by: str | None) -> None:
    assert judge(line, name) == refused_by


@pytest.mark.parametrize("name", versions.KNOWN)
def test_reading(name: str) -> None:
    version = versions.get(name)
    create = base_state(version, {})[CREATE]
    content = {"users": {BOB: 50, DAVE: -5}, "users_default": 7, "events": {"x": 3}, "kick": 20, "redact": 30,
               "notifications": {"room": 60}}  # fmt: skip
    power = Power(version, create, make(version, LEVELS, ALICE, content, ""))
    assert [power.of(user) for user in (BOB, CAROL, DAVE)] == [50, 7, -5]
    assert power.of(ALICE) == (INFINITE if name == "12" else 7)
    assert (power.event_level("x", False), power.event_level("x", True)) == (3, 3)
    assert (power.event_level("y", False), power.event_level("y", True)) == (0, 50)
    assert (power.ban, power.kick, power.invite, power.redact) == (50, 20, 0, 30)
    assert (power.state_default, power.events_default, power.users_default) == (50, 0, 7)
    assert (power.notification("room"), power.notification("x")) == (60, 50)


@pytest.mark.parametrize("name", versions.KNOWN)
def test_a_room_without_power_levels(name: str) -> None:
    version = versions.get(name)
    power = Power(version, base_state(version, {})[CREATE], None)
    assert power.of(ALICE) == (INFINITE if name == "12" else 100)
    assert power.of(BOB) == 0
    assert (power.ban, power.invite, power.state_default, power.events_default) == (50, 0, 50, 0)
    assert Power(version, None, None).of(ALICE) == 0


def test_creators() -> None:
    more = {"creator": BOB, "additional_creators": [CAROL, 5]}
    found = {
        name: creators_of(make(version, "m.room.create", ALICE, more, "",
                               room=None if version.room_id_is_hash else "!r:a.example", prev=()))
        for name, version in versions.KNOWN.items()
    }  # fmt: skip
    assert found["6"] == found["10"] == {BOB}
    assert found["11"] == {ALICE}
    assert found["12"] == {ALICE, CAROL}


@pytest.mark.parametrize(
    ("value", "older", "newer"),
    [(5, 5, 5), (-5, -5, -5), ("100", 100, None), ("000100", 100, None), ("+100", 100, None), ("-100", -100, None),
     (" 00100 ", 100, None), (" -100 ", -100, None), ("0", 0, None),
     ("0" * 300 + "7", 7, None), ("", None, None), ("- 1", None, None),
     ("1_000", None, None), ("1.0", None, None), ("٣", None, None), ("9" * 400, None, None), (True, None, None),
     (None, None, None), ([], None, None), (1.0, None, None)],
)  # fmt: skip
def test_level_formats(value: Json, older: int | None, newer: int | None) -> None:
    assert read_level(value, versions.get("9")) == older
    assert read_level(value, versions.get("10")) == newer


levels = st.integers(-1, 101)
maps = st.dictionaries(st.sampled_from([BOB, CAROL, DAVE]), levels, max_size=3)
contents = st.fixed_dictionaries(
    {"users": maps},
    optional={**{name: levels for name in NAMES}, "events": st.dictionaries(st.sampled_from(["x", LEVELS]), levels)},
)


@given(before=contents, after=contents, name=st.sampled_from(list(versions.KNOWN)))
def test_nobody_gains_power_or_takes_it_from_an_equal(
    before: dict[str, Any], after: dict[str, Any], name: str
) -> None:
    """Whatever change of Bob's is allowed, no one ends above Bob who was not there before, and no peer falls."""
    version = versions.get(name)
    state = base_state(version, {POWER_LEVELS: before})
    create = state[CREATE]
    event = make(version, LEVELS, BOB, after, "", room=create.room_id)
    old, new = Power(version, create, state[POWER_LEVELS]), Power(version, create, event)
    try:
        auth.check(event, state)
    except auth.Rejected:
        return
    own = old.of(BOB)
    for user in (ALICE, BOB, CAROL, DAVE):
        assert new.of(user) <= max(own, old.of(user))
        if old.of(user) >= own and user != BOB and user in before["users"]:
            assert new.of(user) == old.of(user)
    for thing in ("ban", "kick", "redact", "invite", "state_default", "events_default"):
        was, becomes = old.named(thing), new.named(thing)
        assert was == becomes or max(was, becomes) <= max(own, DEFAULTS[thing])

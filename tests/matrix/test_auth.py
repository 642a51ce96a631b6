"""The authorisation rules but membership and power levels: create, auth events, federation, sending, redacting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.matrix import auth, versions
from appliance.matrix.auth import Key
from appliance.matrix.canonical import Json
from appliance.matrix.event import Event, parse
from appliance.matrix.ids import EventId
from appliance.matrix.power import Power
from tests.matrix.room import ALICE, BOB, CAROL, DAVE, make
from tests.matrix.rule_table import CREATE, POWER_LEVELS, ROOM, Case, base_state, everywhere, judge, title
from tests.matrix.test_canonical import texts, values

OK: Mapping[int, str | None] = {6: None}


def state_key(key: str) -> dict[str, Any]:
    """Name the state key of a case."""
    return {"state_key": key}


CLOSED: dict[Key, Mapping[str, Any] | None] = {CREATE: {"m.federate": False}}
STRICT: dict[Key, Mapping[str, Any] | None] = {
    POWER_LEVELS: {"users": {BOB: 50}, "invite": 60, "events_default": 1, "events": {"x.high": 51, "x.low": -1}}
}
NO_LEVELS: dict[Key, Mapping[str, Any] | None] = {POWER_LEVELS: None}
AWAY: dict[Key, Mapping[str, Any] | None] = {("m.room.member", BOB): {"membership": "invite"}}

SENDING = [
    Case("message", OK, CAROL, "m.room.message", {"body": "x"}),
    Case("own server in a closed room", OK, CAROL, "m.room.message", {}, state=CLOSED),
    Case("other server in a closed room", {6: "3", 12: "4"}, BOB, "m.room.message", {}, state=CLOSED),
    Case("join from another server to a closed room", {6: "3", 12: "4"}, DAVE, "m.room.member",
         {"membership": "join"}, DAVE, state=CLOSED),
    Case("not there", {6: "5", 12: "6"}, DAVE, "m.room.message", {}),
    Case("only invited", {6: "5", 12: "6"}, BOB, "m.room.message", {}, state=AWAY),
    Case("third-party invite", OK, CAROL, "m.room.third_party_invite", {}, "token"),
    Case("third-party invite by the weak", {6: "6.1", 12: "7.1"}, BOB, "m.room.third_party_invite", {}, "token",
         state=STRICT),
    Case("state by a moderator", OK, BOB, "m.room.topic", {"topic": "x"}, ""),
    Case("state by anybody", {6: "7", 12: "8"}, CAROL, "m.room.topic", {"topic": "x"}, ""),
    Case("message in a quiet room", {6: "7", 12: "8"}, CAROL, "m.room.message", {}, state=STRICT),
    Case("type with a level", {6: "7", 12: "8"}, BOB, "x.high", {}, state=STRICT),
    Case("type with a low level", OK, CAROL, "x.low", {}, "", state=STRICT),
    Case("creator without levels", OK, ALICE, "m.room.topic", {}, "", state=NO_LEVELS),
    Case("another without levels", {6: "7", 12: "8"}, BOB, "m.room.topic", {}, "", state=NO_LEVELS),
    Case("message without levels", OK, CAROL, "m.room.message", {}, state=NO_LEVELS),
    Case("own id as state key", OK, BOB, "x.state", {}, BOB),
    Case("foreign id as state key", {6: "8", 12: "9"}, BOB, "x.state", {}, CAROL),
    Case("anything beginning like an id", {6: "8", 12: "9"}, ALICE, "x.state", {}, "@"),
    Case("id inside a state key", OK, BOB, "x.state", {}, "_" + CAROL),
    Case("redaction by anybody", OK, CAROL, "m.room.redaction", {"redacts": "$x"}),
    Case("aliases are ordinary state", OK, BOB, "m.room.aliases", {"aliases": []}, "other.example"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "name", "refused_by"), everywhere(SENDING), ids=title)
def test_sending(line: Case, name: str, refused_by: str | None) -> None:
    assert judge(line, name) == refused_by


CREATES: list[tuple[str, dict[int, str | None], dict[str, Json], str | None, list[str]]] = [
    ("plain", {6: "1.4", 11: None}, {}, ROOM, []),
    ("creator", {6: None}, {"creator": ALICE}, ROOM, []),
    ("its version", {6: None}, {"creator": ALICE, "room_version": "6"}, ROOM, []),
    ("predecessor", {6: "1.1"}, {"creator": ALICE}, ROOM, ["$x"]),
    ("foreign room", {6: "1.2", 12: None}, {"creator": ALICE}, "!room:b.example", []),
    ("room without server", {6: "1.2", 12: None}, {"creator": ALICE}, "!" + "x" * 43, []),
    ("unknown version", {6: "1.3"}, {"creator": ALICE, "room_version": "org.example.x"}, ROOM, []),
    ("version is no text", {6: "1.3"}, {"creator": ALICE, "room_version": 11}, ROOM, []),
    ("more creators", {6: None}, {"creator": ALICE, "additional_creators": [BOB, "@ü:x"]}, ROOM, []),
    ("creators no list", {6: None, 12: "1.4"}, {"creator": ALICE, "additional_creators": BOB}, ROOM, []),
    ("creators no ids", {6: None, 12: "1.4"}, {"creator": ALICE, "additional_creators": ["bob"]}, ROOM, []),
    ("creators no texts", {6: None, 12: "1.4"}, {"creator": ALICE, "additional_creators": [5]}, ROOM, []),
]


@pytest.mark.parametrize("name", versions.KNOWN)
@pytest.mark.parametrize("line", CREATES, ids=lambda line: line[0])
def test_creating(
    line: tuple[str, dict[int, str | None], dict[str, Json], str | None, list[str]], name: str
) -> None:
    _, rules, content, room, prev = line
    version = versions.get(name)
    expected = next(rule for since, rule in reversed(rules.items()) if since <= int(name))
    room = None if version.room_id_is_hash else room
    create = make(version, "m.room.create", ALICE, content, "", room=room, prev=prev)
    assert refusal_of(create, {}) == expected


def refusal_of(event: Event, state: Mapping[Key, Event]) -> str | None:
    """Return the rule that refuses an event, None when it is allowed."""
    try:
        auth.check(event, state)
    except auth.Rejected as refusal:
        return refusal.rule
    return None


def test_a_create_event_of_version_12_must_not_name_its_room() -> None:
    version = versions.get("12")
    create = make(version, "m.room.create", ALICE, {}, "", room=None, prev=())
    named = parse({**create.pdu, "room_id": ROOM}, version)
    assert refusal_of(named, {}) == "1.2"


@pytest.mark.parametrize("name", versions.KNOWN)
def test_every_other_event_needs_its_create_event(name: str) -> None:
    version = versions.get(name)
    state = base_state(version, {})
    room = state[CREATE].room_id
    message = make(version, "m.room.message", ALICE, {}, room=room)
    elsewhere = make(version, "m.room.message", ALICE, {}, room="!" + "x" * 43)
    without = {key: event for key, event in state.items() if key != CREATE}
    assert refusal_of(message, state) is None
    assert refusal_of(message, without) == ("2" if name == "12" else "2.4")
    assert refusal_of(elsewhere, state) == ("2" if name == "12" else "2.5")


def selected(version: versions.RoomVersion) -> tuple[Event, list[Event], Event]:
    """Return a join with its rightly chosen auth events, and the create event."""
    state = base_state(version, {})
    create = state[CREATE]
    keys = auth.auth_keys(version, "m.room.member", DAVE, DAVE, {"membership": "join"})
    join = make(version, "m.room.member", DAVE, {"membership": "join"}, DAVE, room=create.room_id)
    return join, [state[key] for key in keys if key in state], create


@pytest.mark.parametrize("name", versions.KNOWN)
def test_choice_of_auth_events(name: str) -> None:
    version = versions.get(name)
    number = "3" if name == "12" else "2"
    join, chosen, create = selected(version)
    state = auth.check_auth_events(join, chosen, create=create)
    assert state[CREATE] == create and set(state.values()) == {*chosen, create}
    auth.check(join, state)
    topic = make(version, "m.room.topic", ALICE, {}, "", room=create.room_id)
    message = make(version, "m.room.join_rules", ALICE, {}, room=create.room_id)
    foreign = make(version, "m.room.power_levels", ALICE, {}, "", room="!other:a.example")
    chosen_but_levels = [event for event in chosen if event.type != "m.room.power_levels"]
    for events, rejected, rule in (
        ([*chosen, chosen[-1]], set(), f"{number}.1"),
        ([*chosen, topic], set(), f"{number}.2"),
        ([*chosen_but_levels, message], set(), f"{number}.2"),
        (chosen, {chosen[-1].event_id}, f"{number}.3"),
        ([*chosen_but_levels, foreign], set(), f"{number}.5"),
    ):
        assert choice_refused_by(join, events, create, rejected) == rule


def choice_refused_by(event: Event, events: list[Event], create: Event | None, rejected: set[EventId]) -> str | None:
    """Return the rule that refuses the choice of auth events."""
    try:
        auth.check_auth_events(event, events, create=create, rejected=rejected)
    except auth.Rejected as refusal:
        return refusal.rule
    return None


def test_the_create_event_among_the_auth_events() -> None:
    join, chosen, create = selected(versions.get("11"))
    assert choice_refused_by(join, [event for event in chosen if event != create], create, set()) == "2.4"
    assert choice_refused_by(join, chosen, None, set()) is None
    join, chosen, create = selected(versions.get("12"))
    assert choice_refused_by(join, [create, *chosen], create, set()) == "3.2"
    assert choice_refused_by(join, chosen, None, set()) == "2"
    assert auth.check_auth_events(create, []) == {}


P, J = ("m.room.power_levels", ""), ("m.room.join_rules", "")


def m(user: str) -> Key:
    """Return the slot of a user's membership."""
    return ("m.room.member", user)


@pytest.mark.parametrize(
    ("type", "key", "content", "expected"),
    [
        ("m.room.message", None, {}, {P, m(BOB)}),
        ("m.room.topic", "", {}, {P, m(BOB)}),
        ("m.room.member", None, {"membership": "join"}, {P, m(BOB)}),
        ("m.room.member", BOB, {"membership": "join"}, {P, m(BOB), J}),
        ("m.room.member", BOB, {"membership": "knock"}, {P, m(BOB), J}),
        ("m.room.member", BOB, {"membership": "leave"}, {P, m(BOB)}),
        ("m.room.member", CAROL, {"membership": "ban"}, {P, m(BOB), m(CAROL)}),
        ("m.room.member", CAROL, {"membership": "invite"}, {P, m(BOB), m(CAROL), J}),
        ("m.room.member", CAROL, {"membership": "invite", "third_party_invite": {"signed": {"token": "t"}}},
         {P, m(BOB), m(CAROL), J, ("m.room.third_party_invite", "t")}),
        ("m.room.member", CAROL, {"membership": "invite", "third_party_invite": {"signed": 5}},
         {P, m(BOB), m(CAROL), J}),
        ("m.room.member", BOB, {"membership": "join", "join_authorised_via_users_server": ALICE},
         {P, m(BOB), m(ALICE), J}),
        ("m.room.member", BOB, {"membership": "leave", "join_authorised_via_users_server": ALICE}, {P, m(BOB)}),
    ],
)  # fmt: skip
def test_auth_events_selection(type: str, key: str | None, content: dict[str, Json], expected: set[Key]) -> None:
    for name, version in versions.KNOWN.items():
        wanted = set(expected) if name == "12" else expected | {CREATE}
        if not version.restricted_joins:
            wanted.discard(m(ALICE))
        keys = auth.auth_keys(version, type, BOB, key, content)
        assert len(keys) == len(set(keys)) and set(keys) == wanted
        assert auth.auth_keys(version, "m.room.create", BOB, "", {}) == []


@pytest.mark.parametrize(
    ("sender", "target", "applies"),
    [(ALICE, BOB, True), (BOB, ALICE, True), (CAROL, CAROL, True), (CAROL, BOB, False), (CAROL, ALICE, True),
     (DAVE, BOB, False)],
)  # fmt: skip
def test_which_redactions_take_effect(sender: str, target: str, applies: bool) -> None:
    version = versions.get("11")
    state = base_state(version, {})
    power = Power(version, state[CREATE], state[POWER_LEVELS])
    redaction = make(version, "m.room.redaction", sender, {"redacts": "$x"})
    assert auth.redaction_applies(redaction, make(version, "m.room.message", target, {}), power) is applies
    assert not auth.redaction_applies(redaction, state[CREATE], power)
    assert not auth.redaction_applies(redaction, make(version, "x", sender, {}, room="!other:a.example"), power)


kinds = st.sampled_from(["m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.message",
                         "m.room.third_party_invite", "m.room.create", "x"])  # fmt: skip
words = st.sampled_from(["membership", "users", "events", "join_rule", "ban", "third_party_invite", "notifications",
                         "join_authorised_via_users_server", "additional_creators", "creator"])  # fmt: skip
people = st.sampled_from([ALICE, BOB, CAROL, DAVE])
hints = st.sampled_from(["join", "invite", "leave", "ban", "knock", ALICE, BOB, 50, 100]) | values


@given(
    name=st.sampled_from(list(versions.KNOWN)),
    type=kinds,
    sender=people,
    key=st.none() | people | texts,
    content=st.dictionaries(words, hints | st.dictionaries(people, hints, max_size=2), max_size=3),
    state=st.dictionaries(st.tuples(kinds, people | st.just("")), st.dictionaries(words, hints), max_size=3),
)
def test_whatever_comes_is_allowed_or_rejected_with_a_rule(
    name: str, type: str, sender: str, key: str | None, content: dict[str, Json], state: dict[Key, dict[str, Json]]
) -> None:
    """Malformed contents, in the event or in the state, never raise anything else; and the answer is stable."""
    version = versions.get(name)
    meets = base_state(version, {slot: value for slot, value in state.items() if slot[0] != "m.room.create"})
    room = None if type == "m.room.create" and version.room_id_is_hash else meets[CREATE].room_id
    event = make(version, type, sender, content, key, room=room)
    first = refusal_of(event, meets)
    assert first is None or first[0].isdigit()
    assert refusal_of(event, dict(reversed(meets.items()))) == first
    only = {slot: meets[slot] for slot in auth.auth_keys(version, type, sender, key, content) if slot in meets}
    assert refusal_of(event, {**only, CREATE: meets[CREATE]}) == first, "the rules looked beyond the auth events"

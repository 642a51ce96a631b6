"""Events: vectors of the appendices, ids, redaction tables per room version, limits, and the form of foreign PDUs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.matrix import signing, versions
from appliance.matrix.canonical import MAX_INTEGER, Json, decode_object
from appliance.matrix.errors import BadJson, TooLarge, UnsupportedRoomVersion
from appliance.matrix.event import (
    BadEvent,
    build,
    content_hash,
    content_hash_matches,
    countersign,
    event_id_of,
    parse,
    pruned,
    redact,
    signers,
    stored,
)
from appliance.matrix.ids import EventId, RoomId, ServerName
from tests.matrix.room import ALICE, BOB, KEY, make
from tests.matrix.test_canonical import texts, values
from tests.matrix.test_signing import KEY as VECTOR_KEY

ALL = list(versions.KNOWN)

MINIMAL: dict[str, Json] = {
    "room_id": "!x:domain", "sender": "@a:domain", "origin": "domain", "origin_server_ts": 1000000, "signatures": {},
    "hashes": {}, "type": "X", "content": {}, "prev_events": [], "auth_events": [], "depth": 3,
    "unsigned": {"age_ts": 1000000},
}  # fmt: skip
REDACTABLE: dict[str, Json] = {
    "content": {"body": "Here is the message content"}, "event_id": "$0:domain", "origin": "domain",
    "origin_server_ts": 1000000, "type": "m.room.message", "room_id": "!r:domain", "sender": "@u:domain",
    "signatures": {}, "unsigned": {"age_ts": 1000000},
}  # fmt: skip


@pytest.mark.parametrize(
    ("pdu", "expected_hash", "signature"),
    [
        (
            MINIMAL,
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            REDACTABLE,
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ],
)
def test_vectors_of_the_appendices(pdu: dict[str, Json], expected_hash: str, signature: str) -> None:
    assert content_hash(pdu) == expected_hash
    hashed = {**pdu, "hashes": {"sha256": expected_hash}}
    assert content_hash_matches(hashed) and not content_hash_matches({**hashed, "depth": 4})
    signed = signing.sign_json(redact(hashed, versions.get("6")), ServerName("domain"), VECTOR_KEY)
    assert signed["signatures"] == {"domain": {"ed25519:1": signature}}


def reference_id(pdu: Mapping[str, Json], version: versions.RoomVersion) -> str:
    """The event id by the words of the specification, on the standard library's JSON."""
    bare = {key: value for key, value in redact(pdu, version).items() if key not in ("signatures", "unsigned")}
    raw = json.dumps(bare, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()
    return "$" + signing.encode_base64(sha256(raw).digest()).replace("+", "-").replace("/", "_")


@pytest.mark.parametrize("name", ALL)
@given(content=st.dictionaries(texts, values, max_size=4), type=texts, state_key=st.none() | texts)
def test_build_parse_and_stored_agree(
    name: str, content: dict[str, Json], type: str, state_key: str | None
) -> None:
    version = versions.get(name)
    event = make(version, type, ALICE, content, state_key)
    again = parse(decode_object(event.raw), version)
    back = stored(event.event_id, event.raw, version)
    for other in (again, back):
        assert [getattr(other, field) for field in event.__struct_fields__] == [
            getattr(event, field) for field in event.__struct_fields__
        ]
    assert event.event_id == reference_id(event.pdu, version) == event_id_of(event.pdu, version)
    assert content_hash_matches(event.pdu)
    signing.verify_json(redact(event.pdu, version), "a.example", KEY.key_id, KEY.verify_key)
    bare = pruned(event)
    assert bare.event_id == event.event_id == event_id_of(bare.pdu, version)
    signing.verify_json(redact(bare.pdu, version), "a.example", KEY.key_id, KEY.verify_key)
    assert redact(bare.pdu, version) == bare.pdu


def test_key_and_equality() -> None:
    version = versions.get("11")
    event = make(version, "m.room.topic", ALICE, {"topic": "secret words"}, "")
    assert event.key == ("m.room.topic", "") and event.is_state
    message = make(version, "m.room.message", ALICE, {"body": "secret words"})
    assert not message.is_state
    with pytest.raises(ValueError):
        assert message.key
    assert event == stored(event.event_id, event.raw, version) != message
    assert len({event, stored(event.event_id, event.raw, version), message}) == 2
    assert event != event.event_id
    assert "secret" not in repr(event)
    with pytest.raises(AttributeError):
        event.depth = 5  # type: ignore[misc]


FULL: dict[str, dict[str, Json]] = {
    "m.room.member": {"membership": "join", "displayname": "A", "join_authorised_via_users_server": BOB,
                      "third_party_invite": {"display_name": "a", "signed": {"token": "t"}}},
    "m.room.create": {"creator": ALICE, "room_version": "x", "m.federate": False},
    "m.room.join_rules": {"join_rule": "restricted", "allow": [], "x": 1},
    "m.room.power_levels": {"ban": 1, "events": {"x": 1}, "events_default": 2, "kick": 3, "redact": 4, "invite": 5,
                            "state_default": 6, "users": {ALICE: 7}, "users_default": 8, "notifications": {"room": 9}},
    "m.room.history_visibility": {"history_visibility": "shared", "x": 1},
    "m.room.aliases": {"aliases": []},
    "m.room.redaction": {"redacts": "$x", "reason": "r"},
    "m.room.message": {"body": "b"},
}  # fmt: skip
POWER = {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"}
KEPT: dict[str, list[tuple[str, set[str]]]] = {
    "m.room.member": [("6", {"membership"}), ("9", {"membership", "join_authorised_via_users_server"}),
                      ("11", {"membership", "join_authorised_via_users_server", "third_party_invite"})],
    "m.room.create": [("6", {"creator"}), ("11", {"creator", "room_version", "m.federate"})],
    "m.room.join_rules": [("6", {"join_rule"}), ("8", {"join_rule", "allow"})],
    "m.room.power_levels": [("6", POWER), ("11", POWER | {"invite"})],
    "m.room.history_visibility": [("6", {"history_visibility"})],
    "m.room.aliases": [("6", set())],
    "m.room.redaction": [("6", set()), ("11", {"redacts"})],
    "m.room.message": [("6", set())],
}  # fmt: skip


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("type", KEPT)
def test_content_that_survives_a_redaction(name: str, type: str) -> None:
    kept = [keys for since, keys in KEPT[type] if int(since) <= int(name)][-1]
    before = json.dumps(FULL[type])
    content = redact({"type": type, "content": FULL[type]}, versions.get(name))["content"]
    assert isinstance(content, dict) and set(content) == kept
    if "third_party_invite" in kept:
        assert content["third_party_invite"] == {"signed": {"token": "t"}}
    assert json.dumps(FULL[type]) == before


@pytest.mark.parametrize("name", ALL)
def test_top_level_that_survives_a_redaction(name: str) -> None:
    always = {"event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth",
              "prev_events", "auth_events", "origin_server_ts"}  # fmt: skip
    older = {"prev_state", "origin", "membership"}
    everything: dict[str, Json] = dict.fromkeys(always | older | {"unsigned", "redacts", "age", "x"}, "1")
    expected = always | older if int(name) < 11 else always
    assert set(redact(everything, versions.get(name))) == expected


@pytest.mark.parametrize("invite", [None, "text", 5, ["signed"]])
def test_malformed_third_party_invites_go_in_a_redaction(invite: Json) -> None:
    pdu: dict[str, Json] = {"type": "m.room.member", "content": {"third_party_invite": invite}}
    assert redact(pdu, versions.get("11"))["content"] == {}


@pytest.mark.parametrize("name", ALL)
def test_where_a_redaction_names_its_target(name: str) -> None:
    version = versions.get(name)
    plain = make(version, "m.room.redaction", ALICE, {"redacts": "$inside"})
    outside = parse({**plain.pdu, "redacts": "$outside"}, version)
    assert plain.redacts == ("$inside" if version.modern_redactions else None)
    assert outside.redacts == ("$inside" if version.modern_redactions else "$outside")
    assert make(version, "m.room.message", ALICE, {"redacts": "$inside"}).redacts is None


def test_room_version_12_names_the_room_by_its_create_event() -> None:
    version = versions.get("12")
    create = make(version, "m.room.create", ALICE, {"room_version": "12"}, "", room=None, prev=())
    assert create.room_id == "!" + create.event_id[1:]
    assert "room_id" not in create.pdu
    assert parse(create.pdu, version).room_id == create.room_id
    with pytest.raises(ValueError):
        make(version, "m.room.message", ALICE, {}, room=None)
    with pytest.raises(ValueError):
        make(version, "m.room.create", ALICE, {}, "", room="!x:a.example")


def test_countersigning_keeps_the_id() -> None:
    version = versions.get("10")
    event = make(version, "m.room.member", ALICE, {"membership": "invite", "reason": "r"}, BOB)
    other = signing.generate("b", bytes(32))
    both = countersign(event, ServerName("b.example"), other)
    assert both.event_id == event.event_id and both.content == event.content
    for server, key in (("a.example", KEY), ("b.example", other)):
        signing.verify_json(redact(both.pdu, version), server, key.key_id, key.verify_key)
    assert stored(both.event_id, both.raw, version).pdu == both.pdu


@pytest.mark.parametrize(
    ("name", "type", "content", "expected"),
    [
        ("11", "m.room.message", {}, {"a.example"}),
        ("11", "m.room.member", {"membership": "join"}, {"a.example"}),
        ("11", "m.room.member", {"membership": "join", "join_authorised_via_users_server": BOB},
         {"a.example", "b.example"}),
        ("7", "m.room.member", {"membership": "join", "join_authorised_via_users_server": BOB}, {"a.example"}),
        ("11", "m.room.member", {"membership": "join", "join_authorised_via_users_server": "?"}, {"a.example"}),
        ("11", "m.room.member", {"membership": "invite"}, {"a.example"}),
        ("11", "m.room.member", {"membership": "invite", "third_party_invite": {}}, set()),
        ("11", "m.room.member", {"membership": "leave", "third_party_invite": {}}, {"a.example"}),
    ],
)  # fmt: skip
def test_who_must_have_signed(name: str, type: str, content: dict[str, Json], expected: set[str]) -> None:
    event = make(versions.get(name), type, ALICE, content, ALICE)
    assert signers(event) == expected


def largest(version: versions.RoomVersion, size: int) -> Any:
    """Build a message whose canonical form has exactly the size."""
    empty = len(make(version, "m.room.message", ALICE, {"body": ""}).raw)
    return make(version, "m.room.message", ALICE, {"body": "x" * (size - empty)})


def test_size_limits() -> None:
    version = versions.get("11")
    assert len(largest(version, 65536).raw) == 65536
    with pytest.raises(TooLarge):
        largest(version, 65537)
    assert len(make(version, "x" * 255, ALICE, {}, "y" * 255, prev=["$x"] * 20, auth_events=["$y"] * 10).raw) < 65536
    for make_it in (
        lambda: make(version, "x" * 256, ALICE, {}),
        lambda: make(version, "ü" * 128, ALICE, {}),
        lambda: make(version, "x", ALICE, {}, "y" * 256),
        lambda: make(version, "x", ALICE, {}, prev=["$x"] * 21),
        lambda: make(version, "x", ALICE, {}, auth_events=["$x"] * 11),
    ):
        with pytest.raises(TooLarge):
            make_it()


@pytest.mark.parametrize("content", [{"a": 1.5}, {"a": 2**53}, {"a": "\ud800"}, {"a": [{"b": 1.0}]}])
def test_content_without_canonical_form(content: dict[str, Json]) -> None:
    with pytest.raises(BadJson):
        make(versions.get("11"), "m.room.message", ALICE, content)


def test_depth_stays_at_its_limit() -> None:
    assert make(versions.get("11"), "x", ALICE, {}, depth=2**60).depth == MAX_INTEGER


GONE = object()
WRONG: list[tuple[str, Any]] = [
    ("type", GONE), ("type", 5), ("type", "x" * 256), ("sender", GONE), ("sender", "alice"), ("sender", "@alice"),
    ("sender", "@" + "x" * 260 + ":a.example"), ("state_key", None), ("state_key", 1), ("state_key", "x" * 256),
    ("room_id", GONE), ("room_id", 7), ("room_id", "room"), ("content", GONE), ("content", []), ("content", None),
    ("hashes", GONE), ("hashes", {}), ("hashes", {"sha256": 5}), ("signatures", GONE), ("signatures", []),
    ("unsigned", []), ("origin_server_ts", GONE), ("origin_server_ts", "1"), ("origin_server_ts", True),
    ("origin_server_ts", 1.0), ("origin_server_ts", 2**53), ("depth", GONE), ("depth", -1), ("depth", 2**53),
    ("depth", True), ("prev_events", GONE), ("prev_events", {}), ("prev_events", [1]), ("prev_events", ["$x"] * 21),
    ("prev_events", [["$x", {"sha256": "y"}]]), ("auth_events", GONE), ("auth_events", ["$x"] * 11),
    ("auth_events", ["x" * 256]), ("content", {"a": 0.5}), ("content", {"a": "x" * 65536}), ("redacts", "x" * 256),
]  # fmt: skip


@pytest.mark.parametrize("name", ["6", "12"])
@pytest.mark.parametrize(("field", "value"), WRONG)
def test_malformed_pdus(name: str, field: str, value: Any) -> None:
    version = versions.get(name)
    state_key = "" if name == "12" else None
    pdu = dict(make(version, "m.room.message", ALICE, {"body": "x"}, state_key).pdu)
    pdu[field] = value
    if value is GONE:
        del pdu[field]
    with pytest.raises(BadEvent):
        parse(pdu, version)


@given(st.dictionaries(st.sampled_from([*MINIMAL, "state_key", "redacts"]), values | st.floats()))
def test_any_object_is_a_pdu_or_refused(pdu: dict[str, Json]) -> None:
    for name in ("6", "12"):
        try:
            parse({**MINIMAL, **pdu}, versions.get(name))
        except BadEvent as refusal:
            assert refusal.errcode == "M_BAD_JSON"


def test_older_redactions_are_built_with_their_target_outside() -> None:
    for name, version in versions.KNOWN.items():
        event = build(
            version, room_id=RoomId("!r:a.example"), type="m.room.redaction", sender=ALICE, state_key=None,
            content={"reason": "x"}, origin_server_ts=1, depth=1, prev_events=[], auth_events=[],
            redacts=EventId("$target"), unsigned={"note": 1}, signer=KEY, server=ServerName("a.example"),
        )  # fmt: skip
        assert event.redacts == "$target"
        assert ("redacts" in event.pdu) is (int(name) < 11)
        assert ("redacts" in event.content) is (int(name) >= 11)
        assert event.pdu["unsigned"] == {"note": 1} and parse(event.pdu, version).event_id == event.event_id


@pytest.mark.parametrize("claimed", [None, {}, {"sha256": 5}, {"sha256": "!"}, {"sha256": ""}, [], "x"])
def test_a_broken_content_hash_matches_nothing(claimed: Json) -> None:
    assert not content_hash_matches({**MINIMAL, "hashes": claimed})


def test_unknown_room_versions() -> None:
    assert versions.get("11").name == "11" and repr(versions.get("11")) == "RoomVersion(11)"
    for name in ("", "5", "13", "org.example"):
        with pytest.raises(UnsupportedRoomVersion):
            versions.get(name)

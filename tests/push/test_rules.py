"""Push rules as the specification writes them: every example, every default rule, and how fast they are."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.matrix.property_path import path_of
from appliance.push import defaults, globs
from appliance.push.conditions import Condition, Reader, compile_condition
from appliance.push.rules import compile_ruleset, default_rules, outcome_of
from tests.push.cases import ANNA, BERT, ME, ROOM, Levels, subject, text


def compiled(condition: dict[str, Any]) -> Condition:
    found = compile_condition(condition)
    assert found is not None
    return found


@pytest.mark.parametrize(("pattern", "value", "matches"), [
    ("lunc?*", "Lunch plans", True), ("lunc?*", "LUNCH", True), ("lunc?*", " lunch", False), ("lunc?*", "lunc", False),
    ("", "", True), ("", "x", False), ("*", "", True), ("?", "", False), ("a*c", "abc", True), ("a*c", "ac", True),
    ("a*c", "abcd", False), ("*b*", "abc", True), ("a**c", "abbc", True), ("a.c", "abc", False), ("a*a", "a", False),
    ("*a?", "aaab", True), ("a\n*", "a\nb", True), ("a?b", "a\nb", True),
])
def test_a_glob_must_match_the_whole_value(pattern: str, value: str, matches: bool) -> None:
    check = compiled({"kind": "event_match", "key": "content.topic", "pattern": pattern})
    assert check(subject("m.room.topic", {"topic": value}), ME) is matches


@pytest.mark.parametrize(("pattern", "body", "matches"), [
    ("ex*ple", "An example event.", True), ("ex*ple", "exple", True), ("ex*ple", "An exciting triple-whammy", True),
    ("ex*ple", "An examples event", False), ("cake", "cake", True), ("cake", "pancake", False),
    ("cake", "cake_", False), ("cake", "Cake!", True), ("cake", "Käcake", True), ("@room", "hey @room!", True),
    ("@room", "mail@room", False), ("cake*lie", "the cake is a lie", True), ("c?ke", "a coke", True),
    ("", "", True), ("", "word", False), ("*", "anything", True), ("a+b", "is a+b ok", True),
])
def test_a_glob_on_the_body_matches_between_word_boundaries(pattern: str, body: str, matches: bool) -> None:
    check = compiled({"kind": "event_match", "key": "content.body", "pattern": pattern})
    assert check(subject(content=text(body)), ME) is matches


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_globs_agree_with_a_plain_translation(pattern: str, value: str) -> None:
    plain = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    assert globs.whole(pattern)(value) == (re.fullmatch(plain, value) is not None)


@given(st.text("ab*?", max_size=6), st.text("ab -", max_size=10))
def test_globs_on_bodies_agree_with_a_plain_translation(pattern: str, value: str) -> None:
    plain = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    word = "[A-Za-z0-9_]"
    assert globs.words(pattern)(value) == (re.search(f"(?<!{word})(?:{plain})(?!{word})", value) is not None)


def test_a_hostile_glob_is_as_fast_as_any() -> None:
    began = time.perf_counter()
    assert not globs.whole("a*" * 300 + "b")("a" * 60_000)
    assert not globs.words("*a" * 300 + "b")("a " * 30_000)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(("key", "path"), [
    ("content.body", ("content", "body")), ("content.m\\.relates_to.x", ("content", "m.relates_to", "x")),
    ("content.m\\\\foo", ("content", "m\\foo")), ("a\\x", ("a\\x",)), ("a\\", ("a\\",)), ("", ("",)),
    ("a..b", ("a", "", "b")),
])
def test_dots_and_backslashes_in_names_are_escaped(key: str, path: tuple[str, ...]) -> None:
    assert path_of(key) == path


@pytest.mark.parametrize(("value", "given_value", "matches"), [
    (True, True, True), (True, "true", False), (True, 1, False), (1, True, False), (1, 1, True), ("a", "a", True),
    ("a", "A", False), (None, None, True), ("x", ["x"], False), (0, False, False),
])
def test_event_property_is_compares_exactly(value: Any, given_value: Any, matches: bool) -> None:
    check = compiled({"kind": "event_property_is", "key": "content.m\\.federate", "value": value})
    assert check(subject("m.room.create", {"m.federate": given_value}), ME) is matches


def test_null_and_absent_are_different() -> None:
    check = compiled({"kind": "event_property_is", "key": "content.a.b", "value": None})
    assert check(subject(content={"a": {"b": None}}), ME)
    assert not check(subject(content={"a": {}}), ME)
    assert not check(subject(content={"a": "text"}), ME)


def test_event_property_contains_looks_for_the_exact_value() -> None:
    check = compiled({"kind": "event_property_contains", "key": "content.l", "value": 1})
    assert check(subject(content={"l": ["x", 1]}), ME)
    for other in (["1"], [True], [[1]], "1", 1, None):
        assert not check(subject(content={"l": other}), ME)


@pytest.mark.parametrize(("bound", "joined", "matches"), [
    ("2", 2, True), ("==2", 2, True), ("2", 3, False), ("<2", 1, True), ("<2", 2, False), (">2", 3, True),
    (">=2", 2, True), ("<=2", 2, True), ("<=2", 3, False),
])
def test_room_member_count(bound: str, joined: int, matches: bool) -> None:
    assert compiled({"kind": "room_member_count", "is": bound})(subject(joined=joined), ME) is matches


@pytest.mark.parametrize("condition", [
    {"kind": "room_member_count", "is": "two"}, {"kind": "room_member_count", "is": "=2"},
    {"kind": "room_member_count"},
    {"kind": "org.example.unknown"}, {}, {"kind": 7}, {"kind": "event_match", "key": "content.body"},
    {"kind": "event_match", "key": 1, "pattern": "x"}, {"kind": "event_property_is", "key": "a", "value": {}},
    {"kind": "event_property_is", "key": "a"}, {"kind": "event_property_contains", "key": "a", "value": 1.5},
])
def test_unknown_and_malformed_conditions_never_match(condition: dict[str, Any]) -> None:
    assert compile_condition(condition) is None
    rule = {"rule_id": "x", "enabled": True, "conditions": [condition], "actions": ["notify"]}
    assert compile_ruleset({"override": [rule]}).outcome(subject(), ME) is None


LOUD = {"sound": "default", "highlight": True}


@pytest.mark.parametrize(("name", "type", "content", "more", "tweaks"), [
    ("plain", "m.room.message", text("hello"), {}, {}),
    ("two people", "m.room.message", text("hello"), {"joined": 2}, {"sound": "default"}),
    ("encrypted", "m.room.encrypted", {}, {}, {}),
    ("encrypted, two people", "m.room.encrypted", {}, {"joined": 2}, {"sound": "default"}),
    ("notice", "m.room.message", {"msgtype": "m.notice", "body": "hello"}, {}, None),
    ("user mention", "m.room.message", text("x", **{"m.mentions": {"user_ids": [BERT]}}), {}, LOUD),
    ("mention of another", "m.room.message", text("x", **{"m.mentions": {"user_ids": [ANNA]}}), {}, {}),
    ("room mention", "m.room.message", text("x", **{"m.mentions": {"room": True}}), {"levels": Levels(anna=50)},
     {"highlight": True}),
    ("room mention, too weak", "m.room.message", text("x", **{"m.mentions": {"room": True}}), {}, {}),
    ("room mention, no boolean", "m.room.message", text("x", **{"m.mentions": {"room": "true"}}),
     {"levels": Levels(anna=50)}, {}),
    ("display name", "m.room.message", text("Frag BERT vom Nachtdienst."), {}, LOUD),
    ("display name, but mentions are declared", "m.room.message", text("Bert vom Nachtdienst", **{"m.mentions": {}}),
     {}, {}),
    ("user name", "m.room.message", text("bert?"), {}, LOUD),
    ("part of a word", "m.room.message", text("Albert"), {}, {}),
    ("@room in the text", "m.room.message", text("hey @room"), {"levels": Levels(anna=50)}, {"highlight": True}),
    ("@room, too weak", "m.room.message", text("hey @room"), {}, {}),
    ("edit", "m.room.message", text("x", **{"m.relates_to": {"rel_type": "m.replace", "event_id": "$e"}}), {}, None),
    ("reaction", "m.reaction", {"m.relates_to": {"rel_type": "m.annotation"}}, {}, None),
    ("invitation", "m.room.member", {"membership": "invite"}, {"state_key": BERT}, {"sound": "default"}),
    ("invitation of another", "m.room.member", {"membership": "invite"}, {"state_key": ANNA}, None),
    ("join", "m.room.member", {"membership": "join"}, {"state_key": ANNA}, None),
    ("tombstone", "m.room.tombstone", {}, {"state_key": ""}, {"highlight": True}),
    ("tombstone without state key", "m.room.tombstone", {}, {}, None),
    ("server acl", "m.room.server_acl", {}, {"state_key": ""}, None),
    ("call", "m.call.invite", {}, {}, {"sound": "ring"}),
    ("topic", "m.room.topic", {"topic": "bert"}, {"state_key": ""}, None),
    ("unknown type with a mention", "org.example", {"m.mentions": {"user_ids": [BERT]}}, {}, LOUD),
])
def test_what_the_default_rules_say(name: str, type: str, content: Any, more: Any, tweaks: Any) -> None:
    outcome = default_rules().outcome(subject(type, content, **more), ME)
    assert (None if outcome is None else outcome.tweaks) == tweaks
    personal = compile_ruleset(defaults.default_ruleset(BERT))
    spelled_out = personal.outcome(subject(type, content, **more), ME)
    assert (None if spelled_out is None else spelled_out.tweaks) == tweaks


def rule(name: str, *actions: Any, **more: Any) -> dict[str, Any]:
    return {"rule_id": name, "default": False, "enabled": True, "actions": list(actions), **more}


def test_kinds_are_asked_in_their_order_and_the_first_match_decides() -> None:
    ruleset = defaults.template()
    ruleset["underride"].insert(0, rule("u", conditions=[]))
    assert compile_ruleset(ruleset).outcome(subject(content=text("x")), ME) is None
    ruleset["sender"].append(rule(ANNA, "notify", {"set_tweak": "sound", "value": "sender"}))
    assert _sound(ruleset) == "sender"
    ruleset["room"].append(rule(ROOM, "notify", {"set_tweak": "sound", "value": "room"}))
    assert _sound(ruleset) == "room"
    ruleset["content"].insert(0, rule("c", "notify", {"set_tweak": "sound", "value": "content"}, pattern="x"))
    assert _sound(ruleset) == "content"
    ruleset["override"].insert(1, rule("o", "notify", {"set_tweak": "sound", "value": "override"}, conditions=[]))
    assert _sound(ruleset) == "override"
    ruleset["override"][0]["enabled"] = True  # the master rule
    assert compile_ruleset(ruleset).outcome(subject(content=text("x")), ME) is None


def _sound(ruleset: dict[str, list[Any]]) -> Any:
    outcome = compile_ruleset(ruleset).outcome(subject(content=text("x")), ME)
    assert outcome is not None
    return outcome.tweaks["sound"]


def test_actions_of_the_past_say_nothing() -> None:
    assert not outcome_of(["dont_notify"]).notify
    assert not outcome_of(["coalesce"]).notify
    assert outcome_of(["notify", {"set_tweak": "highlight"}]).highlight
    assert not outcome_of(["notify", {"set_tweak": "highlight", "value": False}]).highlight


def test_event_types_of_strangers_do_not_fill_the_memory() -> None:
    rules = compile_ruleset(defaults.template())
    for number in range(1000):
        rules.outcome(subject(f"org.example.{number}"), ME)
    assert len(rules._by_type) <= 256


def test_a_plain_message_takes_less_than_ten_microseconds_per_reader() -> None:
    rules, message = default_rules(), subject(content=text("Der Befund von Zimmer 12 liegt vor."))
    readers = [Reader(f"@nurse{number}:test.example", f"Nurse {number}") for number in range(50)]
    best = float("inf")
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(10):
            for reader in readers:
                rules.outcome(message, reader)
        best = min(best, (time.perf_counter() - began) / 500)
    print(f"one evaluation: {best * 1e6:.2f} microseconds")
    assert best < 10e-6

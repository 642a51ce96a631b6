"""Changing push rules: places, defaults, refusals, and what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.matrix.errors import BadJson, InvalidParam, MatrixError, MissingParam, NotFound
from appliance.push import editing
from appliance.push.defaults import MASTER, Ruleset, default_ruleset, personal, template
from appliance.push.editing import Wish

ANNA = "@anna:test.example"


def wish(name: str, before: str | None = None, after: str | None = None, **body: Any) -> Wish:
    return Wish(name, {"actions": ["notify"], **body}, before, after)


def ids(ruleset: Ruleset, kind: str = "override") -> list[str]:
    names = [rule["rule_id"] for rule in ruleset[kind]]
    return [name for name in names if not name.startswith(".") or name == MASTER]


def test_a_new_rule_stands_above_the_others_of_its_kind_but_below_the_master() -> None:
    ruleset = template()
    for name in "abc":
        editing.put(ruleset, "override", wish(name))
    assert ids(ruleset) == [".m.rule.master", "c", "b", "a"]
    editing.put(ruleset, "override", wish("d", before="b"))
    editing.put(ruleset, "override", wish("e", after="b"))
    assert ids(ruleset) == [".m.rule.master", "c", "d", "b", "e", "a"]
    editing.put(ruleset, "override", wish("f", before="a", after="c"))
    assert ids(ruleset) == [".m.rule.master", "c", "d", "b", "e", "f", "a"]


def test_a_rule_that_exists_is_replaced_where_it_stands_or_moved() -> None:
    ruleset = template()
    for name in "abc":
        editing.put(ruleset, "override", wish(name))
    editing.find(ruleset, "override", "b")["enabled"] = False
    editing.put(ruleset, "override", wish("b", actions=[]))
    assert ids(ruleset)[1:] == ["c", "b", "a"]
    changed = editing.find(ruleset, "override", "b")
    assert (changed["actions"], changed["enabled"]) == ([], False)
    editing.put(ruleset, "override", wish("c", after="a"))
    assert ids(ruleset)[1:] == ["b", "a", "c"]
    editing.put(ruleset, "override", wish("c", before="b"))
    assert ids(ruleset)[1:] == ["c", "b", "a"]


def test_a_rule_has_no_place_beside_unknown_or_default_rules() -> None:
    ruleset = template()
    for anchor in ("nobody", ".m.rule.master", ".m.rule.call"):
        with pytest.raises(MatrixError) as refused:
            editing.put(ruleset, "underride", wish("x", before=anchor))
        assert (refused.value.status, refused.value.errcode) == (400, "M_UNKNOWN")
    assert ruleset == template()


def test_default_rules_stay_but_can_be_changed() -> None:
    ruleset = template()
    with pytest.raises(NotFound):
        editing.delete(ruleset, "underride", ".m.rule.message")
    with pytest.raises(InvalidParam):
        editing.put(ruleset, "underride", wish(".m.rule.message"))
    with pytest.raises(NotFound):
        editing.find(ruleset, "override", ".m.rule.message")
    editing.find(ruleset, "underride", ".m.rule.message")["enabled"] = False
    editing.find(ruleset, "underride", ".m.rule.call")["actions"] = []
    kept = editing.load(editing.dump(personal(ruleset, ANNA)))
    assert editing.find(kept, "underride", ".m.rule.message")["enabled"] is False
    assert editing.find(kept, "underride", ".m.rule.call")["actions"] == []


def test_what_is_kept_comes_back_with_the_conditions_of_this_release() -> None:
    ruleset = template()
    editing.put(ruleset, "content", wish("tea", pattern="t?a"))
    editing.put(ruleset, "room", wish("!r:test.example"))
    stored = editing.dump(personal(ruleset, ANNA)).replace(b'"m.notice"', b'"m.older"')
    loaded = editing.load(stored)
    assert personal(loaded, ANNA) == {**default_ruleset(ANNA), "content": [
        {"rule_id": "tea", "default": False, "enabled": True, "actions": ["notify"], "pattern": "t?a"},
        *default_ruleset(ANNA)["content"]], "room": loaded["room"]}
    assert editing.load(b"{}") == template()
    assert editing.load(b'{"global": {"override": 7, "room": [1, {}]}}') == template()


@pytest.mark.parametrize(("kind", "body", "error"), [
    ("override", {}, MissingParam), ("override", {"actions": "notify"}, BadJson),
    ("override", {"actions": ["shout"]}, InvalidParam),
    ("override", {"actions": [{}]}, MissingParam), ("override", {"actions": [7]}, InvalidParam),
    ("override", {"actions": [], "conditions": {}}, BadJson), ("override", {"actions": [], "conditions": [7]}, BadJson),
    ("override", {"actions": [], "conditions": [{}]}, MissingParam),
    ("override", {"actions": [], "conditions": [{"kind": "event_match"}]}, InvalidParam),
    ("override", {"actions": [], "conditions": [{"kind": "room_member_count", "is": "x"}]}, InvalidParam),
    ("override", {"actions": [], "conditions": [{"kind": "x", "value": 1.5}]}, BadJson),
    ("override", {"actions": [], "conditions": [{"kind": "x"}] * 33}, InvalidParam),
    ("content", {"actions": []}, MissingParam), ("content", {"actions": [], "pattern": 7}, BadJson),
    ("content", {"actions": [], "pattern": "x" * 2000}, InvalidParam), ("nonsense", {"actions": []}, InvalidParam),
])
def test_malformed_rules_are_refused(kind: str, body: Any, error: type[MatrixError]) -> None:
    ruleset = template()
    with pytest.raises(error):
        editing.put(ruleset, kind, Wish("x", body))
    assert ruleset == template()


@pytest.mark.parametrize("rule_id", ["", ".mine", "a/b", "a\\b", "x" * 256])
def test_malformed_ids_are_refused(rule_id: str) -> None:
    with pytest.raises(InvalidParam):
        editing.put(template(), "override", wish(rule_id))


def test_historical_actions_are_dropped_and_unknown_conditions_kept() -> None:
    ruleset = template()
    editing.put(ruleset, "override", wish("x", actions=["dont_notify", "coalesce"], conditions=[{"kind": "org.new"}]))
    found = editing.find(ruleset, "override", "x")
    assert (found["actions"], found["conditions"]) == ([], [{"kind": "org.new"}])


def test_rules_are_bounded() -> None:
    ruleset = template()
    with pytest.raises(InvalidParam):
        for number in range(1001):
            editing.put(ruleset, "room", wish(f"!{number}:test.example"))

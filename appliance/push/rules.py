"""A ruleset compiled once, evaluated often: which rule an event meets first, and what it says to do.

Rules that ask for an event type are sorted out once per type, and what is the same for all readers of an event is
evaluated once per event; for a plain message two or three questions about the reader remain.

Source: client-server API, "Push rules".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from appliance.push import defaults, globs
from appliance.push.conditions import Condition, Reader, Subject, compile_condition, is_personal, without_mentions
from appliance.push.defaults import KINDS, LEGACY, Rule, Ruleset

TYPES = 256
"""Event types whose rules are kept sorted out; types are strangers' words and must not fill the memory."""


class Outcome(msgspec.Struct, frozen=True):
    """What the first matching rule says: its actions, and read from them whether to notify and to highlight."""

    actions: tuple[Any, ...]
    notify: bool
    highlight: bool
    tweaks: Mapping[str, Any]


class _Compiled(msgspec.Struct, frozen=True):
    types: tuple[globs.Matcher, ...]
    general: tuple[Condition, ...]
    personal: tuple[Condition, ...]
    outcome: Outcome


_Narrowed = tuple[tuple[tuple[Condition, ...], Outcome], ...]
_NOBODY = Reader("@:")


class Rules:
    """A compiled ruleset. It may be shared between threads and readers."""

    __slots__ = ("_by_type", "_rules")

    def __init__(self, rules: Sequence[_Compiled]) -> None:
        self._rules = tuple(rules)
        self._by_type: dict[str, tuple[_Compiled, ...]] = {}

    def outcome(self, subject: Subject, reader: Reader) -> Outcome | None:
        """Return what the first matching rule says; None if none matches or it says not to notify."""
        rules: _Narrowed | None = subject.narrowed.get(self)
        if rules is None:
            rules = subject.narrowed[self] = self._narrow(subject)
        for conditions, outcome in rules:
            for condition in conditions:
                if not condition(subject, reader):
                    break
            else:
                return outcome if outcome.notify else None
        return None

    def _narrow(self, subject: Subject) -> _Narrowed:
        """Evaluate once what is the same for all readers of an event; what is left asks about the reader."""
        kind, left = subject.event.type, []
        rules = self._by_type.get(kind)
        for rule in self._sort_out(kind) if rules is None else rules:
            if all(condition(subject, _NOBODY) for condition in rule.general):
                left.append((rule.personal, rule.outcome))
                if not rule.personal:
                    break  # it matches for everybody: nothing below is ever reached
        return tuple(left)

    def _sort_out(self, kind: str) -> tuple[_Compiled, ...]:
        if len(self._by_type) >= TYPES:
            self._by_type.clear()
        lowered, left = kind.lower(), []
        for rule in self._rules:
            if all(matches(lowered) for matches in rule.types):
                left.append(rule)
                if not rule.general and not rule.personal:
                    break  # it always matches: nothing below is ever reached
        # Rules at the end that only say "nothing" say what the end of the list says anyway.
        while left and not left[-1].outcome.notify:
            left.pop()
        rules = self._by_type[kind] = tuple(left)
        return rules


def outcome_of(actions: Sequence[Any]) -> Outcome:
    """Read a rule's actions; unknown and historical ones (`dont_notify`, `coalesce`) say nothing."""
    tweaks: dict[str, Any] = {}
    for action in actions:
        if isinstance(action, dict) and isinstance(action.get("set_tweak"), str):
            name = action["set_tweak"]
            tweaks[name] = action.get("value", True if name == "highlight" else None)
    return Outcome(tuple(actions), "notify" in actions, tweaks.get("highlight") is True, tweaks)


def compile_ruleset(ruleset: Ruleset) -> Rules:
    """Compile a ruleset (with or without placeholders) into functions."""
    compiled = []
    for kind in KINDS:
        for rule in ruleset.get(kind, ()):
            if rule.get("enabled") is True:
                done = _compile_rule(kind, rule)
                if done is not None:
                    compiled.append(done)
    return Rules(compiled)


def _compile_rule(kind: str, rule: Rule) -> _Compiled | None:
    types: list[globs.Matcher] = []
    general: list[Condition] = []
    personal: list[Condition] = []
    for condition in _conditions_of(kind, rule):
        if condition.get("kind") == "event_match" and condition.get("key") == "type":
            pattern = condition.get("pattern")
            if not isinstance(pattern, str):
                return None
            types.append(globs.whole(pattern))
            continue
        compiled = compile_condition(condition)
        if compiled is None:
            return None
        (personal if is_personal(condition) else general).append(compiled)
    if rule.get("default") is True and rule["rule_id"] in LEGACY:
        general.append(without_mentions)
    return _Compiled(tuple(types), tuple(general), tuple(personal), outcome_of(rule.get("actions", ())))


def _conditions_of(kind: str, rule: Rule) -> Sequence[Mapping[str, Any]]:
    if kind == "content":
        return ({"kind": "event_match", "key": "content.body", "pattern": rule.get("pattern")},)
    if kind == "room":
        return ({"kind": "event_property_is", "key": "room_id", "value": rule["rule_id"]},)
    if kind == "sender":
        return ({"kind": "event_property_is", "key": "sender", "value": rule["rule_id"]},)
    return tuple(rule.get("conditions", ()))


@lru_cache(maxsize=1)
def default_rules() -> Rules:
    """Return the compiled default ruleset, shared by everybody who has changed nothing."""
    return compile_ruleset(defaults.template())



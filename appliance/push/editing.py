"""Changing a ruleset: pure functions on the value that lies in account data under `m.push_rules`.

What is stored is the whole effective ruleset, because clients read it from sync. Of the default rules only `enabled`
and `actions` are taken from there; their conditions always come from this release.

Source: client-server API, "Push rules: API".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from appliance.matrix import canonical
from appliance.matrix.errors import BadJson, InvalidParam, MatrixError, MissingParam, NotFound, Unknown
from appliance.push.conditions import KNOWN, compile_condition
from appliance.push.defaults import KINDS, MASTER, Rule, Ruleset, template

TYPE: Final = "m.push_rules"
MAX_RULES: Final = 1000
MAX_CONDITIONS: Final = 32
MAX_ACTIONS: Final = 32
MAX_TEXT: Final = 1024
MAX_BYTES: Final = 128 * 1024
_HISTORICAL: Final = ("dont_notify", "coalesce")


class Wish(msgspec.Struct, frozen=True):
    """A user's rule as the client sends it; at most one of `before` and `after` counts (`before` wins)."""

    rule_id: str
    body: Mapping[str, Any]
    before: str | None = None
    after: str | None = None


def load(stored: bytes | None) -> Ruleset:
    """Return the ruleset (with placeholders in default rules) from its account data, the default one for None."""
    ruleset = template()
    if stored is None:
        return ruleset
    kept = canonical.decode_object(stored).get("global")
    if not isinstance(kept, dict):
        return ruleset
    for kind in KINDS:
        given = kept.get(kind)
        rules = [rule for rule in given if isinstance(rule, dict)] if isinstance(given, list) else []
        mine = [dict(rule) for rule in rules if not _is_default(rule) and isinstance(rule.get("rule_id"), str)]
        changed = {rule.get("rule_id"): rule for rule in rules if _is_default(rule)}
        for rule in ruleset[kind]:
            own = changed.get(rule["rule_id"], {})
            if isinstance(own.get("enabled"), bool):
                rule["enabled"] = own["enabled"]
            if isinstance(own.get("actions"), list):
                rule["actions"] = own["actions"]
        above = [rule for rule in ruleset[kind] if rule["rule_id"] == MASTER]
        ruleset[kind] = [*above, *mine, *(rule for rule in ruleset[kind] if rule["rule_id"] != MASTER)]
    return ruleset


def dump(ruleset: Ruleset) -> bytes:
    """Return the account data of a ruleset whose placeholders are filled; `InvalidParam` when it became too large."""
    raw = canonical.dumps({"global": ruleset})
    if len(raw) > MAX_BYTES:
        raise InvalidParam("There are too many push rules")
    return raw


def _is_default(rule: Mapping[str, Any]) -> bool:
    return str(rule.get("rule_id", "")).startswith(".")


def _rules(ruleset: Ruleset, kind: str) -> list[Rule]:
    if kind not in KINDS:
        raise InvalidParam(f"The kind of a push rule must be one of: {', '.join(KINDS)}")
    return ruleset[kind]


def find(ruleset: Ruleset, kind: str, rule_id: str) -> Rule:
    """Return one rule; `NotFound`."""
    for rule in _rules(ruleset, kind):
        if rule["rule_id"] == rule_id:
            return rule
    raise NotFound("The push rule was not found")


def put(ruleset: Ruleset, kind: str, wish: Wish) -> None:
    """Add or replace a user's rule at the place asked for."""
    rules = _rules(ruleset, kind)
    _check_id(wish.rule_id)
    rule: Rule = {"rule_id": wish.rule_id, "default": False, "enabled": True,
                  "actions": actions_of(wish.body.get("actions"))}
    if kind == "content":
        rule["pattern"] = _text(wish.body, "pattern")
    elif kind in ("override", "underride"):
        rule["conditions"] = _conditions(wish.body.get("conditions", []))
    at = next((index for index, old in enumerate(rules) if old["rule_id"] == wish.rule_id), None)
    if at is not None:
        rule["enabled"] = rules[at]["enabled"]
    elif sum(len(other) for other in ruleset.values()) >= MAX_RULES:
        raise InvalidParam("There are too many push rules")
    if at is not None and wish.before is None and wish.after is None:
        rules[at] = rule
        return
    place = _place(rules, wish)  # before anything is taken out, so that a refusal changes nothing
    rules.insert(place, rule)
    if at is not None:
        del rules[at if at < place else at + 1]


def _place(rules: Sequence[Rule], wish: Wish) -> int:
    anchor = wish.before if wish.before is not None else wish.after
    if anchor is None:
        return next((index for index, rule in enumerate(rules) if rule["rule_id"] != MASTER), len(rules))
    for index, rule in enumerate(rules):
        if rule["rule_id"] == anchor and not _is_default(rule):
            return index if wish.before is not None else index + 1
    raise Unknown(f"before/after rule not found: {anchor}")


def delete(ruleset: Ruleset, kind: str, rule_id: str) -> None:
    """Remove a user's rule; `NotFound`, also for a default rule, which nobody can remove."""
    rules = _rules(ruleset, kind)
    for index, rule in enumerate(rules):
        if rule["rule_id"] == rule_id and not _is_default(rule):
            del rules[index]
            return
    raise NotFound("There is no such push rule of yours")


def actions_of(value: Any) -> list[Any]:
    """Return checked actions; historical ones are dropped."""
    if value is None:
        raise MissingParam("Missing field actions")
    if not isinstance(value, list):
        raise BadJson("actions must be an array")
    if len(value) > MAX_ACTIONS:
        raise InvalidParam(f"There must not be more than {MAX_ACTIONS} actions")
    kept = []
    for action in value:
        if isinstance(action, dict):
            _text(action, "set_tweak")
            canonical.check_canonical(action)
            kept.append(action)
        elif action == "notify":
            kept.append(action)
        elif action not in _HISTORICAL:
            raise InvalidParam("An action must be notify or an object with set_tweak")
    return kept


def _conditions(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise BadJson("conditions must be an array")
    if len(value) > MAX_CONDITIONS:
        raise InvalidParam(f"There must not be more than {MAX_CONDITIONS} conditions")
    for condition in value:
        if not isinstance(condition, dict):
            raise BadJson("A condition must be an object")
        kind = _text(condition, "kind")
        canonical.check_canonical(condition)
        for name in ("key", "pattern", "is"):
            if name in condition:
                _text(condition, name)
        if kind in KNOWN and compile_condition(condition) is None:
            raise InvalidParam(f"A condition {kind} with these parameters can never match")
    return list(value)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if value is None:
        raise MissingParam(f"Missing field {name}")
    if not isinstance(value, str):
        raise BadJson(f"{name} must be a string")
    if len(value) > MAX_TEXT:
        raise InvalidParam(f"{name} must not be longer than {MAX_TEXT} characters")
    return value


def _check_id(rule_id: str) -> None:
    error: MatrixError | None = None
    if rule_id.startswith("."):
        error = InvalidParam("Ids that begin with a dot belong to the server's default rules")
    elif "/" in rule_id or "\\" in rule_id:
        error = InvalidParam("The id of a push rule must not contain slashes")
    elif not 0 < len(rule_id) <= 255:
        error = InvalidParam("The id of a push rule must have 1 to 255 characters")
    if error is not None:
        raise error

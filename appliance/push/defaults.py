"""The rules every person has without asking: the server-default ruleset of Matrix 1.11.

`contains_display_name`, `roomnotif` and `contains_user_name` look for names in the text; they are kept for clients that
do not declare whom they mention, and never match an event that has `m.mentions` (`LEGACY`).

Source: client-server API 1.11, "Predefined rules".
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from appliance.push.conditions import ME, MY_LOCALPART

Rule = dict[str, Any]
Ruleset = dict[str, list[Rule]]

KINDS: Final = ("override", "content", "room", "sender", "underride")
"""The kinds in the order in which they are checked."""

MASTER: Final = ".m.rule.master"
LEGACY: Final = frozenset({".m.rule.contains_display_name", ".m.rule.roomnotif", ".m.rule.contains_user_name"})

_DEFAULT_SOUND: Final = {"set_tweak": "sound", "value": "default"}
_HIGHLIGHT: Final = {"set_tweak": "highlight"}


def _match(key: str, pattern: str) -> Rule:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _rule(name: str, conditions: list[Rule], *actions: Any, enabled: bool = True) -> Rule:
    return {"rule_id": name, "default": True, "enabled": enabled, "conditions": conditions, "actions": list(actions)}


_TWO: Final = {"kind": "room_member_count", "is": "2"}
_MAY_NOTIFY: Final = {"kind": "sender_notification_permission", "key": "room"}

DEFAULTS: Final[Mapping[str, list[Rule]]] = {
    "override": [
        _rule(MASTER, [], enabled=False),
        _rule(".m.rule.suppress_notices", [_match("content.msgtype", "m.notice")]),
        _rule(".m.rule.invite_for_me", [
            _match("type", "m.room.member"), _match("content.membership", "invite"), _match("state_key", ME),
        ], "notify", _DEFAULT_SOUND),
        _rule(".m.rule.member_event", [_match("type", "m.room.member")]),
        _rule(".m.rule.is_user_mention", [
            {"kind": "event_property_contains", "key": "content.m\\.mentions.user_ids", "value": ME},
        ], "notify", _DEFAULT_SOUND, _HIGHLIGHT),
        _rule(".m.rule.contains_display_name", [{"kind": "contains_display_name"}],
              "notify", _DEFAULT_SOUND, _HIGHLIGHT),
        _rule(".m.rule.is_room_mention", [
            {"kind": "event_property_is", "key": "content.m\\.mentions.room", "value": True}, _MAY_NOTIFY,
        ], "notify", _HIGHLIGHT),
        _rule(".m.rule.roomnotif", [_match("content.body", "@room"), _MAY_NOTIFY], "notify", _HIGHLIGHT),
        _rule(".m.rule.tombstone", [_match("type", "m.room.tombstone"), _match("state_key", "")],
              "notify", _HIGHLIGHT),
        _rule(".m.rule.reaction", [_match("type", "m.reaction")]),
        _rule(".m.rule.room.server_acl", [_match("type", "m.room.server_acl"), _match("state_key", "")]),
        _rule(".m.rule.suppress_edits", [
            {"kind": "event_property_is", "key": "content.m\\.relates_to.rel_type", "value": "m.replace"},
        ]),
    ],
    "content": [
        {"rule_id": ".m.rule.contains_user_name", "default": True, "enabled": True, "pattern": MY_LOCALPART,
         "actions": ["notify", _DEFAULT_SOUND, _HIGHLIGHT]},
    ],
    "room": [],
    "sender": [],
    "underride": [
        _rule(".m.rule.call", [_match("type", "m.call.invite")], "notify", {"set_tweak": "sound", "value": "ring"}),
        _rule(".m.rule.encrypted_room_one_to_one", [_TWO, _match("type", "m.room.encrypted")],
              "notify", _DEFAULT_SOUND),
        _rule(".m.rule.room_one_to_one", [_TWO, _match("type", "m.room.message")], "notify", _DEFAULT_SOUND),
        _rule(".m.rule.message", [_match("type", "m.room.message")], "notify"),
        _rule(".m.rule.encrypted", [_match("type", "m.room.encrypted")], "notify"),
    ],
}


def template() -> Ruleset:
    """Return a copy of the default ruleset with its placeholders, to be changed freely."""
    return {kind: copy.deepcopy(DEFAULTS[kind]) for kind in KINDS}


def default_ruleset(user_id: str) -> Ruleset:
    """Return the default ruleset as this person's clients see it."""
    return personal(template(), user_id)


def personal(ruleset: Ruleset, user_id: str) -> Ruleset:
    """Put a person's id and name where the placeholders stand; changes and returns `ruleset`."""
    names = {ME: user_id, MY_LOCALPART: user_id[1:].partition(":")[0]}
    for rules in ruleset.values():
        for rule in rules:
            for part in (rule, *rule.get("conditions", ())):
                for name in ("pattern", "value"):
                    value = part.get(name)
                    if isinstance(value, str) and value in names:
                        part[name] = names[value]
    return ruleset

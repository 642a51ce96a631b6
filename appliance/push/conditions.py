"""Conditions of push rules, compiled to functions.

A condition sees the event with what is known of its room (`Subject`) and the person it is evaluated for (`Reader`). A
condition that this house does not know, or that is malformed, compiles to None: its rule never matches.

Source: client-server API, "Push rules: Conditions".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import msgspec

from appliance.matrix.event import Event
from appliance.matrix.property_path import Path, path_of
from appliance.push import globs

ME: Final = "\x00user id"
MY_LOCALPART: Final = "\x00localpart"
"""Stand in the default rules where the reader's own id or name belongs, so that all readers share one compiled set."""


class Levels(Protocol):
    """The part of a room's power levels that push rules ask for."""

    def of(self, user: str) -> int:
        """Return the power of a user."""

    def notification(self, name: str) -> int:
        """Return the power needed to trigger the notification `name`."""


class RoomFacts(msgspec.Struct, frozen=True):
    """What conditions ask about a room: how many are joined, and who may notify everybody."""

    joined: int
    levels: Levels


class Reader(msgspec.Struct, frozen=True):
    """The person for whom an event is evaluated; `name` is the display name in that room."""

    user_id: str
    name: str | None = None

    @property
    def localpart(self) -> str:
        """The user name without sigil and domain."""
        return self.user_id[1:].partition(":")[0]


@dataclass(slots=True)
class Subject:
    """An event with its room, shared by all readers; texts are lowered once."""

    event: Event
    room: RoomFacts
    _lowered: dict[Path, str | None] = field(default_factory=dict)
    narrowed: dict[object, Any] = field(default_factory=dict)
    """By ruleset: the rules that are left for this event once everything but the reader is known (see rules.py)."""

    def lowered(self, path: Path) -> str | None:
        """Return the text at a path in lower case, None if there is no text."""
        try:
            return self._lowered[path]
        except KeyError:
            value = look_up(self.event, path)
            text = self._lowered[path] = value.lower() if type(value) is str else None
            return text


Condition = Callable[[Subject, Reader], bool]
ABSENT: Final = object()
BODY: Final[Path] = ("content", "body")
_FIELDS: Final = frozenset({"type", "sender", "room_id", "event_id", "state_key", "origin_server_ts", "redacts"})
_COUNT: Final = re.compile(r"(==|<=|>=|<|>|)([0-9]{1,15})", re.ASCII)
_COMPARE: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "": lambda count, bound: count == bound,
    "==": lambda count, bound: count == bound,
    "<": lambda count, bound: count < bound,
    ">": lambda count, bound: count > bound,
    "<=": lambda count, bound: count <= bound,
    ">=": lambda count, bound: count >= bound,
}


def look_up(event: Event, path: Path) -> object:
    """Return the value at a path of the event as clients see it, `ABSENT` if there is none."""
    head = path[0]
    if head != "content":
        value = getattr(event, head) if head in _FIELDS and len(path) == 1 else None
        return ABSENT if value is None else value
    here: object = event.content
    for name in path[1:]:
        if not isinstance(here, dict):
            return ABSENT
        here = here.get(name, ABSENT)
    return here


def is_personal(condition: Mapping[str, Any]) -> bool:
    """Tell whether a condition asks about the reader; all others hold for everybody or for nobody."""
    match condition.get("kind"):
        case "contains_display_name":
            return True
        case "event_match":
            return condition.get("pattern") in (ME, MY_LOCALPART)
        case "event_property_contains":
            return bool(condition.get("value") == ME)
    return False


def compile_condition(condition: Mapping[str, Any]) -> Condition | None:
    """Return the function of one condition, None if it can never match."""
    kind = condition.get("kind")
    compiler = _COMPILERS.get(kind) if isinstance(kind, str) else None
    return compiler(condition) if compiler is not None else None


def _event_match(condition: Mapping[str, Any]) -> Condition | None:
    key, pattern = condition.get("key"), condition.get("pattern")
    if not isinstance(key, str) or not isinstance(pattern, str):
        return None
    path = path_of(key)
    if pattern == ME:
        return lambda subject, reader: subject.lowered(path) == reader.user_id.lower()
    if pattern == MY_LOCALPART:
        return lambda subject, reader: _has_words(subject.lowered(path), reader.localpart)
    matches = globs.words(pattern) if path == BODY else globs.whole(pattern)

    def check(subject: Subject, reader: Reader) -> bool:
        text = subject.lowered(path)
        return text is not None and matches(text)

    return check


def _has_words(text: str | None, literal: str) -> bool:
    # Nearly always the name is not in the text at all, and that is cheap to see.
    return text is not None and literal != "" and literal.lower() in text and globs.words(literal, literal=True)(text)


def _simple(value: object) -> bool:
    return value is None or type(value) in (str, int, bool)


def _property_is(condition: Mapping[str, Any]) -> Condition | None:
    key, wanted = condition.get("key"), condition.get("value", ABSENT)
    if not isinstance(key, str) or not _simple(wanted):
        return None
    path, kind = path_of(key), type(wanted)

    def check(subject: Subject, reader: Reader) -> bool:
        value = look_up(subject.event, path)
        return type(value) is kind and value == wanted

    return check


def _property_contains(condition: Mapping[str, Any]) -> Condition | None:
    key, wanted = condition.get("key"), condition.get("value", ABSENT)
    if not isinstance(key, str) or not _simple(wanted):
        return None
    path, kind = path_of(key), type(wanted)
    mine = wanted == ME

    def check(subject: Subject, reader: Reader) -> bool:
        values = look_up(subject.event, path)
        if not isinstance(values, list):
            return False
        if mine:
            return reader.user_id in values
        return any(type(value) is kind and value == wanted for value in values)

    return check


def _member_count(condition: Mapping[str, Any]) -> Condition | None:
    text = condition.get("is")
    match = _COUNT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    compare, bound = _COMPARE[match[1]], int(match[2])
    return lambda subject, reader: compare(subject.room.joined, bound)


def _sender_permission(condition: Mapping[str, Any]) -> Condition | None:
    key = condition.get("key")
    if not isinstance(key, str):
        return None

    def check(subject: Subject, reader: Reader) -> bool:
        levels = subject.room.levels
        return levels.of(subject.event.sender) >= levels.notification(key)

    return check


def _display_name(condition: Mapping[str, Any]) -> Condition:
    return lambda subject, reader: reader.name is not None and _has_words(subject.lowered(BODY), reader.name)


def without_mentions(subject: Subject, reader: Reader) -> bool:
    """Tell whether the event says nothing about whom it mentions, so that old rules may look for names in its text."""
    return "m.mentions" not in subject.event.content


_COMPILERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Condition | None]]] = {
    "event_match": _event_match,
    "event_property_is": _property_is,
    "event_property_contains": _property_contains,
    "room_member_count": _member_count,
    "sender_notification_permission": _sender_permission,
    "contains_display_name": _display_name,
}
KNOWN: Final[Sequence[str]] = tuple(_COMPILERS)

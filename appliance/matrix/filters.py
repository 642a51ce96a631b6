"""Filters: which events a client wants to see, as a value that answers yes or no.

`EventFilter` is one block of a filter (`EventFilter`, `RoomEventFilter`, `StateFilter` of the specification have the same shape; fields a
block does not use stay at their defaults). A filter that was never given allows everything and costs nothing: compare with
`EVERYTHING` or look at `trivial`.

Source: client-server API, "Filtering".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from appliance.matrix.errors import BadJson, InvalidParam

MAX_ENTRIES: Final = 1000
"""Longest list inside a filter."""
MAX_TEXT: Final = 255

_NONE: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True, slots=True)
class Patterns:
    """A set of event types, some with `*` as a wildcard."""

    exact: frozenset[str]
    wild: re.Pattern[str] | None

    def match(self, text: str) -> bool:
        """Tell whether the text is one of them."""
        return text in self.exact or (self.wild is not None and self.wild.fullmatch(text) is not None)


@lru_cache(maxsize=256)
def _patterns(texts: tuple[str, ...]) -> Patterns:
    wild = [".*".join(re.escape(part) for part in text.split("*")) for text in texts if "*" in text]
    return Patterns(
        frozenset(text for text in texts if "*" not in text), re.compile("|".join(wild), re.DOTALL) if wild else None
    )


@dataclass(frozen=True, slots=True)
class EventFilter:
    """One block of a filter. None means that nothing is said; an empty list allows nothing."""

    limit: int | None = None
    types: Patterns | None = None
    not_types: Patterns | None = None
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = _NONE
    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = _NONE
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False
    trivial: bool = field(init=False, default=False)
    """Whether every event passes in every room."""

    def __post_init__(self) -> None:
        nothing = self.types is None and self.not_types is None and self.senders is None and self.contains_url is None
        object.__setattr__(
            self, "trivial", nothing and not self.not_senders and self.rooms is None and not self.not_rooms
        )

    def room(self, room_id: str) -> bool:
        """Tell whether the block applies to a room at all."""
        return (self.rooms is None or room_id in self.rooms) and room_id not in self.not_rooms

    def type(self, kind: str) -> bool:
        """Tell whether events of this type pass."""
        if self.types is not None and not self.types.match(kind):
            return False
        return self.not_types is None or not self.not_types.match(kind)

    def sender(self, user_id: str) -> bool:
        """Tell whether events of this sender pass."""
        return (self.senders is None or user_id in self.senders) and user_id not in self.not_senders

    def event(self, kind: str, sender: str, content: Mapping[str, Any]) -> bool:
        """Tell whether an event passes (its room is asked about separately: `room`)."""
        if self.contains_url is not None and isinstance(content.get("url"), str) != self.contains_url:
            return False
        return self.type(kind) and self.sender(sender)


EVERYTHING: Final = EventFilter()


def _strings(body: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadJson(f"{name} must be an array of strings")
    if len(value) > MAX_ENTRIES or any(len(item) > MAX_TEXT for item in value):
        raise InvalidParam(f"{name} is too long")
    return tuple(value)


def _set(body: Mapping[str, Any], name: str) -> frozenset[str] | None:
    found = _strings(body, name)
    return None if found is None else frozenset(found)


def _types(body: Mapping[str, Any], name: str) -> Patterns | None:
    found = _strings(body, name)
    return None if found is None else _patterns(found)


def boolean(body: Mapping[str, Any], name: str) -> bool | None:
    """Return an optional boolean of a filter; raises `BadJson`."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadJson(f"{name} must be a boolean")
    return value


def _limit(body: Mapping[str, Any]) -> int | None:
    value = body.get("limit")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadJson("limit must be an integer")
    if value < 0:
        raise InvalidParam("limit must not be negative")
    return value


def event_filter(body: object) -> EventFilter:
    """Read one block of a filter; raises `BadJson` or `InvalidParam`. Unknown fields are ignored."""
    if body is None:
        return EVERYTHING
    if not isinstance(body, dict):
        raise BadJson("A filter must be an object")
    if not body:
        return EVERYTHING
    return EventFilter(
        limit=_limit(body),
        types=_types(body, "types"),
        not_types=_types(body, "not_types"),
        senders=_set(body, "senders"),
        not_senders=_set(body, "not_senders") or _NONE,
        rooms=_set(body, "rooms"),
        not_rooms=_set(body, "not_rooms") or _NONE,
        contains_url=boolean(body, "contains_url"),
        lazy_load_members=bool(boolean(body, "lazy_load_members")),
        include_redundant_members=bool(boolean(body, "include_redundant_members")),
        unread_thread_notifications=bool(boolean(body, "unread_thread_notifications")),
    )

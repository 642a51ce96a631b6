"""Which events of a room a client wants: `RoomEventFilter`.

Source: client-server API, "Filtering", definitions `EventFilter` and `RoomEventFilter`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from appliance.matrix import canonical
from appliance.matrix.errors import BadJson, InvalidParam, NotJson
from appliance.matrix.event import Event

MAX_ITEMS: Final = 1_000
MAX_TEXT: Final = 255


class RoomEventFilter(msgspec.Struct, frozen=True):
    """A parsed filter. None for a list means that it does not restrict; `limit` None leaves the endpoint's default."""

    limit: int | None = None
    types: tuple[str, ...] | None = None
    not_types: tuple[str, ...] = ()
    senders: frozenset[str] | None = None
    not_senders: frozenset[str] = frozenset()
    rooms: frozenset[str] | None = None
    not_rooms: frozenset[str] = frozenset()
    contains_url: bool | None = None
    lazy_load_members: bool = False
    include_redundant_members: bool = False
    unread_thread_notifications: bool = False

    @property
    def passes_all(self) -> bool:
        """Whether no event of a room is filtered out."""
        return (
            self.types is None
            and not self.not_types
            and self.senders is None
            and not self.not_senders
            and self.contains_url is None
        )

    def wants_room(self, room_id: str) -> bool:
        """Tell whether events of the room are wanted at all."""
        return room_id not in self.not_rooms and (self.rooms is None or room_id in self.rooms)

    def wants_kind(self, type: str, sender: str | None = None) -> bool:
        """Tell whether something of this type, from this sender if it has one, passes."""
        if sender is not None and not self._wants_sender(sender):
            return False
        if self.not_types and _any(self.not_types, type):
            return False
        return self.types is None or _any(self.types, type)

    def _wants_sender(self, sender: str) -> bool:
        return sender not in self.not_senders and (self.senders is None or sender in self.senders)

    def wants(self, event: Event) -> bool:
        """Tell whether the event passes."""
        if self.contains_url is not None and isinstance(event.content.get("url"), str) != self.contains_url:
            return False
        return self.wants_kind(event.type, event.sender)


EVERYTHING: Final = RoomEventFilter()


def _any(patterns: Sequence[str], type: str) -> bool:
    return any(pattern == type or ("*" in pattern and _pattern(pattern).fullmatch(type)) for pattern in patterns)


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    """Compile a type with `*` wildcards so that matching is linear: a middle part once found is not looked for again.
    """
    first, *middle, last = (re.escape(part) for part in re.split(r"\*+", text))
    return re.compile(first + "".join(f"(?>.*?{part})" for part in middle) + ".*" + last, re.DOTALL)


def parse_text(text: str | None) -> RoomEventFilter:
    """Read the `filter` query parameter (JSON text); raises `InvalidParam`."""
    if text is None or not text:
        return EVERYTHING
    try:
        return parse(canonical.decode_object(text.encode()))
    except (NotJson, BadJson, UnicodeEncodeError) as error:
        raise InvalidParam("filter is not a JSON object") from error


def parse(value: Mapping[str, Any]) -> RoomEventFilter:
    """Read a filter object; raises `InvalidParam` for fields of the wrong form. Unknown fields are ignored."""
    if not value:
        return EVERYTHING
    senders, rooms = _strings(value, "senders"), _strings(value, "rooms")
    return RoomEventFilter(
        limit=_limit(value.get("limit")),
        types=_strings(value, "types"),
        not_types=_strings(value, "not_types") or (),
        senders=None if senders is None else frozenset(senders),
        not_senders=frozenset(_strings(value, "not_senders") or ()),
        rooms=None if rooms is None else frozenset(rooms),
        not_rooms=frozenset(_strings(value, "not_rooms") or ()),
        contains_url=_boolean(value, "contains_url"),
        lazy_load_members=_boolean(value, "lazy_load_members") or False,
        include_redundant_members=_boolean(value, "include_redundant_members") or False,
        unread_thread_notifications=_boolean(value, "unread_thread_notifications") or False,
    )


def _limit(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidParam("limit must be a positive integer")
    return value


def _boolean(value: Mapping[str, Any], name: str) -> bool | None:
    flag = value.get(name)
    if flag is not None and not isinstance(flag, bool):
        raise InvalidParam(f"{name} must be a boolean")
    return flag


def _strings(value: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    items = value.get(name)
    if items is None:
        return None
    if not isinstance(items, list) or len(items) > MAX_ITEMS:
        raise InvalidParam(f"{name} must be an array of at most {MAX_ITEMS} strings")
    if not all(isinstance(item, str) and len(item) <= MAX_TEXT for item in items):
        raise InvalidParam(f"{name} must hold strings of at most {MAX_TEXT} characters")
    return tuple(items)

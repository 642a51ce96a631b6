"""Power levels of a room, read from its create and power levels events.

A `Power` looks levels up where they stand instead of copying them, so making one for a single question costs nothing
even where thousands of users have levels. Malformed levels (possible before room version 10, whose rules check only
`users`) count as absent.

Source: `m.room.power_levels`; room versions 10 ("values must be integers") and 12 ("room creators").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from appliance.matrix.canonical import Json
from appliance.matrix.event import Event
from appliance.matrix.versions import RoomVersion

INFINITE: Final = 2**53
"""Power of a creator since room version 12: more than any level that can be written down."""

DEFAULTS: Final[Mapping[str, int]] = {
    "ban": 50,
    "kick": 50,
    "redact": 50,
    "invite": 0,
    "state_default": 50,
    "events_default": 0,
    "users_default": 0,
}
"""The named levels and what holds where the event is silent or missing."""

_FIRST_CREATOR: Final = 100
_NOTIFICATION: Final = 50
_STRING_LEVEL: Final = re.compile(r"\s*([+-]?)0*([0-9]{1,16})\s*")
_EMPTY: Final[Mapping[str, Json]] = {}


def read_level(value: Json, version: RoomVersion) -> int | None:
    """Return a power level as the room version reads it, None when the value is none.

    Before version 10 a decimal integer in a string counts as well, with white space, sign and leading zeros.
    """
    if type(value) is int:
        return value
    if isinstance(value, str) and not version.integer_power_levels:
        match = _STRING_LEVEL.fullmatch(value)
        return int(match[1] + match[2]) if match else None
    return None


def creators_of(create: Event) -> frozenset[str]:
    """Return the room's creators: the sender, the older `content.creator`, or with `additional_creators` several."""
    version = create.version
    if not version.creator_from_sender:
        creator = create.content.get("creator")
        return frozenset({creator}) if isinstance(creator, str) else frozenset()
    more = create.content.get("additional_creators")
    if version.privileged_creators and isinstance(more, list):
        return frozenset({create.sender, *(user for user in more if isinstance(user, str))})
    return frozenset({create.sender})


class Power:
    """Who may do what in a room at one point. `create` and `levels` are its state events, as far as they exist."""

    __slots__ = ("_content", "_creator_level", "_creators", "_events", "_users", "_version")

    def __init__(self, version: RoomVersion, create: Event | None, levels: Event | None) -> None:
        self._version = version
        self._content: Mapping[str, Json] = levels.content if levels is not None else _EMPTY
        users = self._content.get("users")
        events = self._content.get("events")
        self._users: Mapping[str, Json] = users if isinstance(users, dict) else _EMPTY
        self._events: Mapping[str, Json] = events if isinstance(events, dict) else _EMPTY
        self._creator_level = INFINITE if version.privileged_creators else _FIRST_CREATOR
        self._creators: frozenset[str] = frozenset()
        if create is not None and (levels is None or version.privileged_creators):
            self._creators = creators_of(create)

    def of(self, user: str) -> int:
        """Return the power of a user."""
        if user in self._creators:
            return self._creator_level
        level = self._users.get(user)
        if level is not None:
            read = read_level(level, self._version)
            if read is not None:
                return read
        return self.named("users_default")

    def event_level(self, type: str, is_state: bool) -> int:
        """Return the power needed to send an event of the type; membership events have rules of their own."""
        level = self._events.get(type)
        if level is not None:
            read = read_level(level, self._version)
            if read is not None:
                return read
        return self.named("state_default" if is_state else "events_default")

    def named(self, name: str) -> int:
        """Return one of the levels in `DEFAULTS`."""
        level = self._content.get(name)
        read = read_level(level, self._version) if level is not None else None
        return DEFAULTS[name] if read is None else read

    def notification(self, name: str) -> int:
        """Return the power needed to trigger the notification `name` (50 where nothing is said)."""
        notifications = self._content.get("notifications")
        level = notifications.get(name) if isinstance(notifications, dict) else None
        read = read_level(level, self._version)
        return _NOTIFICATION if read is None else read

    @property
    def creators(self) -> frozenset[str]:
        """Users whose power comes from having created the room."""
        return self._creators

    @property
    def ban(self) -> int:
        """Power needed to ban."""
        return self.named("ban")

    @property
    def kick(self) -> int:
        """Power needed to kick."""
        return self.named("kick")

    @property
    def invite(self) -> int:
        """Power needed to invite."""
        return self.named("invite")

    @property
    def redact(self) -> int:
        """Power needed to redact events of users of other servers."""
        return self.named("redact")

    @property
    def state_default(self) -> int:
        """Power needed for state events without a level of their own."""
        return self.named("state_default")

    @property
    def events_default(self) -> int:
        """Power needed for other events without a level of their own."""
        return self.named("events_default")

    @property
    def users_default(self) -> int:
        """Power of users without a level of their own."""
        return self.named("users_default")

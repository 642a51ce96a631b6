"""News that no disk ever sees: who is typing where, who is online.

Every such change takes the next number of one serial. It starts at the clock's milliseconds, so that a token of an
earlier run lies below everything that happens in this one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final, Protocol

MAX_KEPT: Final = 20_000


class Typing(Protocol):
    """Who types in a room at the moment (`rooms.typing`)."""

    def users(self, room_id: str) -> Iterable[str]:
        """Return the user ids, in a stable order."""
        ...


class Journal:
    """The last change (serial) of each of many things, bounded; the oldest are forgotten."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, int] = OrderedDict()

    def note(self, key: str, serial: int) -> None:
        """Record a change."""
        self._last[key] = serial
        self._last.move_to_end(key)
        if len(self._last) > MAX_KEPT:
            self._last.popitem(last=False)

    def after(self, serial: int) -> list[str]:
        """Return what changed after a serial, the newest first."""
        found = []
        for key, at in reversed(self._last.items()):
            if at <= serial:
                break
            found.append(key)
        return found


class Ephemeral:
    """The serial, and what changed when."""

    def __init__(self, start: int) -> None:
        self.serial = start
        self.typing = Journal()
        self.presence = Journal()

    def typed(self, room_id: str) -> None:
        """The list of people typing in a room changed."""
        self.serial += 1
        self.typing.note(room_id, self.serial)

    def appeared(self, user_id: str) -> None:
        """Somebody's presence changed."""
        self.serial += 1
        self.presence.note(user_id, self.serial)

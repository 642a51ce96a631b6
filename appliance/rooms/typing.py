"""Who is typing: in memory only, forgotten after the time the client gave.

Every change gets a serial from a counter that grows over restarts as well (it begins at the time of the start in
milliseconds), so that a sync token can carry it. Timers are the loop's; nothing polls.

Source: client-server API, "Typing Notifications".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from appliance.store.events import Row

DEFAULT_MS: Final = 30_000
MAX_MS: Final = 120_000
MAX_PER_ROOM: Final = 500
"""People shown as typing in one room at once; more are not told apart by anybody."""


class Typing:
    """The people typing in every room. `on_change` is called with the room id after every change,
    `on_person` with room, user and whether they type whenever somebody begins, goes on or stops.

    `committed` wants to be told of every event (`Ledger.listen`).
    """

    def __init__(self, start_ms: int, on_change: Callable[[str], None] | None = None) -> None:
        self._position = start_ms
        self._rooms: dict[str, dict[str, asyncio.TimerHandle]] = {}
        self._serials: dict[str, int] = {}
        self.on_change: Callable[[str], None] = on_change or _nobody
        self.on_person: Callable[[str, str, bool], None] = _nobody

    @property
    def position(self) -> int:
        """The serial of the newest change in any room."""
        return self._position

    def serial(self, room_id: str) -> int:
        """Return the serial of the newest change in a room, 0 if nobody typed there since the start."""
        return self._serials.get(room_id, 0)

    def users(self, room_id: str) -> list[str]:
        """Return who is typing in a room, by user id."""
        return sorted(self._rooms.get(room_id, ()))

    def set(self, room_id: str, user_id: str, timeout_ms: int) -> None:
        """Show the user as typing for at most `timeout_ms` milliseconds (bounded by `MAX_MS`); 0 or less ends it."""
        people = self._rooms.setdefault(room_id, {})
        timer = people.pop(user_id, None)
        known = timer is not None
        if timer is not None:
            timer.cancel()
        now = timeout_ms > 0 and len(people) < MAX_PER_ROOM
        if now:
            delay = min(timeout_ms, MAX_MS) / 1000
            people[user_id] = asyncio.get_running_loop().call_later(delay, self.stop, room_id, user_id)
        if not people:
            del self._rooms[room_id]
        if now or known:
            self.on_person(room_id, user_id, now)
        if known != now:
            self._changed(room_id)

    def stop(self, room_id: str, user_id: str) -> None:
        """The user no longer types: they said so, left, or sent what they typed."""
        if user_id in self._rooms.get(room_id, ()):
            self.set(room_id, user_id, 0)

    def committed(self, row: Row, pruned_id: str | None) -> None:
        """Follow the timeline: whoever has sent what they typed, or has left, no longer types."""
        event = row.event
        if event.room_id not in self._rooms:
            return
        if event.type in ("m.room.message", "m.room.encrypted"):
            self.stop(event.room_id, event.sender)
        elif event.type == "m.room.member" and event.content.get("membership") != "join":
            self.stop(event.room_id, event.state_key or "")

    def close(self) -> None:
        """Cancel every timer."""
        for people in self._rooms.values():
            for timer in people.values():
                timer.cancel()
        self._rooms.clear()

    def _changed(self, room_id: str) -> None:
        self._position += 1
        self._serials[room_id] = self._position
        self.on_change(room_id)


def _nobody(*_: object) -> None:
    """Nobody listens yet."""

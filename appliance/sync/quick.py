"""The sync that nearly every sync is: somebody waits, and plain messages arrive in rooms they have been in all along.

It asks neither the store nor a reader thread. What is new comes from the rings of recent events, encoded once for
everybody. Whatever is out of the ordinary (state, receipts, something of the user's own, a gap, a member the client
does not know yet) makes it decline, and the whole delta is read from the store instead (delta.py).
"""

from __future__ import annotations

from appliance.rooms.live import Live
from appliance.sync.ask import Ask
from appliance.sync.lazy import Marks
from appliance.sync.room import Part, plain, unsigned
from appliance.sync.stretch import Stretch
from appliance.sync.waiters import Hub, Hubs


class Quick:
    """Answers from memory."""

    def __init__(self, live: Live, hubs: Hubs) -> None:
        self._live = live
        self._hubs = hubs

    def read(self, ask: Ask, hub: Hub, marks: Marks, ignored: frozenset[str], upto: int, now: int) -> list[Part] | None:
        """Return the rooms with news in (since, upto], or None when the store must be asked."""
        since = ask.since
        if since is None or ask.full_state or not ask.filter.plain:
            return None
        if not hub.born <= since.stream <= upto or hub.user_pos > since.stream or since.letters != since.stream:
            return None
        parts = []
        for room_id in hub.rooms_after(since.stream):
            if not ask.filter.room.wants_room(room_id):
                continue
            part = self._room(room_id, ask, hub, marks, ignored, upto, now)
            if part is None:
                return None
            if part.timeline:
                parts.append(part)
        return parts

    def _room(
        self, room_id: str, ask: Ask, hub: Hub, marks: Marks, ignored: frozenset[str], upto: int, now: int
    ) -> Part | None:
        member = hub.memberships.get(room_id)  # type: ignore[call-overload]
        after = ask.since.stream if ask.since is not None else 0
        if member is None or self._hubs.aside_after(room_id, after):
            return None
        rows = self._live.since(member.rid, after, upto)
        if rows is None or len(rows) > ask.filter.limit or not all(plain(row, self._live) for row in rows):
            return None
        wanted = ask.filter.timeline
        if ignored or not wanted.passes_all:
            rows = [row for row in rows if row.event.sender not in ignored and wanted.wants(row.event)]
        if not wanted.wants_room(room_id):
            rows = []
        if ask.filter.lazy and rows and ask.filter.redundant:
            return None
        if ask.filter.lazy and not all(marks.knows(member.rid, row.event.sender, after) for row in rows):
            return None
        part = Part(room_id, member.rid, False, Stretch(rows, False, after))
        session = ask.requester.session
        part.timeline = [self._live.encoded(row).fragment(now, unsigned(row, session)) for row in rows]
        return part

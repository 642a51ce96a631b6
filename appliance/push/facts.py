"""What push rules ask about rooms: how many are joined, and the power levels; kept until they change."""

from __future__ import annotations

from collections import OrderedDict

from appliance.matrix import versions
from appliance.matrix.power import Power
from appliance.push.conditions import RoomFacts
from appliance.store import events, push, rooms
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.store.readers import Rx

ROOMS = 2000
RELEVANT = frozenset({"m.room.member", "m.room.power_levels", "m.room.create"})
_KEYS = (("m.room.create", ""), ("m.room.power_levels", ""))


def read(rx: Rx, rid: int) -> RoomFacts:
    """Read the facts of a room from the store."""
    found = {row.event.type: row.event for row in events.current_events(rx, rid, _KEYS)}
    create = found.get("m.room.create")
    room = rooms.by_rid(rx, [rid])[rid]
    version = create.version if create is not None else versions.get(room.version)
    return RoomFacts(push.joined_count(rx, rid), Power(version, create, found.get("m.room.power_levels")))


class Facts:
    """The facts of busy rooms."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: OrderedDict[int, RoomFacts] = OrderedDict()
        self._changes = 0

    def landed(self, row: Row, pruned_id: str | None = None) -> None:
        """Follow a committed event: forget what it may have changed."""
        if row.event.state_key is not None and row.event.type in RELEVANT:
            self.forget(row.rid)

    def forget(self, rid: int) -> None:
        """Drop what is known of a room (its state was resolved anew)."""
        self._changes += 1
        self._known.pop(rid, None)

    def now(self, rid: int) -> RoomFacts | None:
        """Return the facts if they are in memory."""
        return self._known.get(rid)

    async def of(self, rid: int) -> RoomFacts:
        """Return the facts of a room."""
        facts = self._known.get(rid)
        if facts is None:
            before = self._changes
            facts = await self._store.read(read, rid)
            if before == self._changes:  # otherwise they may be older than what was committed meanwhile
                self._known[rid] = facts
                if len(self._known) > ROOMS:
                    self._known.popitem(last=False)
        else:
            self._known.move_to_end(rid)
        return facts

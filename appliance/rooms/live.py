"""The newest events of busy rooms, in memory.

Almost every sync asks for what happened since a moment ago. `Live` keeps the last events of every room in which
something happened since the start, in commit order, so that such a question costs no SQL. What is older comes from
the store.
"""

from __future__ import annotations

from collections import OrderedDict, deque

from appliance.matrix import event as matrix_event
from appliance.matrix.client_event import Encoded
from appliance.store.events import Row

PER_ROOM = 200
IN_ALL = 4000


class _Ring:
    __slots__ = ("encoded", "floor", "related", "rows")

    def __init__(self, floor: int) -> None:
        self.floor = floor
        self.rows: deque[Row] = deque()
        self.encoded: dict[int, Encoded] = {}
        self.related: set[str] = set()


class Live:
    """Recently committed events by room, bounded; `start` is the committed position when the process began."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._rings: OrderedDict[int, _Ring] = OrderedDict()
        self._floors: dict[int, int] = {}
        self._count = 0

    def add(self, row: Row, pruned_id: str | None) -> None:
        """Take note of a committed event. Called in commit order; `pruned_id` is the event it redacted."""
        ring = self._rings.get(row.rid)
        if ring is None:
            ring = self._rings[row.rid] = _Ring(self._floors.pop(row.rid, self._start))
        self._rings.move_to_end(row.rid)
        if pruned_id is not None:
            self._prune(ring, pruned_id, row.eid)
        if row.flags == 0 and row.pos is not None and row.pos > 0:
            self._note_relation(ring, row)
            ring.rows.append(row)
            self._count += 1
            if len(ring.rows) > PER_ROOM:
                self._drop_oldest(ring)
        while self._count > IN_ALL and len(self._rings) > 1:
            self._forget_room()

    def since(self, rid: int, after: int, upto: int) -> list[Row] | None:
        """Return the events with after < pos <= upto, oldest first; None if memory does not reach back that far."""
        ring = self._rings.get(rid)
        if ring is None:
            return [] if after >= self._floors.get(rid, self._start) else None
        if after < ring.floor:
            return None
        newest_first = []
        for row in reversed(ring.rows):
            if row.pos is None or row.pos <= after:
                break
            if row.pos <= upto:
                newest_first.append(row)
        newest_first.reverse()
        return newest_first

    def recent(self, rid: int) -> tuple[list[Row], int]:
        """Return all recent events of a room, oldest first, and the position after which they are complete.

        May be called from a reader's thread: the copy is made in one step, and the position read after it can only be
        too careful.
        """
        ring = self._rings.get(rid)
        if ring is None:
            return [], self._floors.get(rid, self._start)
        rows = list(ring.rows)
        return rows, ring.floor

    def last_pos(self, rid: int) -> int | None:
        """Return the position of the newest event since the start, None if nothing happened in the room since."""
        ring = self._rings.get(rid)
        if ring is None:
            return self._floors.get(rid)
        return ring.rows[-1].pos if ring.rows else ring.floor

    def related(self, rid: int, pos: int | None, event_id: str) -> bool:
        """Tell whether something may relate to an event, so that aggregations must be looked up."""
        ring = self._rings.get(rid)
        return ring is None or pos is None or pos <= ring.floor or event_id in ring.related

    def encoded(self, row: Row) -> Encoded:
        """Return the event's client format, serialised once for all readers while the event is recent."""
        ring = self._rings.get(row.rid)
        if ring is None:
            return Encoded(row.event)
        found = ring.encoded.get(row.eid)
        if found is None:
            found = Encoded(row.event)
            if ring.rows and row.eid >= ring.rows[0].eid:
                ring.encoded[row.eid] = found
        return found

    def _note_relation(self, ring: _Ring, row: Row) -> None:
        relates = row.event.content.get("m.relates_to")
        if isinstance(relates, dict) and isinstance(relates.get("event_id"), str):
            ring.related.add(str(relates["event_id"]))

    def _drop_oldest(self, ring: _Ring) -> None:
        oldest = ring.rows.popleft()
        self._count -= 1
        ring.floor = oldest.pos or ring.floor
        ring.encoded.pop(oldest.eid, None)
        ring.related.discard(oldest.event.event_id)

    def _forget_room(self) -> None:
        rid, ring = self._rings.popitem(last=False)
        self._count -= len(ring.rows)
        self._floors[rid] = (ring.rows[-1].pos if ring.rows else None) or ring.floor

    def _prune(self, ring: _Ring, event_id: str, by: int) -> None:
        """A redacted event must not reach anybody in its old form."""
        for index, row in enumerate(ring.rows):
            if row.event.event_id == event_id:
                ring.rows[index] = Row(row.eid, row.rid, row.pos, row.sid, row.flags, row.replaces, by, row.session,
                                       row.txn, matrix_event.pruned(row.event))
                ring.encoded.pop(row.eid, None)
                return

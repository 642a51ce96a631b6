"""Events in the form in which one person gets them: the one function behind every endpoint that returns events.

To the event itself comes `unsigned`, which depends on the reader and the moment: its age, the transaction id (only
for the session that sent it), what it replaced, why it was redacted, the reader's membership at that time, and the
aggregations of what relates to it.

Source: client-server API, "Room event format", definition of `ClientEvent`; "Aggregations of child events".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from appliance.matrix import client_event
from appliance.matrix.requester import Requester
from appliance.rooms import relations
from appliance.rooms.relations import Aggregation
from appliance.rooms.visibility import Sight, ignored
from appliance.store import events
from appliance.store.events import Row
from appliance.store.readers import Rx

# `unsigned.membership` may be left out where it is expensive: this many old states are looked at for one answer.
_MAX_STATES: Final = 128


def render(
    rx: Rx,
    rows: Sequence[Row],
    viewer: Requester | None,
    now_ms: int,
    *,
    room_id: bool = True,
    bundle: bool = True,
) -> list[dict[str, Any]]:
    """Return the client format of events, in order, as `viewer` (None: somebody anonymous) gets them at `now_ms`.

    The events may come from several rooms. That the viewer may see them must have been checked. `bundle` adds the
    aggregations; `room_id` is left out inside a sync response.
    """
    return Renderer(rx, viewer, now_ms, room_id=room_id).render(rows, bundle=bundle)


class Renderer:
    """Renders for one viewer within one read, remembering what it looked up."""

    def __init__(self, rx: Rx, viewer: Requester | None, now_ms: int, *, room_id: bool = True) -> None:
        self._rx = rx
        self._viewer = viewer
        self._now = now_ms
        self._room_id = room_id
        self._sights: dict[int, Sight] = {}
        self._ignored: frozenset[str] | None = None
        self._states = 0

    def sight(self, rid: int) -> Sight:
        """Return the viewer's view of a room."""
        found = self._sights.get(rid)
        if found is None:
            user_id = self._viewer.user_id if self._viewer is not None else None
            found = self._sights[rid] = Sight(self._rx, rid, user_id)
        return found

    def render(self, rows: Sequence[Row], *, bundle: bool = True, threads: bool = True) -> list[dict[str, Any]]:
        """Return the client format of the events; see `render`."""
        neighbours = self._neighbours(rows)
        bundles = self._bundles(rows, threads) if bundle else {}
        return [self._one(row, neighbours, bundles.get(row.event.event_id)) for row in rows]

    def _neighbours(self, rows: Sequence[Row]) -> dict[int, Row]:
        """Fetch at once what the events replaced and what redacted them."""
        wanted = {row.replaces for row in rows if row.replaces is not None}
        wanted |= {row.redacted_by for row in rows if row.redacted_by is not None}
        return events.by_eids(self._rx, wanted) if wanted else {}

    def _one(self, row: Row, neighbours: dict[int, Row], bundled: dict[str, Any] | None) -> dict[str, Any]:
        event = row.event
        unsigned: dict[str, Any] = {"age": max(0, self._now - event.origin_server_ts)}
        viewer = self._viewer
        if row.txn is not None and viewer is not None and row.session == viewer.session:
            unsigned["transaction_id"] = row.txn
        if row.replaces is not None and row.replaces in neighbours:
            previous = neighbours[row.replaces]
            unsigned["replaces_state"] = previous.event.event_id
            if self.sight(row.rid).sees(previous):
                unsigned["prev_content"] = previous.event.content
                unsigned["prev_sender"] = previous.event.sender
        if row.redacted_by is not None and row.redacted_by in neighbours:
            unsigned["redacted_because"] = self._because(neighbours[row.redacted_by])
        membership = self._membership(row)
        if membership is not None:
            unsigned["membership"] = membership
        if bundled:
            unsigned["m.relations"] = bundled
        return client_event.render(event, room_id=self._room_id, unsigned=unsigned)

    def _because(self, row: Row) -> dict[str, Any]:
        age = max(0, self._now - row.event.origin_server_ts)
        return client_event.render(row.event, room_id=self._room_id, unsigned={"age": age})

    def _membership(self, row: Row) -> str | None:
        if self._viewer is None:
            return None
        sight = self.sight(row.rid)
        standing = sight.standing
        if standing is None or row.pos is None or standing.pos > row.pos:
            self._states += 1
            if self._states > _MAX_STATES:
                return None
        return sight.membership(row)

    # -- aggregations ----------------------------------------------------------------------------------------------

    def _bundles(self, rows: Sequence[Row], threads: bool) -> dict[str, dict[str, Any]]:
        by_room: dict[int, list[Row]] = {}
        for row in rows:
            by_room.setdefault(row.rid, []).append(row)
        result: dict[str, dict[str, Any]] = {}
        for rid, group in by_room.items():
            viewer = self._viewer.user_id if self._viewer is not None else None
            found = relations.aggregate(self._rx, group, self.sight(rid), viewer, self.ignored(), threads=threads)
            for event_id, aggregation in found.items():
                result[event_id] = self._bundled(aggregation)
        return result

    def _bundled(self, aggregation: Aggregation) -> dict[str, Any]:
        bundled: dict[str, Any] = {}
        if aggregation.edit is not None:
            bundled[relations.REPLACE] = self.render([aggregation.edit], bundle=False)[0]
        if aggregation.thread is not None:
            thread = aggregation.thread
            bundled[relations.THREAD] = {
                "latest_event": self.render([thread.latest], threads=False)[0],
                "count": thread.count,
                "current_user_participated": thread.participated,
            }
        if aggregation.references:
            bundled[relations.REFERENCE] = {"chunk": [{"event_id": event_id} for event_id in aggregation.references]}
        return bundled

    def ignored(self) -> frozenset[str]:
        """Return whom the viewer ignores."""
        if self._ignored is None:
            self._ignored = ignored(self._rx, self._viewer.user_id) if self._viewer is not None else frozenset()
        return self._ignored

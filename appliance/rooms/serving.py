"""What another server may read of a room's graph.

Only servers with somebody joined are answered, and only while the room's own list of servers lets them speak. Of an
event that no user of theirs may read they get the pruned form: the graph stays whole, the words stay here.

Source: server-server API, "Retrieving events", "Backfilling and retrieving missing events"; client-server API, "Room
History Visibility".
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from appliance.matrix import event as matrix_event
from appliance.matrix.errors import Forbidden, NotFound
from appliance.matrix.event import Event
from appliance.matrix.ids import ServerName, server_of
from appliance.rooms.steps.admit import allowed
from appliance.rooms.visibility import INVITED, SHARED, WORLD_READABLE, understood
from appliance.store import events, graph, outbox, rooms, state, timeline
from appliance.store.events import REJECTED, Row
from appliance.store.readers import Rx
from appliance.store.rooms import RoomRow

BACKFILLED: Final = 100
"""Events in one page of the past."""
MISSING: Final = 50
"""Events between what a server has and what it has heard of."""
NEAREST: Final = 50
"""Events around a moment that are looked at for one that may be shown."""

_ACL: Final = ("m.room.server_acl", "")
_VISIBILITY: Final = ("m.room.history_visibility", "")
_OPEN: Final = frozenset({WORLD_READABLE, SHARED})

Pdu = Mapping[str, Any]


class Asking(msgspec.Struct, frozen=True):
    """Who asks (`peer`), and whom (`home`: this server)."""

    peer: ServerName
    home: ServerName


class StateBefore(msgspec.Struct, frozen=True):
    """The state before an event, and everything that authorises it."""

    state: Sequence[Event]
    auth_chain: Sequence[Event]


def require_place(rx: Rx, asking: Asking, room_id: str) -> RoomRow:
    """Return the room if the peer takes part in it and may speak there; raises `NotFound`, `Forbidden`."""
    room = require_heard(rx, asking, room_id)
    if asking.peer not in outbox.servers_in(rx, room.rid, asking.home):
        raise Forbidden("Your server is not in this room")
    return room


def require_heard(rx: Rx, asking: Asking, room_id: str) -> RoomRow:
    """Return a room that this server has if the room lets the peer speak; raises `NotFound`, `Forbidden`."""
    room = rooms.find(rx, room_id)
    if room is None or room.sid is None:
        raise NotFound("There is no such room here")
    for row in events.current_events(rx, room.rid, [_ACL]):
        if not allowed(row.event.content, asking.peer):
            raise Forbidden("The room does not let your server take part")
    return room


def one_event(rx: Rx, asking: Asking, event_id: str) -> Pdu:
    """Return one event; raises `NotFound`, `Forbidden`."""
    row = events.fetch(rx, [event_id]).get(event_id)
    room = rooms.by_rid(rx, [row.rid]).get(row.rid) if row is not None else None
    if row is None or room is None or row.flags & REJECTED:
        raise NotFound("There is no such event here")
    require_place(rx, asking, room.room_id)
    return View(rx, room, asking.peer).shown(row)


def event_auth(rx: Rx, asking: Asking, room_id: str, event_id: str) -> list[Pdu]:
    """Return everything that authorises an event; raises `NotFound`, `Forbidden`."""
    room = require_place(rx, asking, room_id)
    _event_of(rx, room, event_id)
    return [event.pdu for event in graph.auth_chain(rx, [event_id]).values()]


def state_before(rx: Rx, asking: Asking, room_id: str, event_id: str) -> StateBefore:
    """Return the state before an event; raises `NotFound` (also for one whose state is not known), `Forbidden`."""
    room = require_place(rx, asking, room_id)
    row = _event_of(rx, room, event_id)
    if row.sid is None:
        raise NotFound("The state before this event is not known here")
    return spelled_out(rx, events.sid_before(rx, row))


def spelled_out(rx: Rx, sid: int | None) -> StateBefore:
    """Return a snapshot and its auth chain."""
    found = [row.event for row in events.events_of(rx, sid)] if sid is not None else []
    chain = graph.auth_chain(rx, [event.event_id for event in found])
    return StateBefore(found, list(chain.values()))


def backfill(rx: Rx, asking: Asking, room_id: str, start: Sequence[str], limit: int) -> list[Pdu]:
    """Return the events `start` and what precedes them, the deepest first."""
    room = require_place(rx, asking, room_id)
    view = View(rx, room, asking.peer)
    return [view.shown(row) for row in _back(rx, room, start, frozenset(), min(limit, BACKFILLED), 0)]


class Between(msgspec.Struct, frozen=True):
    """What a server has (`earliest`), what it has heard of (`latest`), and how much of the rest it wants."""

    earliest: Sequence[str]
    latest: Sequence[str]
    limit: int
    min_depth: int


def missing(rx: Rx, asking: Asking, room_id: str, wanted: Between) -> list[Pdu]:
    """Return what lies between, oldest first; the events that were named are not among it."""
    room = require_place(rx, asking, room_id)
    view = View(rx, room, asking.peer)
    known = events.fetch(rx, wanted.latest).values()
    start = {parent for row in known if row.rid == room.rid for parent in row.event.prev_events}
    without = frozenset((*wanted.earliest, *wanted.latest))
    found = _back(rx, room, start, without, min(wanted.limit, MISSING), wanted.min_depth)
    return [view.shown(row) for row in reversed(found)]


def nearest(rx: Rx, asking: Asking, room_id: str, ts: int, *, forwards: bool) -> Event:
    """Return the event closest to `ts` (milliseconds) in one direction; raises `NotFound`, `Forbidden`."""
    room = require_place(rx, asking, room_id)
    view = View(rx, room, asking.peer)
    eids = timeline.nearest(rx, room.rid, ts, forwards=forwards, skip=0, limit=NEAREST)
    rows = events.by_eids(rx, eids)
    for eid in eids:
        if not rows[eid].flags and view.whole(rows[eid]):
            return rows[eid].event
    raise NotFound("There is no event in that direction")


def _event_of(rx: Rx, room: RoomRow, event_id: str) -> Row:
    row = events.fetch(rx, [event_id]).get(event_id)
    if row is None or row.rid != room.rid or row.flags & REJECTED:
        raise NotFound("There is no such event in this room")
    return row


def _back(
    rx: Rx, room: RoomRow, start: Iterable[str], without: frozenset[str], limit: int, min_depth: int
) -> list[Row]:
    """Walk back from `start`, always on from the deepest event; those without a place in the graph end the walk."""
    seen = set(without)
    heap: list[tuple[int, int, Row]] = []

    def add(event_ids: Iterable[str]) -> None:
        fresh = {event_id for event_id in event_ids if event_id not in seen}
        seen.update(fresh)
        for row in events.fetch(rx, fresh).values():
            if row.rid == room.rid and row.sid is not None and row.event.depth >= min_depth:
                heapq.heappush(heap, (-row.event.depth, row.eid, row))

    add(start)
    found: list[Row] = []
    while heap and len(found) < limit:
        row = heapq.heappop(heap)[2]
        if not row.flags & REJECTED:
            found.append(row)
        add(row.event.prev_events)
    return found


class View:
    """One server's view of one room, for the length of one read."""

    def __init__(self, rx: Rx, room: RoomRow, peer: ServerName) -> None:
        self._rx = rx
        self._peer = peer
        self._open = {understood(value) for value in timeline.history_visibilities(rx, room.rid)} <= _OPEN
        self._moments: dict[int, bool] = {}

    def shown(self, row: Row) -> Pdu:
        """Return an event as the server may have it. State is never hidden: the rules of the room need it."""
        return row.event.pdu if self.whole(row) else matrix_event.pruned(row.event).pdu

    def whole(self, row: Row) -> bool:
        """Tell whether the server may have the event with its words."""
        return self._open or row.event.state_key is not None or row.sid is None or self._sees(row.sid)

    def _sees(self, sid: int) -> bool:
        if sid not in self._moments:
            self._moments[sid] = self._at(sid)
        return self._moments[sid]

    def _at(self, sid: int) -> bool:
        """Tell whether somebody of the server may read what is said while this state holds."""
        whole = state.snapshot(self._rx, sid)
        theirs = [eid for (kind, key), eid in whole.items() if kind == "m.room.member" and _is_of(key, self._peer)]
        rows = events.by_eids(self._rx, [*theirs, *([whole[_VISIBILITY]] if _VISIBILITY in whole else [])])
        visibility = None
        if _VISIBILITY in whole:
            visibility = rows[whole[_VISIBILITY]].event.content.get("history_visibility")
        held = understood(visibility)
        memberships = {rows[eid].event.content.get("membership") for eid in theirs}
        return held in _OPEN or "join" in memberships or (held == INVITED and "invite" in memberships)


def _is_of(user_id: str, server: ServerName) -> bool:
    return ":" in user_id and server_of(user_id) == server

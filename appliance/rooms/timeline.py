"""History: paging through a room, what stood around an event, one event, the event nearest to a moment.

All of it are range scans over (room, position), bounded by `MAX_SCAN` events per request: what the filter or the
history visibility takes away is skipped, and a page that is still not full after that many events simply ends early
with a token to go on from. A timeline token names the point right after a position (see matrix/tokens.py).

Source: client-server API, `GET /rooms/{roomId}/messages`, `/context/{eventId}`, `/event/{eventId}`,
`/timestamp_to_event`; "Lazy-loading room members".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from appliance.matrix.errors import NotFound
from appliance.matrix.requester import Requester
from appliance.matrix.tokens import timeline_token
from appliance.rooms.access import Reader, reader
from appliance.rooms.event_filter import EVERYTHING, RoomEventFilter
from appliance.rooms.render import Renderer
from appliance.rooms.visibility import Sight
from appliance.store import events, timeline
from appliance.store.events import Row
from appliance.store.readers import Rx

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 1_000
MAX_CONTEXT: Final = 100
MAX_SCAN: Final = 2_000
"""Events looked at for one page."""
FIRST: Final = -(2**62)
LAST: Final = 2**62
_BATCH: Final = 100
_NEAREST: Final = 20


class Page(msgspec.Struct, frozen=True):
    """Which part of a timeline: from the point `start` (None: the very end or beginning) towards `stop`."""

    backwards: bool
    start: int | None = None
    stop: int | None = None
    limit: int = DEFAULT_LIMIT
    filter: RoomEventFilter = EVERYTHING


class Scan(msgspec.Struct, frozen=True):
    """What a scan found, and the point where it stopped; None when the range is exhausted."""

    rows: list[Row]
    end: int | None


def scan(rx: Rx, sight: Sight, rid: int, page: Page, ignored: Collection[str] = frozenset()) -> Scan:
    """Return the events of a page that the viewer may see and the filter wants.

    Events of ignored people are left out unless they are state ("Ignoring Users").
    """
    after, upto = _bounds(sight, page)
    found: list[Row] = []
    looked_at = 0
    while looked_at < MAX_SCAN and after < upto:
        size = min(_BATCH if looked_at else page.limit + 1, MAX_SCAN - looked_at)
        rows = events.timeline(rx, rid, after=after, upto=upto, limit=size, backwards=page.backwards)
        looked_at += len(rows)
        seen = {row.eid for row in sight.only(rows)}
        for row in rows:
            if row.eid in seen and _wanted(row, page.filter, ignored):
                if len(found) == page.limit:
                    return Scan(found, upto if page.backwards else after)
                found.append(row)
            pos = row.pos if row.pos is not None else 0
            after, upto = (after, pos - 1) if page.backwards else (pos, upto)
        if len(rows) < size:
            return Scan(found, None)
        if len(found) == page.limit:
            break
    return Scan(found, (upto if page.backwards else after) if after < upto else None)


def _bounds(sight: Sight, page: Page) -> tuple[int, int]:
    if page.backwards:
        return (FIRST if page.stop is None else page.stop), min(LAST if page.start is None else page.start, sight.ends)
    return (FIRST if page.start is None else page.start), min(LAST if page.stop is None else page.stop, sight.ends)


def _wanted(row: Row, wanted: RoomEventFilter, ignored: Collection[str]) -> bool:
    event = row.event
    if event.state_key is None and event.sender in ignored:
        return False
    return wanted.passes_all or wanted.wants(event)


def messages(rx: Rx, requester: Requester, room_id: str, page: Page, now: int) -> dict[str, Any]:
    """Return one page of a room's history; raises `Forbidden` for somebody who may not read the room."""
    access = reader(rx, requester.user_id, room_id)
    renderer = Renderer(rx, requester, now)
    rid = access.room.rid
    if page.start is None and page.backwards:
        page = Page(True, timeline.position(rx), page.stop, page.limit, page.filter)
    start = page.start if page.start is not None else 0
    if not page.filter.wants_room(room_id):
        return {"chunk": [], "start": timeline_token(start)}
    found = scan(rx, renderer.sight(rid), rid, page, renderer.ignored())
    result: dict[str, Any] = {"chunk": renderer.render(found.rows), "start": timeline_token(start)}
    if found.end is not None:
        result["end"] = timeline_token(found.end)
    if page.filter.lazy_load_members and found.rows:
        newest = found.rows[0] if page.backwards else found.rows[-1]
        result["state"] = renderer.render(senders_of(rx, found.rows, newest.sid), bundle=False)
    return result


def senders_of(rx: Rx, rows: Sequence[Row], sid: int | None) -> list[Row]:
    """Return the membership events, in a state snapshot, of those who sent the events."""
    if sid is None:
        return []
    keys = [("m.room.member", sender) for sender in dict.fromkeys(row.event.sender for row in rows)]
    shown = {row.eid for row in rows}
    return [row for row in events.events_of(rx, sid, keys) if row.eid not in shown]


def readable_event(rx: Rx, sight: Sight, room_rid: int, event_id: str) -> Row:
    """Return an event of the room that the viewer may see; raises `NotFound` for all others alike."""
    row = events.fetch(rx, [event_id]).get(event_id)
    if row is None or row.rid != room_rid or not sight.sees(row):
        raise NotFound("Event not found")
    return row


def one_event(rx: Rx, requester: Requester, room_id: str, event_id: str, now: int) -> dict[str, Any]:
    """Return a single event; raises `NotFound` also where the room or event may not be read."""
    row = events.fetch(rx, [event_id]).get(event_id)
    if row is None or row.event.room_id != room_id:
        raise NotFound("Event not found")
    renderer = Renderer(rx, requester, now)
    if renderer.sight(row.rid).standing is not None and _forgotten(renderer.sight(row.rid)):
        raise NotFound("Event not found")
    if not renderer.sight(row.rid).sees(row):
        raise NotFound("Event not found")
    return renderer.render([row])[0]


def _forgotten(sight: Sight) -> bool:
    return sight.standing is not None and sight.standing.forgotten


def context(
    rx: Rx, requester: Requester, room_id: str, event_id: str, limit: int, wanted: RoomEventFilter, now: int
) -> dict[str, Any]:
    """Return an event with what came before and after it, and the state at the last event returned.

    `limit` counts the events around it, half before and half after. Raises `Forbidden`, `NotFound`.
    """
    access = reader(rx, requester.user_id, room_id)
    renderer = Renderer(rx, requester, now)
    rid = access.room.rid
    row = readable_event(rx, renderer.sight(rid), rid, event_id)
    around = surroundings(rx, renderer, row, (limit + 1) // 2, limit // 2, wanted)
    newest = around.after[-1] if around.after else row
    state = _context_state(rx, newest, [row, *around.before, *around.after], wanted)
    return {
        "start": around.start,
        "end": around.end,
        "event": renderer.render([row])[0],
        "events_before": renderer.render(around.before),
        "events_after": renderer.render(around.after),
        "state": renderer.render(state, bundle=False),
    }


def _context_state(rx: Rx, newest: Row, shown: Sequence[Row], wanted: RoomEventFilter) -> list[Row]:
    if newest.sid is None:
        return []
    rows = events.events_of(rx, newest.sid)
    if wanted.lazy_load_members:
        senders = {row.event.sender for row in shown}
        rows = [row for row in rows if row.event.type != "m.room.member" or row.event.state_key in senders]
    return rows if wanted.passes_all else [row for row in rows if wanted.wants(row.event)]


class Surroundings(msgspec.Struct, frozen=True):
    """The events before (newest first) and after (oldest first) an event, and the tokens to read on from either side.
    """

    before: list[Row]
    after: list[Row]
    start: str
    end: str


def surroundings(
    rx: Rx, renderer: Renderer, row: Row, before: int, after: int, wanted: RoomEventFilter = EVERYTHING
) -> Surroundings:
    """Return up to `before` and `after` events around one that the viewer may see."""
    pos = row.pos if row.pos is not None else 0
    sight, ignored = renderer.sight(row.rid), renderer.ignored()
    earlier, later = Scan([], pos - 1), Scan([], pos)
    if before:
        earlier = scan(rx, sight, row.rid, Page(True, pos - 1, None, before, wanted), ignored)
    if after:
        later = scan(rx, sight, row.rid, Page(False, pos, None, after, wanted), ignored)
    start = _edge(earlier.rows, pos, backwards=True) if earlier.end is None else earlier.end
    end = _edge(later.rows, pos, backwards=False) if later.end is None else later.end
    return Surroundings(earlier.rows, later.rows, timeline_token(start), timeline_token(end))


def _edge(rows: Sequence[Row], pos: int, *, backwards: bool) -> int:
    """Return the point just beyond the last event of an exhausted scan."""
    last = rows[-1].pos if rows and rows[-1].pos is not None else pos
    return last - 1 if backwards else last


def nearest(rx: Rx, requester: Requester, room_id: str, ts: int, forwards: bool) -> dict[str, Any]:
    """Return the visible event closest in time to `ts` (milliseconds) in one direction; raises `NotFound`."""
    access: Reader = reader(rx, requester.user_id, room_id)
    sight = Sight(rx, access.room.rid, requester.user_id)
    for skip in range(0, MAX_SCAN, _NEAREST):
        eids = timeline.nearest(rx, access.room.rid, ts, forwards=forwards, skip=skip, limit=_NEAREST)
        found = events.by_eids(rx, eids)
        for eid in eids:
            if sight.sees(found[eid]):
                event = found[eid].event
                return {"event_id": event.event_id, "origin_server_ts": event.origin_server_ts}
        if len(eids) < _NEAREST:
            break
    direction = "forward" if forwards else "backward"
    raise NotFound(f"Unable to find an event from {ts} in {direction} direction")

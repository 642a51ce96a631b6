"""Paging through what relates to an event.

Source: client-server API, "Relationships API".
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from appliance.matrix.requester import Requester
from appliance.matrix.tokens import timeline_token
from appliance.rooms.access import reader
from appliance.rooms.relations import MAX_HOPS, descendants
from appliance.rooms.render import Renderer
from appliance.rooms.timeline import FIRST, LAST, Scan, readable_event
from appliance.store import events, relations
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.relations import Wanted

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 500
MAX_SCAN: Final = 2_000


class Kin(msgspec.Struct, frozen=True):
    """Which relations of `parent`: of one type and event type, or all (None); `start` and `stop` are timeline points.
    """

    parent: str
    rel_type: str | None = None
    type: str | None = None
    backwards: bool = True
    start: int | None = None
    stop: int | None = None
    limit: int = DEFAULT_LIMIT
    recurse: bool = False


def page(rx: Rx, requester: Requester, room_id: str, kin: Kin, now: int) -> dict[str, Any]:
    """Return one page of the events that relate to an event.

    Raises `Forbidden` for somebody who may not read the room, `NotFound` for a parent that they may not see.
    """
    access = reader(rx, requester.user_id, room_id)
    renderer = Renderer(rx, requester, now)
    parent = readable_event(rx, renderer.sight(access.room.rid), access.room.rid, kin.parent)
    found = _scan(rx, renderer, parent, kin)
    result: dict[str, Any] = {"chunk": renderer.render(found.rows)}
    if found.end is not None:
        result["next_batch"] = timeline_token(found.end)
    if kin.start is not None:
        result["prev_batch"] = timeline_token(kin.start)
    if kin.recurse:
        result["recursion_depth"] = MAX_HOPS
    return result


def _scan(rx: Rx, renderer: Renderer, parent: Row, kin: Kin) -> Scan:
    sight, ignored = renderer.sight(parent.rid), renderer.ignored()
    parents = descendants(rx, parent.rid, kin.parent) if kin.recurse else [kin.parent]
    after, upto = _range(kin)
    upto = min(upto, sight.ends)
    found: list[Row] = []
    looked_at = 0
    while looked_at < MAX_SCAN and after < upto:
        wanted = Wanted(kin.rel_type, kin.type, after, upto, kin.limit + 1, kin.backwards)
        eids = relations.children(rx, parent.rid, parents, wanted)
        rows = events.by_eids(rx, eids)
        looked_at += len(eids)
        for row in (rows[eid] for eid in eids):
            if row.event.sender not in ignored and row.eid != parent.eid and sight.sees(row):
                if len(found) == kin.limit:
                    return Scan(found, upto if kin.backwards else after)
                found.append(row)
            pos = row.pos if row.pos is not None else 0
            after, upto = (after, pos - 1) if kin.backwards else (pos, upto)
        if len(eids) <= kin.limit:
            return Scan(found, None)
    return Scan(found, (upto if kin.backwards else after) if after < upto else None)


def _range(kin: Kin) -> tuple[int, int]:
    low, high = (kin.stop, kin.start) if kin.backwards else (kin.start, kin.stop)
    return (FIRST if low is None else low), (LAST if high is None else high)

"""The threads of a room, the most recently used first.

Source: client-server API, "Threading", `GET /rooms/{roomId}/threads`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from appliance.matrix import event as matrix_event
from appliance.matrix.requester import Requester
from appliance.matrix.tokens import timeline_token
from appliance.rooms.access import reader
from appliance.rooms.relations import THREAD
from appliance.rooms.render import Renderer
from appliance.rooms.timeline import LAST
from appliance.store import events, relations
from appliance.store.events import Row
from appliance.store.readers import Rx

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
MAX_SCAN: Final = 500


class Wanted(msgspec.Struct, frozen=True):
    """Which threads: only those the reader took part in, from the timeline point `start`, at most `limit`."""

    participated: bool = False
    start: int | None = None
    limit: int = DEFAULT_LIMIT


def listing(rx: Rx, requester: Requester, room_id: str, wanted: Wanted, now: int) -> dict[str, Any]:
    """Return a page of thread roots with their summaries; raises `Forbidden`.

    A root sent by somebody the requester ignores is shown without its content; a thread in which they see nothing but
    the root is left out.
    """
    access = reader(rx, requester.user_id, room_id)
    rid = access.room.rid
    renderer = Renderer(rx, requester, now)
    upto = min(LAST if wanted.start is None else wanted.start, renderer.sight(rid).ends)
    participant = requester.user_id if wanted.participated else None
    found: list[Row] = []
    end: int | None = None
    for looked_at in range(0, MAX_SCAN, MAX_LIMIT):
        threads = relations.threads(rx, rid, upto=upto, participant=participant, limit=MAX_LIMIT)
        end = _collect(rx, renderer, threads, found, wanted.limit)
        if end is not None or len(threads) < MAX_LIMIT:
            break
        upto = threads[-1][1] - 1
        end = upto if looked_at + MAX_LIMIT >= MAX_SCAN else None
    shown = renderer.render(found)
    result: dict[str, Any] = {"chunk": [event for event in shown if THREAD in event["unsigned"].get("m.relations", {})]}
    if end is not None:
        result["next_batch"] = timeline_token(end)
    return result


def _collect(
    rx: Rx, renderer: Renderer, threads: Sequence[tuple[str, int]], found: list[Row], limit: int
) -> int | None:
    """Add visible roots to `found`; return the point to go on from once the page is full."""
    roots = events.fetch(rx, [root for root, _ in threads])
    for root, latest in threads:
        row = roots.get(root)
        if row is None or not renderer.sight(row.rid).sees(row):
            continue
        if len(found) == limit:
            return latest
        if row.event.sender in renderer.ignored():
            row = msgspec.structs.replace(row, event=matrix_event.pruned(row.event))
        found.append(row)
    return None

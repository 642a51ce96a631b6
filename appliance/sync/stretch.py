"""One room's timeline in a sync: the newest events of a stretch, and where the gap before them begins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import Final

import msgspec

from appliance.store import events
from appliance.store.events import Row
from appliance.store.readers import Rx

BEGINNING: Final = -(2**62)
"""Below every timeline position, those of backfilled events included."""
SPARE: Final = 20
"""Events looked at beyond twice the limit, for the sake of those that are filtered out."""
PAGES: Final = 8
"""A filter or an ignored neighbour may hide most of a room: so many pages are searched before the client is sent on."""


class Stretch(msgspec.Struct, frozen=True):
    """Events, oldest first; `limited`: earlier ones of the stretch are missing, to be read back from point `prev`."""

    rows: Sequence[Row]
    limited: bool
    prev: int


Pass = Callable[[Sequence[Row]], Sequence[Row]]
"""Keeps what the client may and wants to see, in order."""


def read(rx: Rx, rid: int, after: int | None, upto: int, limit: int, keep: Pass) -> Stretch:
    """Return the newest `limit` events with after < pos <= upto that pass `keep`. `after` None: from the beginning."""
    floor = BEGINNING if after is None else after
    found: list[Row] = []
    page, at = limit + 1, upto
    for _ in range(PAGES):
        rows = events.timeline(rx, rid, after=floor, upto=at, limit=page, backwards=True)
        found += keep(rows)
        if len(found) > limit:
            return cut(found, limit)
        if len(rows) < page:
            oldest = found[-1].pos if found else None
            start = floor if after is not None else (oldest - 1 if oldest is not None else upto)
            return Stretch(found[::-1], False, start)
        at = (rows[-1].pos or 0) - 1
        page = max(page, 100)
    return Stretch(found[::-1], True, at)


def from_memory(
    recent: Sequence[Row], floor: int, after: int | None, upto: int, limit: int, keep: Pass
) -> Stretch | None:
    """Answer as `read` does from the newest events (complete after `floor`), None if they do not reach that far."""
    newest = (row for row in reversed(recent) if (row.pos or 0) <= upto)
    if after is None or after < floor:
        # Only the end of it can be answered: if that is more than the client wants, nothing else matters.
        found = list(keep(list(islice(newest, 2 * limit + SPARE))))
        inside = [row for row in found if (row.pos or 0) > (after or 0)]
        return cut(inside, limit) if len(inside) > limit else None
    found = list(keep(list(takewhile(lambda row: (row.pos or 0) > after, newest))))
    return cut(found, limit) if len(found) > limit else Stretch(found[::-1], False, after)


def cut(newest_first: Sequence[Row], limit: int) -> Stretch:
    """Keep the newest `limit` of more events than that."""
    if limit == 0:
        return Stretch((), True, newest_first[0].pos or 0)
    kept = newest_first[:limit]
    return Stretch(kept[::-1], True, (kept[-1].pos or 0) - 1)

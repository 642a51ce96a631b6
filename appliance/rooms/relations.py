"""What is known about an event from the events that point at it: edits, threads, references.

`aggregate` gathers the rows; putting them into words is `render`'s business. Children that were redacted, that the
viewer may not see, or that come from somebody the viewer ignores do not count.

Source: client-server API, "Aggregations of child events", and the server behaviour of "Event replacements",
"Threading" and "Reference relations".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from appliance.rooms.visibility import Sight
from appliance.store import events, relations
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.relations import Wanted
from appliance.store.writer import Tx

REPLACE: Final = "m.replace"
THREAD: Final = "m.thread"
REFERENCE: Final = "m.reference"

MAX_REFERENCES: Final = 100
"""References listed under one event."""
MAX_HOPS: Final = 3
"""How far indirect relations are followed, up (which thread is it in?) and down (`recurse`)."""
MAX_TREE: Final = 5_000
"""Events considered as parents when relations are read recursively."""
_CANDIDATES: Final = 20


class Thread(msgspec.Struct, frozen=True):
    """The summary of a thread for one viewer."""

    latest: Row
    count: int
    participated: bool


@dataclass(slots=True)
class Aggregation:
    """What is bundled with one event: its valid newest edit, its thread, the ids of the events that refer to it."""

    edit: Row | None = None
    thread: Thread | None = None
    references: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return self.edit is not None or self.thread is not None or bool(self.references)


def relation_of(row: Row) -> tuple[str, str] | None:
    """Return (rel_type, parent event id) of an event that relates to another one in the specified form."""
    relates = row.event.content.get("m.relates_to")
    if not isinstance(relates, dict):
        return None
    rel_type, parent = relates.get("rel_type"), relates.get("event_id")
    return (rel_type, parent) if isinstance(rel_type, str) and isinstance(parent, str) else None


def aggregate(
    rx: Rx | Tx,
    rows: Sequence[Row],
    sight: Sight,
    viewer: str | None,
    ignored: Collection[str],
    *,
    threads: bool = True,
) -> dict[str, Aggregation]:
    """Return the aggregations of events of one room by event id, only for events that have any.

    State events have none. With `threads=False` thread summaries are left out (inside a thread summary).
    """
    parents: dict[str, Row] = {row.event.event_id: row for row in rows if row.event.state_key is None}
    if not parents:
        return {}
    kinds = relations.kinds(rx, rows[0].rid, list(parents), (REPLACE, THREAD, REFERENCE))
    result: dict[str, Aggregation] = {}
    for event_id, found in kinds.items():
        row = parents[event_id]
        aggregation = Aggregation()
        if REPLACE in found:
            aggregation.edit = _edit(rx, row, sight, ignored)
        if THREAD in found and threads:
            aggregation.thread = thread_of(rx, row, sight, viewer, ignored)
        if REFERENCE in found:
            aggregation.references = _references(rx, row, sight, ignored)
        if aggregation:
            result[event_id] = aggregation
    return result


def _edit(rx: Rx | Tx, row: Row, sight: Sight, ignored: Collection[str]) -> Row | None:
    event = row.event
    relation = relation_of(row)
    if row.redacted_by is not None or event.sender in ignored or (relation is not None and relation[0] == REPLACE):
        return None
    eids = relations.edits(rx, row.rid, event.event_id, event.sender, event.type, _CANDIDATES)
    found = events.by_eids(rx, eids)
    for eid in eids:
        edit = found[eid]
        replacement = edit.event.content.get("m.new_content")
        if (isinstance(replacement, dict) or event.type == "m.room.encrypted") and sight.sees(edit):
            return edit
    return None


def thread_of(rx: Rx | Tx, root: Row, sight: Sight, viewer: str | None, ignored: Collection[str]) -> Thread | None:
    """Return the summary of the thread that hangs under `root`; None if the viewer sees no event of it."""
    senders = relations.senders(rx, root.rid, root.event.event_id, THREAD)
    count = sum(number for sender, number in senders.items() if sender not in ignored)
    upto = sight.ends
    while count:
        wanted = Wanted(THREAD, None, -(2**62), upto, _CANDIDATES, True)
        eids = relations.children(rx, root.rid, [root.event.event_id], wanted)
        found = events.by_eids(rx, eids)
        for row in (found[eid] for eid in eids):
            if row.event.sender not in ignored and sight.sees(row):
                return Thread(row, count, viewer is not None and (viewer in senders or viewer == root.event.sender))
        if len(eids) < _CANDIDATES:
            break
        last = found[eids[-1]].pos
        upto = (last if last is not None else upto) - 1
    return None


def _references(rx: Rx | Tx, row: Row, sight: Sight, ignored: Collection[str]) -> list[str]:
    wanted = Wanted(REFERENCE, None, -(2**62), 2**62, MAX_REFERENCES, False)
    eids = relations.children(rx, row.rid, [row.event.event_id], wanted)
    found = events.by_eids(rx, eids)
    return [
        found[eid].event.event_id
        for eid in eids
        if found[eid].event.sender not in ignored and sight.sees(found[eid])
    ]


def descendants(rx: Rx | Tx, rid: int, root: str) -> list[str]:
    """Return the event and everything that relates to it through fewer than `MAX_HOPS` relations: the parents to look
    under.
    """
    seen, level = {root}, [root]
    for _ in range(MAX_HOPS - 1):
        room_left = MAX_TREE - len(seen)
        if room_left <= 0 or not level:
            break
        level = [child for child in relations.child_ids(rx, rid, level, room_left) if child not in seen]
        seen.update(level)
    return list(seen)


def thread_root(rx: Rx | Tx, row: Row, *, known: Mapping[str, Row] | None = None) -> str | None:
    """Return the root of the thread an event is in, following at most `MAX_HOPS` relations up; None: main timeline."""
    for _ in range(MAX_HOPS):
        relation = relation_of(row)
        if relation is None:
            return None
        if relation[0] == THREAD:
            return relation[1]
        parent = (known or {}).get(relation[1]) or events.fetch(rx, [relation[1]]).get(relation[1])
        if parent is None or parent.rid != row.rid:
            return None
        row = parent
    return None

"""Which events point at which: the children of an event, in the order of the timeline.

Rows of `relation` (see events.py) are written when an event is appended and stay for ever; an event that was redacted
no longer relates to anything, so every question here leaves those out, together with what clients may not see.

A plus before a column (`+rid=?`) keeps SQLite from choosing that column's index: the children of a few parents are
found by parent, never by walking through all relations of a room.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec

from appliance.store.readers import Rx
from appliance.store.timeline import HIDDEN
from appliance.store.writer import Tx

CHUNK = 500
"""Parents asked about in one statement."""

_LIVE = f"e.pos IS NOT NULL AND e.redacted_by IS NULL AND e.flags&{HIDDEN}=0"


class Wanted(msgspec.Struct, frozen=True):
    """Which children: `rel_type` and `type` (None: any), positions in (`after`, `upto`], at most `limit`."""

    rel_type: str | None
    type: str | None
    after: int
    upto: int
    limit: int
    backwards: bool


def kinds(rx: Rx | Tx, rid: int, parents: Sequence[str], rel_types: Sequence[str]) -> dict[str, set[str]]:
    """Return the relation types, out of `rel_types`, with which anything points at each of the parents."""
    result: dict[str, set[str]] = {}
    types = ",".join("?" * len(rel_types))
    for start in range(0, len(parents), CHUNK):
        chunk = parents[start : start + CHUNK]
        marks = ",".join("?" * len(chunk))
        sql = (
            "SELECT DISTINCT parent_id, rel_type FROM relation "
            f"WHERE parent_id IN ({marks}) AND +rid=? AND +rel_type IN ({types})"
        )
        for parent, rel_type in rx.execute(sql, (*chunk, rid, *rel_types)):
            result.setdefault(parent, set()).add(rel_type)
    return result


def children(rx: Rx | Tx, rid: int, parents: Collection[str], wanted: Wanted) -> list[int]:
    """Return the eids of direct children of any of the parents, oldest first or newest first."""
    marks = ",".join("?" * len(parents))
    conditions, args = _conditions(wanted)
    order = "DESC" if wanted.backwards else "ASC"
    sql = (
        f"SELECT DISTINCT e.eid, e.pos FROM relation r JOIN event e ON e.eid=r.eid "
        f"WHERE r.parent_id IN ({marks}) AND +r.rid=? AND {_LIVE} AND {conditions} ORDER BY e.pos {order} LIMIT ?"
    )
    return [int(row[0]) for row in rx.execute(sql, (*parents, rid, *args, wanted.limit))]


def _conditions(wanted: Wanted) -> tuple[str, list[object]]:
    conditions = ["e.pos>?", "e.pos<=?"]
    values: list[object] = [wanted.after, wanted.upto]
    if wanted.rel_type is not None:
        conditions.append("r.rel_type=?")
        values.append(wanted.rel_type)
    if wanted.type is not None:
        conditions.append("r.type=?")
        values.append(wanted.type)
    return " AND ".join(conditions), values


def child_ids(rx: Rx | Tx, rid: int, parents: Sequence[str], limit: int) -> list[str]:
    """Return the event ids of everything that points at the parents; for walking a tree of relations level by level."""
    found: list[str] = []
    for start in range(0, len(parents), CHUNK):
        chunk = parents[start : start + CHUNK]
        marks = ",".join("?" * len(chunk))
        sql = (
            f"SELECT DISTINCT e.event_id FROM relation r JOIN event e ON e.eid=r.eid "
            f"WHERE r.parent_id IN ({marks}) AND +r.rid=? AND {_LIVE} LIMIT ?"
        )
        found += [row[0] for row in rx.execute(sql, (*chunk, rid, limit - len(found)))]
        if len(found) >= limit:
            break
    return found


def edits(rx: Rx | Tx, rid: int, parent: str, sender: str, type: str, limit: int) -> list[int]:
    """Return the eids of replacements of one event by its own sender, the most recent first.

    Most recent is by `origin_server_ts`, then by event id ("Server-side aggregation of m.replace relationships").
    """
    sql = (
        f"SELECT e.eid FROM relation r JOIN event e ON e.eid=r.eid "
        f"WHERE r.parent_id=? AND +r.rid=? AND r.rel_type='m.replace' AND r.sender=? AND r.type=? AND e.sk IS NULL "
        f"AND {_LIVE} ORDER BY e.ts DESC, e.event_id DESC LIMIT ?"
    )
    return [int(row[0]) for row in rx.execute(sql, (parent, rid, sender, type, limit))]


def senders(rx: Rx | Tx, rid: int, parent: str, rel_type: str) -> dict[str, int]:
    """Return how many children of one kind each sender has under the parent."""
    sql = (
        f"SELECT r.sender, count(*) FROM relation r JOIN event e ON e.eid=r.eid "
        f"WHERE r.parent_id=? AND +r.rid=? AND r.rel_type=? AND {_LIVE} GROUP BY r.sender"
    )
    return dict(rx.execute(sql, (parent, rid, rel_type)).fetchall())


def threads(rx: Rx | Tx, rid: int, *, upto: int, participant: str | None, limit: int) -> list[tuple[str, int]]:
    """Return (root event id, position of its latest event <= `upto`), the most recently used thread first.

    With a `participant` only threads that this user started or answered in.
    """
    condition = ""
    args: tuple[str, ...] = ()
    if participant is not None:
        condition = (
            "AND (EXISTS (SELECT 1 FROM relation p JOIN event pe ON pe.eid=p.eid WHERE p.parent_id=t.root "
            "AND p.rel_type='m.thread' AND p.sender=? AND pe.redacted_by IS NULL) "
            "OR EXISTS (SELECT 1 FROM event o WHERE o.event_id=t.root AND o.sender=?))"
        )
        args = (participant, participant)
    sql = (
        f"SELECT t.root, t.latest FROM (SELECT r.parent_id AS root, max(e.pos) AS latest "
        f"FROM relation r JOIN event e ON e.eid=r.eid WHERE r.rid=? AND r.rel_type='m.thread' AND {_LIVE} "
        f"GROUP BY r.parent_id) t WHERE t.latest<=? {condition} ORDER BY t.latest DESC LIMIT ?"
    )
    return rx.execute(sql, (rid, upto, *args, limit)).fetchall()


def annotated(rx: Rx | Tx, parent: str, sender: str, key: str) -> bool:
    """Tell whether a user has annotated an event with this key before (and not taken it back)."""
    row = rx.execute(
        "SELECT 1 FROM relation WHERE parent_id=? AND rel_type='m.annotation' AND sender=? AND key=?",
        (parent, sender, key),
    ).fetchone()
    return row is not None

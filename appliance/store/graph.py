"""The room's graph beyond its timeline: outliers, gaps, tips, and events that wait for their predecessors.

An *outlier* is an event that is known but has no place in the timeline (`pos` NULL, `sid` NULL): the state of a room
that was joined through another server, and whatever authorises events. Rejected ones are kept as well, so that they
are judged once. A *gap* is a predecessor that we do not have, remembered with the event that names it; gaps are what
history is fetched from. Whatever has no gap row has no known successor either. `waiting` holds events that are
properly signed, but cannot be placed yet because nobody gives us what they stand on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import orjson

from appliance.matrix.event import Event
from appliance.store import events, state
from appliance.store.events import REJECTED, Row
from appliance.store.readers import Rx
from appliance.store.state import Key
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE gap (
    rid INTEGER NOT NULL,
    missing_id TEXT NOT NULL,
    eid INTEGER NOT NULL,
    next_try INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (rid, missing_id, eid)
) STRICT, WITHOUT ROWID;
CREATE INDEX gap_missing ON gap (missing_id);
CREATE TABLE waiting (
    event_id TEXT PRIMARY KEY,
    rid INTEGER NOT NULL,
    origin TEXT NOT NULL,
    tries INTEGER NOT NULL,
    next_try INTEGER NOT NULL,
    json BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX waiting_room ON waiting (rid, next_try);
"""


class Known(msgspec.Struct, frozen=True):
    """What is known of an event without reading it; `sid` None: it has no place in the graph (an outlier)."""

    eid: int
    pos: int | None
    sid: int | None
    flags: int
    depth: int


class Tip(msgspec.Struct, frozen=True):
    """A forward extremity and the snapshot of the state after it."""

    eid: int
    event_id: str
    depth: int
    sid: int


class Waiting(msgspec.Struct, frozen=True):
    """An event that could not be placed yet, as it came in from `origin`."""

    event_id: str
    origin: str
    tries: int
    json: bytes


def known(rx: Rx | Tx, event_ids: Iterable[str]) -> dict[str, Known]:
    """Return what is known of these events."""
    rows = rx.execute(
        "SELECT event_id, eid, pos, sid, flags, depth FROM event "
        "WHERE event_id IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        (orjson.dumps(list(event_ids)),),
    )
    return {row[0]: Known(*row[1:]) for row in rows}


def remarkable(rx: Rx | Tx, event_ids: Sequence[str]) -> set[str]:
    """Return those of the events of which anything is known already: the event, a successor, or its redaction."""
    wanted = orjson.dumps(list(event_ids))
    rows = rx.execute(
        "SELECT event_id FROM event WHERE event_id IN (SELECT value FROM json_each(CAST(?1 AS TEXT))) "
        "UNION SELECT missing_id FROM gap WHERE missing_id IN (SELECT value FROM json_each(CAST(?1 AS TEXT))) "
        "UNION SELECT target_id FROM pending_redaction "
        "WHERE target_id IN (SELECT value FROM json_each(CAST(?1 AS TEXT)))",
        (wanted,),
    )
    return {row[0] for row in rows}


def ids_of(rx: Rx | Tx, eids: Iterable[int]) -> dict[int, str]:
    """Spell short ids of events out."""
    rows = rx.execute(
        "SELECT eid, event_id FROM event WHERE eid IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        (orjson.dumps(list(eids)),)
    )
    return dict(rows.fetchall())


def eids_of(rx: Rx | Tx, event_ids: Iterable[str]) -> dict[str, int]:
    """Return the short ids of known events."""
    return {event_id: found.eid for event_id, found in known(rx, event_ids).items()}


# -- outliers -------------------------------------------------------------------------------------------------------


def add_outlier(tx: Tx, rid: int, event: Event, *, rejected: bool = False) -> int:
    """Keep an event outside of the timeline; one that is known stays as it is. Return its short id."""
    sk = state.key_id(tx, event.key) if event.state_key is not None else None
    row = tx.execute(
        "INSERT INTO event (event_id, rid, pos, type, sender, sk, ts, depth, sid, flags, redacts, json) "
        "VALUES (?, ?, NULL, ?, ?, ?, ?, ?, NULL, ?, ?, ?) ON CONFLICT (event_id) DO NOTHING RETURNING eid",
        (event.event_id, rid, event.type, event.sender, sk, event.origin_server_ts, event.depth,
         REJECTED if rejected else 0, event.redacts or "", event.raw),
    ).fetchone()
    if row is None:
        row = tx.execute("SELECT eid FROM event WHERE event_id=?", (event.event_id,)).fetchone()
    return int(row[0])


def add_state(tx: Tx, rid: int, base: int | None, wanted: Mapping[Key, int]) -> int:
    """Store a whole state (key -> eid) as its difference to the snapshot `base`; return its sid."""
    short = {state.key_id(tx, key): eid for key, eid in wanted.items()}
    if base is None:
        return state.add_snapshot(tx, rid, None, short)
    held = state.pairs(tx, base)
    changes = {sk: eid for sk, eid in short.items() if held.get(sk) != eid}
    changes.update({sk: 0 for sk in held if sk not in short})
    return state.add_snapshot(tx, rid, base, changes) if changes else base


def state_of(rx: Rx | Tx, rid: int, event_ids: Sequence[str]) -> dict[Key, int] | None:
    """Return the state (key -> eid) that these events form, rejected ones left out.

    None if one of them is unknown, of another room, no state, or if two claim the same key.
    """
    rows = rx.execute(
        "SELECT e.eid, e.flags, k.type, k.state_key FROM event e LEFT JOIN state_key k ON k.sk = e.sk "
        "WHERE e.rid=? AND e.event_id IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        (rid, orjson.dumps(list(event_ids))),
    ).fetchall()
    if len(rows) != len(set(event_ids)):
        return None
    standing = [row for row in rows if not row[1] & REJECTED]
    found = {(kind, state_key): eid for eid, _, kind, state_key in standing}
    return found if len(found) == len(standing) and all(kind is not None for kind, _ in found) else None


# -- tips and gaps --------------------------------------------------------------------------------------------------


def tips(rx: Rx | Tx, rid: int) -> list[Tip]:
    """Return the forward extremities of a room with their states, oldest first."""
    rows = rx.execute(
        "SELECT e.eid, e.event_id, e.depth, e.sid FROM tip t JOIN event e ON e.eid = t.eid WHERE t.rid=? "
        "ORDER BY e.eid",
        (rid,),
    )
    return [Tip(*row) for row in rows]


def set_tips(tx: Tx, rid: int, eids: Iterable[int]) -> None:
    """Make these events, and no others, the room's forward extremities."""
    tx.execute("DELETE FROM tip WHERE rid=?", (rid,))
    tx.executemany("INSERT INTO tip VALUES (?, ?)", [(rid, eid) for eid in eids])


def has_successor(rx: Rx | Tx, rid: int, event_id: str) -> bool:
    """Tell whether an event of the timeline already names this one, which we did not have, as its predecessor."""
    row = rx.execute(
        "SELECT 1 FROM gap g JOIN event e ON e.eid = g.eid WHERE g.rid=? AND g.missing_id=? AND e.flags=0 LIMIT 1",
        (rid, event_id),
    ).fetchone()
    return row is not None


def note_gaps(tx: Tx, rid: int, eid: int, missing: Iterable[str]) -> None:
    """Remember that predecessors of an event are missing."""
    tx.executemany("INSERT OR IGNORE INTO gap (rid, missing_id, eid) VALUES (?, ?, ?)",
                   [(rid, event_id, eid) for event_id in missing])


def close_gap(tx: Tx, rid: int, event_id: str) -> None:
    """The event has arrived; nobody misses it any more."""
    tx.execute("DELETE FROM gap WHERE rid=? AND missing_id=?", (rid, event_id))


def gaps(rx: Rx | Tx, rid: int, now: int, limit: int, *, upto: int = 2**62) -> list[str]:
    """Return missing predecessors that may be asked for now (milliseconds), those of the newest events first.

    `upto` leaves out the gaps above that position.
    """
    rows = rx.execute(
        "SELECT g.missing_id, max(e.pos) AS place FROM gap g JOIN event e ON e.eid = g.eid "
        "WHERE g.rid=? AND g.next_try<=? AND e.flags=0 AND e.pos<=? GROUP BY g.missing_id ORDER BY place DESC LIMIT ?",
        (rid, now, upto, limit),
    )
    return [row[0] for row in rows]


def put_off(tx: Tx, rid: int, missing: Iterable[str], until: int) -> None:
    """Nobody could fill these gaps; leave them alone until then (milliseconds)."""
    tx.executemany("UPDATE gap SET next_try=? WHERE rid=? AND missing_id=?",
                   [(until, rid, event_id) for event_id in missing])


def earliest(rx: Rx | Tx, rid: int) -> int:
    """Return the first position of the room's timeline, at most 0: what is older goes below it."""
    row = rx.execute("SELECT min(pos) FROM event WHERE rid=? AND pos IS NOT NULL", (rid,)).fetchone()
    return min(row[0] or 0, 0)


def reaches(rx: Rx | Tx, rid: int, upto: int, count: int) -> bool:
    """Tell whether the timeline has that many events at or below a position."""
    row = rx.execute(
        "SELECT count(*) FROM (SELECT 1 FROM event WHERE rid=? AND pos<=? AND flags=0 LIMIT ?)", (rid, upto, count)
    ).fetchone()
    return int(row[0]) >= count


def pending_redactions(rx: Rx | Tx, target_id: str) -> list[Row]:
    """Return the redactions that arrived before their target."""
    eids = rx.execute("SELECT eid FROM pending_redaction WHERE target_id=?", (target_id,)).fetchall()
    return list(events.by_eids(rx, [eid for (eid,) in eids]).values())


def auth_chain(rx: Rx | Tx, event_ids: Iterable[str], limit: int = 100_000) -> dict[str, Event]:
    """Return everything that authorises the events, directly or not, without the events themselves."""
    start = set(event_ids)
    found: dict[str, Event] = {}
    level = {parent for row in events.fetch(rx, start).values() for parent in row.event.auth_events}
    while level and len(found) < limit:
        rows = events.fetch(rx, level)
        found.update({event_id: row.event for event_id, row in rows.items()})
        level = {parent for row in rows.values() for parent in row.event.auth_events} - found.keys()
    return found


# -- events that wait -----------------------------------------------------------------------------------------------


def park(tx: Tx, rid: int, event: Event, origin: str, next_try: int, most: int) -> bool:
    """Keep an event that cannot be placed yet; False if the room has `most` of them waiting already."""
    count = tx.execute("SELECT count(*) FROM waiting WHERE rid=? AND event_id<>?", (rid, event.event_id)).fetchone()[0]
    if count >= most:
        return False
    tx.execute(
        "INSERT INTO waiting VALUES (?, ?, ?, 1, ?, ?) "
        "ON CONFLICT (event_id) DO UPDATE SET tries=tries+1, next_try=excluded.next_try",
        (event.event_id, rid, origin, next_try, event.raw),
    )
    return True


def unpark(tx: Tx, event_id: str) -> None:
    """The event has found its place, or never will."""
    tx.execute("DELETE FROM waiting WHERE event_id=?", (event_id,))


def parked(rx: Rx | Tx, rid: int, *, due: int, limit: int) -> list[Waiting]:
    """Return events of the room that wait, those to be tried again first; only those due by then (milliseconds)."""
    rows = rx.execute(
        "SELECT event_id, origin, tries, json FROM waiting WHERE rid=? AND next_try<=? ORDER BY next_try LIMIT ?",
        (rid, due, limit),
    )
    return [Waiting(*row) for row in rows]


def parked_on(rx: Rx | Tx, rid: int, event_id: str, limit: int) -> list[Waiting]:
    """Return events of the room that wait for this one: they name it as a predecessor or auth event."""
    rows = rx.execute(
        "SELECT w.event_id, w.origin, w.tries, w.json FROM waiting w WHERE w.rid=?1 AND ("
        "EXISTS (SELECT 1 FROM json_each(CAST(w.json AS TEXT), '$.prev_events') WHERE value=?2) OR "
        "EXISTS (SELECT 1 FROM json_each(CAST(w.json AS TEXT), '$.auth_events') WHERE value=?2)) LIMIT ?3",
        (rid, event_id, limit),
    )
    return [Waiting(*row) for row in rows]


def parked_one(rx: Rx | Tx, event_id: str) -> Waiting | None:
    """Return an event that waits, None if it does not."""
    row = rx.execute("SELECT event_id, origin, tries, json FROM waiting WHERE event_id=?", (event_id,)).fetchone()
    return Waiting(*row) if row else None


def rooms_with_parked(rx: Rx | Tx) -> list[int]:
    """Return the rooms in which events wait."""
    return [row[0] for row in rx.execute("SELECT DISTINCT rid FROM waiting")]

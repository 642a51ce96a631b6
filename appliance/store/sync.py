"""Questions that only a sync asks: what of somebody's rooms changed in a stretch of the stream."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import orjson

from appliance.store.readers import Rx


def position(rx: Rx) -> int:
    """Return the stream position that this read sees."""
    return int(rx.execute("SELECT pos FROM stream").fetchone()[0])


def active_rooms(rx: Rx, user_id: str, after: int, upto: int) -> set[int]:
    """Return the rooms (rid) the user is joined to in which an event or a receipt arrived in (after, upto]."""
    rows = rx.execute(
        "SELECT m.rid FROM membership m WHERE m.user_id=?1 AND m.membership='join' AND ("
        " EXISTS (SELECT 1 FROM event e WHERE e.rid = m.rid AND e.pos>?2 AND e.pos<=?3)"
        " OR EXISTS (SELECT 1 FROM receipt r WHERE r.rid = m.rid AND r.pos>?2 AND r.pos<=?3))",
        (user_id, after, upto),
    )
    return {row[0] for row in rows}


def last_positions(rx: Rx, user_id: str) -> dict[int, int]:
    """Return the position of the newest event of every room (rid) in which the user has a membership."""
    rows = rx.execute(
        "SELECT m.rid, (SELECT max(e.pos) FROM event e WHERE e.rid = m.rid AND e.pos IS NOT NULL) FROM membership m "
        "WHERE m.user_id=? AND m.forgotten=0",
        (user_id,),
    )
    return {rid: pos for rid, pos in rows if pos is not None}


def last_of_types(rx: Rx, rid: int, types: Collection[str], look: int) -> int | None:
    """Return the position of the newest event of one of the types among the `look` newest of the room, or None."""
    row = rx.execute(
        "SELECT max(pos) FROM (SELECT pos, type FROM event WHERE rid=? AND pos IS NOT NULL AND flags=0 "
        "ORDER BY pos DESC LIMIT ?) WHERE type IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        (rid, look, orjson.dumps(list(types))),
    ).fetchone()
    return None if row[0] is None else int(row[0])


def member_counts(rx: Rx, rid: int) -> tuple[int, int]:
    """Return how many people are joined to and invited into a room."""
    rows = rx.execute(
        "SELECT membership, count(*) FROM membership WHERE rid=? AND membership IN ('join', 'invite') "
        "GROUP BY membership",
        (rid,),
    )
    counts = dict(rows.fetchall())
    return counts.get("join", 0), counts.get("invite", 0)


def heroes(rx: Rx, rid: int, user_id: str, limit: int = 5) -> list[tuple[str, int]]:
    """Return who stands for a nameless room as (user id, eid of the membership event), without the user themself.

    The first joined and invited people by position; if there are none, those who left or were banned.
    """
    for kinds in ("'join', 'invite'", "'leave', 'ban'"):
        found = rx.execute(
            f"SELECT user_id, eid FROM membership WHERE rid=? AND membership IN ({kinds}) AND user_id<>? "
            "ORDER BY pos LIMIT ?",
            (rid, user_id, limit),
        ).fetchall()
        if found:
            return [(row[0], row[1]) for row in found]
    return []


def member_eids(rx: Rx, rid: int, users: Iterable[str]) -> dict[str, int]:
    """Return the newest membership events (eid) of people in a room."""
    rows = rx.execute(
        "SELECT user_id, eid FROM membership WHERE rid=? AND user_id IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        (rid, orjson.dumps(list(users))),
    )
    return dict(rows.fetchall())


def device_changes(rx: Rx, viewer: str, after: int, upto: int) -> set[str]:
    """Return everybody whose devices or keys changed in (after, upto], in the eyes of `viewer`."""
    rows = rx.execute(
        "SELECT DISTINCT user_id FROM device_list_change WHERE pos>? AND pos<=? AND (viewer IS NULL OR viewer=?)",
        (after, upto, viewer),
    )
    return {row[0] for row in rows}


def members_moved(rx: Rx, user_id: str, rids: Collection[int], after: int) -> list[tuple[int, str, str]]:
    """Return whose membership event in these rooms is newer than a position, as (rid, user id, membership).

    A new display name counts; the user themself does not.
    """
    return rx.execute(
        "SELECT rid, user_id, membership FROM membership "
        "WHERE rid IN (SELECT value FROM json_each(CAST(? AS TEXT))) AND pos>? AND user_id<>?",
        (orjson.dumps(list(rids)), after, user_id),
    ).fetchall()


def joined_members(rx: Rx, rids: Collection[int]) -> set[str]:
    """Return everybody joined to any of these rooms."""
    rows = rx.execute(
        "SELECT DISTINCT user_id FROM membership "
        "WHERE membership='join' AND rid IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        (orjson.dumps(list(rids)),),
    )
    return {row[0] for row in rows}


def sharing_before(rx: Rx, user_id: str, others: Collection[str], pos: int) -> set[str]:
    """Return those of `others` who share a room with the user in which neither's membership changed after `pos`."""
    rows = rx.execute(
        "SELECT DISTINCT o.user_id FROM membership m JOIN membership o ON o.rid = m.rid AND o.membership='join' "
        "AND o.pos<=?1 WHERE m.user_id=?2 AND m.membership='join' AND m.pos<=?1 "
        "AND o.user_id IN (SELECT value FROM json_each(CAST(?3 AS TEXT)))",
        (pos, user_id, orjson.dumps(list(others))),
    )
    return {row[0] for row in rows}

"""Questions that only a sliding sync asks: facts about all of somebody's rooms at once, by which lists are filtered."""

from __future__ import annotations

from collections.abc import Collection

import orjson

from appliance.store.readers import Rx

_KEY = "(SELECT sk FROM state_key WHERE type='%s' AND state_key='')"


def encrypted(rx: Rx, user_id: str) -> set[int]:
    """Return the rooms (rid) with an encryption event in their state in which the user has a membership."""
    rows = rx.execute(
        "SELECT m.rid FROM membership m JOIN current_state c ON c.rid = m.rid "
        f"AND c.sk = {_KEY % 'm.room.encryption'} WHERE m.user_id=?",
        (user_id,),
    )
    return {row[0] for row in rows}


def room_types(rx: Rx, user_id: str) -> dict[int, str | None]:
    """Return the type of every room (rid) in which the user has a membership, None for an ordinary one."""
    rows = rx.execute(
        "SELECT m.rid, json_extract(CAST(e.json AS TEXT), '$.content.type') FROM membership m "
        f"JOIN current_state c ON c.rid = m.rid AND c.sk = {_KEY % 'm.room.create'} JOIN event e ON e.eid = c.eid "
        "WHERE m.user_id=?",
        (user_id,),
    )
    return {rid: kind if isinstance(kind, str) else None for rid, kind in rows}


def tags(rx: Rx, user_id: str) -> list[tuple[str, bytes]]:
    """Return the user's tags as (room id, content)."""
    return rx.execute(
        "SELECT room_id, content FROM account_data WHERE user_id=? AND type='m.tag' AND room_id<>''", (user_id,)
    ).fetchall()


def space_children(rx: Rx, rids: Collection[int]) -> set[str]:
    """Return the rooms (room id) that any of these spaces names as a child in a valid way."""
    rows = rx.execute(
        "SELECT k.state_key FROM current_state c JOIN state_key k ON k.sk = c.sk JOIN event e ON e.eid = c.eid "
        "WHERE c.rid IN (SELECT value FROM json_each(CAST(? AS TEXT))) AND k.type='m.space.child' "
        "AND json_type(CAST(e.json AS TEXT), '$.content.via') = 'array'",
        (orjson.dumps(list(rids)),),
    )
    return {row[0] for row in rows}


def room_account_data(rx: Rx, user_id: str, after: int) -> list[tuple[str, str, bytes, int]]:
    """Return the user's account data of rooms newer than a position as (room id, type, content, position)."""
    return rx.execute(
        "SELECT room_id, type, content, pos FROM account_data WHERE user_id=? AND pos>? AND room_id<>'' ORDER BY pos",
        (user_id, after),
    ).fetchall()


def last_receipts(rx: Rx, rids: Collection[int], after: int) -> dict[int, int]:
    """Return those of the rooms (rid) with a receipt newer than a position, and the position of the newest."""
    rows = rx.execute(
        "SELECT j.value, (SELECT max(r.pos) FROM receipt r WHERE r.rid = j.value) AS last "
        "FROM json_each(CAST(? AS TEXT)) j "
        "WHERE last > ?",
        (orjson.dumps(list(rids)), after),
    )
    return dict(rows.fetchall())

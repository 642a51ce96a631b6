"""Rooms and who is in them.

`room.rid` is the short id used by every other table. `room.sid` is the snapshot of the current state (see state.py).
`membership` has one row per user and room, local or remote, with the newest membership event in the current state and
the stream position of that change; `stripped` keeps what an invited or knocking person may know of a room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec
import orjson

from appliance.matrix.ids import RoomId, UserId
from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE room (
    rid INTEGER PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL,
    sid INTEGER
) STRICT;
CREATE TABLE membership (
    user_id TEXT NOT NULL,
    rid INTEGER NOT NULL,
    membership TEXT NOT NULL,
    eid INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    forgotten INTEGER NOT NULL DEFAULT 0,
    server TEXT GENERATED ALWAYS AS (substr(user_id, instr(user_id, ':') + 1)) VIRTUAL,
    PRIMARY KEY (user_id, rid)
) STRICT, WITHOUT ROWID;
CREATE INDEX membership_room ON membership (rid, membership, server);
CREATE TABLE stripped (
    user_id TEXT NOT NULL,
    rid INTEGER NOT NULL,
    json BLOB NOT NULL,
    PRIMARY KEY (user_id, rid)
) STRICT, WITHOUT ROWID;
CREATE TABLE alias (
    alias TEXT PRIMARY KEY,
    rid INTEGER NOT NULL,
    creator TEXT NOT NULL,
    ts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_room ON alias (rid);
CREATE TABLE public_room (
    rid INTEGER PRIMARY KEY
) STRICT;
"""


class RoomRow(msgspec.Struct, frozen=True):
    """A room this server knows; `sid` is the snapshot of its current state (None: known only by an invite)."""

    rid: int
    room_id: RoomId
    version: str
    sid: int | None


class Membership(msgspec.Struct, frozen=True):
    """Where one user stands in one room: the newest membership event (`eid`) and when it took effect (`pos`)."""

    user_id: UserId
    rid: int
    room_id: RoomId
    membership: str
    eid: int
    pos: int
    forgotten: bool


def insert(tx: Tx, room_id: RoomId, version: str) -> int:
    """Give a new room its short id."""
    cursor = tx.execute("INSERT INTO room (room_id, version) VALUES (?, ?) RETURNING rid", (room_id, version))
    return int(cursor.fetchone()[0])


def find(rx: Rx | Tx, room_id: str) -> RoomRow | None:
    """Look a room up by its id."""
    row = rx.execute("SELECT rid, room_id, version, sid FROM room WHERE room_id=?", (room_id,)).fetchone()
    return RoomRow(*row) if row else None


def by_rid(rx: Rx | Tx, rids: Iterable[int]) -> dict[int, RoomRow]:
    """Look rooms up by their short ids."""
    rows = rx.execute(
        "SELECT rid, room_id, version, sid FROM room WHERE rid IN (SELECT value FROM json_each(CAST(? AS TEXT)))",
        (orjson.dumps(list(rids)),),
    )
    return {row[0]: RoomRow(*row) for row in rows}


_MEMBERSHIP = """
SELECT m.user_id, m.rid, r.room_id, m.membership, m.eid, m.pos, m.forgotten
FROM membership m JOIN room r ON r.rid = m.rid
"""


def membership(rx: Rx | Tx, user_id: str, rid: int) -> Membership | None:
    """Return where `user_id` stands in the room, None if never there."""
    row = rx.execute(_MEMBERSHIP + "WHERE m.user_id=? AND m.rid=?", (user_id, rid)).fetchone()
    return _membership(row) if row else None


def memberships(rx: Rx, user_id: str) -> list[Membership]:
    """Return every room in which `user_id` has or had a membership, forgotten ones included."""
    return [_membership(row) for row in rx.execute(_MEMBERSHIP + "WHERE m.user_id=?", (user_id,))]


def members(rx: Rx | Tx, rid: int, *kinds: str) -> list[Membership]:
    """Return the members of a room with one of the given memberships (all, if none is given)."""
    if not kinds:
        return [_membership(row) for row in rx.execute(_MEMBERSHIP + "WHERE m.rid=?", (rid,))]
    query = _MEMBERSHIP + "WHERE m.rid=? AND m.membership IN (SELECT value FROM json_each(CAST(? AS TEXT)))"
    return [_membership(row) for row in rx.execute(query, (rid, orjson.dumps(kinds)))]


def _membership(row: tuple[str, int, str, str, int, int, int]) -> Membership:
    return Membership(UserId(row[0]), row[1], RoomId(row[2]), row[3], row[4], row[5], bool(row[6]))


def set_membership(tx: Tx, user_id: str, rid: int, kind: str, eid: int, pos: int) -> None:
    """Record the newest membership event of a user; coming back undoes a `forget`."""
    tx.execute(
        "INSERT INTO membership (user_id, rid, membership, eid, pos) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT (user_id, rid) DO UPDATE SET membership=excluded.membership, eid=excluded.eid, pos=excluded.pos, "
        "forgotten=CASE WHEN excluded.membership IN ('leave', 'ban') THEN forgotten ELSE 0 END",
        (user_id, rid, kind, eid, pos),
    )


def forget(tx: Tx, user_id: str, rid: int) -> None:
    """Hide a left room from its former member for good (until a new invitation)."""
    tx.execute("UPDATE membership SET forgotten=1 WHERE user_id=? AND rid=?", (user_id, rid))
    tx.execute("DELETE FROM stripped WHERE user_id=? AND rid=?", (user_id, rid))
    tx.next_pos()
    tx.wake_user(user_id)


def set_stripped(tx: Tx, user_id: str, rid: int, state: Sequence[Mapping[str, object]]) -> None:
    """Keep the stripped state shown with an invitation or a knock."""
    tx.execute("INSERT OR REPLACE INTO stripped VALUES (?, ?, ?)", (user_id, rid, orjson.dumps(state)))


def stripped(rx: Rx, user_id: str, rid: int) -> list[dict[str, object]]:
    """Return the stripped state an invited or knocking user may see."""
    row = rx.execute("SELECT json FROM stripped WHERE user_id=? AND rid=?", (user_id, rid)).fetchone()
    return list(orjson.loads(row[0])) if row else []


def add_alias(tx: Tx, alias: str, rid: int, creator: str, ts: int) -> bool:
    """Let an alias point to a room; False if it is taken."""
    cursor = tx.execute("INSERT OR IGNORE INTO alias VALUES (?, ?, ?, ?)", (alias, rid, creator, ts))
    return cursor.rowcount == 1


def alias_target(rx: Rx | Tx, alias: str) -> RoomRow | None:
    """Return the room to which a local alias points."""
    row = rx.execute(
        "SELECT r.rid, r.room_id, r.version, r.sid FROM alias a JOIN room r ON r.rid = a.rid WHERE a.alias=?", (alias,)
    ).fetchone()
    return RoomRow(*row) if row else None


def move_aliases(tx: Tx, rid: int, new_rid: int) -> None:
    """Let all aliases of a room, and its place in the public directory, pass to its successor."""
    tx.execute("UPDATE alias SET rid=? WHERE rid=?", (new_rid, rid))
    if tx.execute("DELETE FROM public_room WHERE rid=?", (rid,)).rowcount:
        publish(tx, new_rid)


def publish(tx: Tx, rid: int) -> None:
    """List a room in the public directory."""
    tx.execute("INSERT OR IGNORE INTO public_room VALUES (?)", (rid,))


def shares_room(rx: Rx, one: str, other: str) -> bool:
    """Tell whether two users are joined to a common room."""
    row = rx.execute(
        "SELECT 1 FROM membership a JOIN membership b ON b.rid = a.rid AND b.user_id=? AND b.membership='join' "
        "WHERE a.user_id=? AND a.membership='join' LIMIT 1",
        (other, one),
    ).fetchone()
    return row is not None


def users_sharing(rx: Rx | Tx, user_id: str) -> set[str]:
    """Return everybody joined to a room to which `user_id` is joined (without that user)."""
    rows = rx.execute(
        "SELECT DISTINCT b.user_id FROM membership a JOIN membership b ON b.rid = a.rid AND b.membership='join' "
        "WHERE a.user_id=? AND a.membership='join'",
        (user_id,),
    )
    return {row[0] for row in rows} - {user_id}

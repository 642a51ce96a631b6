"""Aliases, the public directory, and whom a user may find. The tables are those of rooms.py and profiles.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from appliance.store.readers import Rx
from appliance.store.writer import Tx

MAX_ALIASES = 1_000


@dataclass(frozen=True, slots=True)
class Alias:
    """A local alias: the room it points to and who made it."""

    alias: str
    rid: int
    creator: str


def alias(rx: Rx | Tx, alias: str) -> Alias | None:
    """Return a local alias, or None."""
    row = rx.execute("SELECT alias, rid, creator FROM alias WHERE alias=?", (alias,)).fetchone()
    return Alias(*row) if row else None


def aliases_of(rx: Rx | Tx, rid: int) -> list[str]:
    """Return the local aliases of a room, by name."""
    rows = rx.execute("SELECT alias FROM alias WHERE rid=? ORDER BY alias LIMIT ?", (rid, MAX_ALIASES))
    return [row[0] for row in rows]


def remove_alias(tx: Tx, alias: str) -> None:
    """Free an alias."""
    tx.execute("DELETE FROM alias WHERE alias=?", (alias,))


def is_published(rx: Rx | Tx, rid: int) -> bool:
    """Tell whether a room is listed in the public directory."""
    return rx.execute("SELECT 1 FROM public_room WHERE rid=?", (rid,)).fetchone() is not None


def withdraw(tx: Tx, rid: int) -> None:
    """Take a room out of the public directory."""
    tx.execute("DELETE FROM public_room WHERE rid=?", (rid,))


def published(rx: Rx) -> list[tuple[int, int]]:
    """Return every listed room as (rid, joined members), the largest first, the older first among equals."""
    return rx.execute(
        "SELECT p.rid, (SELECT count(*) FROM membership m WHERE m.rid=p.rid AND m.membership='join') AS joined "
        "FROM public_room p ORDER BY joined DESC, p.rid"
    ).fetchall()


def joined_count(rx: Rx, rid: int) -> int:
    """Return how many people, local or not, are joined to a room."""
    row = rx.execute("SELECT count(*) FROM membership WHERE rid=? AND membership='join'", (rid,)).fetchone()
    return int(row[0])


def servers_of(rx: Rx, rid: int, limit: int) -> list[str]:
    """Return the servers with somebody joined to a room, those with most people first."""
    rows = rx.execute(
        "SELECT substr(user_id, instr(user_id, ':') + 1) AS server, count(*) AS people FROM membership "
        "WHERE rid=? AND membership='join' GROUP BY server ORDER BY people DESC, server LIMIT ?",
        (rid, limit),
    )
    return [row[0] for row in rows]


# -- people ----------------------------------------------------------------------------------------------------------


def local_people(rx: Rx) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield every active local account as (user id, display name, avatar)."""
    yield from rx.execute(
        "SELECT p.user_id, p.display_name, p.avatar_url FROM profile p JOIN account a ON a.user_id=p.user_id "
        "WHERE a.deactivated=0"
    )


def account_exists(rx: Rx | Tx, user_id: str) -> bool:
    """Tell whether a local account of this id exists, deactivated ones included."""
    return rx.execute("SELECT 1 FROM account WHERE user_id=?", (user_id,)).fetchone() is not None


def foreign_people(
    rx: Rx, user_id: str, server: str, limit: int
) -> Iterator[tuple[str, str | None, str | None]]:
    """Yield people of other servers that share a room with the user or are in a public one, as their rooms show them.

    Each as (user id, display name, avatar), at most `limit` memberships; the same person may come several times.
    """
    yield from rx.execute(
        "WITH open (rid) AS (SELECT rid FROM membership WHERE user_id=?1 AND membership='join' "
        "UNION SELECT rid FROM public_room) "
        "SELECT m.user_id, json_extract(CAST(e.json AS TEXT), '$.content.displayname'), "
        "json_extract(CAST(e.json AS TEXT), '$.content.avatar_url') "
        "FROM open CROSS JOIN membership m ON m.rid=open.rid AND m.membership='join' JOIN event e ON e.eid=m.eid "
        "WHERE substr(m.user_id, instr(m.user_id, ':') + 1) <> ?2 LIMIT ?3",
        (user_id, server, limit),
    )

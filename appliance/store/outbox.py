"""The outbox: what is owed to other servers, row by row, written in the transaction of what it tells about.

A row names an event or carries an EDU; its place is the stream position at which it was written, so that a peer gets
everything in the order in which it happened. A transaction to a peer is a prefix of its rows (`outbox_flight` holds
where it ends): until the peer has answered, the same prefix goes out again under the same id, after a restart as well.
`outbox_peer` has a row only for peers that fail at the moment.

Source: server-server API, "Transactions".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
import orjson

from appliance.matrix.ids import server_of
from appliance.store import device_lists, rooms
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE outbox (
    peer TEXT NOT NULL,
    pos INTEGER NOT NULL,
    eid INTEGER,
    edu BLOB,
    key TEXT,
    PRIMARY KEY (peer, pos)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_key ON outbox (peer, key) WHERE key IS NOT NULL;
CREATE TABLE outbox_flight (
    peer TEXT PRIMARY KEY,
    txn TEXT NOT NULL,
    ts INTEGER NOT NULL,
    upto INTEGER NOT NULL,
    edus BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox_peer (
    peer TEXT PRIMARY KEY,
    failures INTEGER NOT NULL,
    retry_at INTEGER NOT NULL,
    refused INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
"""

MOST_PDUS: Final = 50
MOST_EDUS: Final = 100
MOST_ROWS: Final = MOST_PDUS + MOST_EDUS
MOST_BYTES: Final = 4 * 1024 * 1024
"""Of one transaction, unless a single row is larger."""


class Flight(msgspec.Struct, frozen=True):
    """One transaction to a peer: PDUs and EDUs as JSON bytes, in order. `upto` is the last row in it (0: none)."""

    peer: str
    txn: str
    ts: int
    upto: int
    pdus: Sequence[bytes]
    edus: Sequence[bytes]


class Trouble(msgspec.Struct, frozen=True):
    """A peer that fails: how often in a row, when to try again (milliseconds), and whether it said no."""

    failures: int
    retry_at: int
    refused: bool = False


# -- owing ----------------------------------------------------------------------------------------------------------


def owe_event(tx: Tx, eid: int, pos: int, peers: Iterable[str]) -> None:
    """Owe an event to peers."""
    for peer in peers:
        tx.execute("INSERT OR IGNORE INTO outbox (peer, pos, eid) VALUES (?, ?, ?)", (peer, pos, eid))
        tx.wake_peer(peer)


def owe(tx: Tx, row: Row, owed: Iterable[str], home: str | None) -> None:
    """Owe a new event, before the room's state moves on, to the servers `owed`.

    `home`, our own name, says that the event is one of ours: then it is owed to every other server with joined users
    in the state before it, and to that of its subject.
    """
    event, peers = row.event, set(owed)
    if home is not None:
        peers.update(servers_in(tx, row.rid, home))
        if event.type == "m.room.member" and event.state_key is not None:
            if peers and event.content.get("membership") == "join" and server_of(event.state_key) == home:
                _greet(tx, row.rid, event.state_key)
            peers.add(server_of(event.state_key))
        peers.discard(home)
    if peers and row.pos is not None:
        owe_event(tx, row.eid, row.pos, sorted(peers))


def _greet(tx: Tx, rid: int, user_id: str) -> None:
    """Whoever comes into a room may meet servers that hold an outdated list of their devices."""
    before = rooms.membership(tx, user_id, rid)
    if before is None or before.membership != "join":
        device_lists.tell_again(tx, user_id)


def owe_edu(tx: Tx, edu: bytes, peers: Iterable[str], key: str | None = None) -> None:
    """Owe an EDU to peers; with a `key` it takes the place of an older one of that key that has not gone out yet."""
    targets = list(peers)
    if not targets:
        return
    pos = tx.next_pos()
    for peer in targets:
        if key is not None:
            tx.execute(
                "DELETE FROM outbox WHERE peer=?1 AND key=?2 "
                "AND pos>ifnull((SELECT upto FROM outbox_flight WHERE peer=?1), 0)",
                (peer, key),
            )
        tx.execute("INSERT INTO outbox (peer, pos, edu, key) VALUES (?, ?, ?, ?)", (peer, pos, edu, key))
        tx.wake_peer(peer)


def servers_in(rx: Rx | Tx, rid: int, home: str) -> list[str]:
    """Return the servers, other than `home`, with joined users in a room. One step in the index for each of them."""
    rows = rx.execute(
        "WITH RECURSIVE s (name) AS ("
        "SELECT min(server) FROM membership WHERE rid=?1 AND membership='join' UNION ALL "
        "SELECT (SELECT min(server) FROM membership WHERE rid=?1 AND membership='join' AND server>s.name) "
        "FROM s WHERE s.name IS NOT NULL) SELECT name FROM s WHERE name IS NOT NULL AND name<>?2",
        (rid, home),
    )
    return [row[0] for row in rows]


def servers_of(rx: Rx | Tx, user_id: str, home: str) -> set[str]:
    """Return the servers, other than `home`, that share a room with a user."""
    rids = rx.execute("SELECT rid FROM membership WHERE user_id=? AND membership='join'", (user_id,)).fetchall()
    return {server for (rid,) in rids for server in servers_in(rx, rid, home)}


# -- sending --------------------------------------------------------------------------------------------------------


def turn(
    tx: Tx, peer: str, done: Flight | None, passing: Sequence[bytes], now: int, most: int = MOST_ROWS
) -> Flight | None:
    """Strike what the peer has answered (`done`) and fix the next transaction; None when nothing is owed.

    `passing` are EDUs that no row holds; they fill up what room there is. `most` bounds the rows of a new transaction.
    """
    if done is not None:
        tx.execute("DELETE FROM outbox WHERE peer=? AND pos<=?", (peer, done.upto))
        tx.execute("DELETE FROM outbox_flight WHERE peer=?", (peer,))
        tx.execute("DELETE FROM outbox_peer WHERE peer=?", (peer,))
    held = tx.execute("SELECT txn, ts, upto, edus FROM outbox_flight WHERE peer=?", (peer,)).fetchone()
    if held is not None:
        pdus, edus, _ = _rows(tx, peer, held[2], MOST_ROWS)
        return Flight(peer, held[0], held[1], held[2], pdus, [*edus, *map(orjson.dumps, orjson.loads(held[3]))])
    pdus, edus, upto = _rows(tx, peer, 2**62, most)
    more = list(passing[: MOST_EDUS - len(edus)])
    if not upto and not more:
        return None
    txn = f"{_epoch(tx)}.{tx.next_pos()}"
    if upto:
        tx.execute(
            "INSERT INTO outbox_flight VALUES (?, ?, ?, ?, ?)", (peer, txn, now, upto, b"[" + b",".join(more) + b"]")
        )
    return Flight(peer, txn, now, upto, pdus, [*edus, *more])


def _epoch(tx: Tx) -> str:
    """Return a word that differs from file to file, so that a restored copy does not repeat ids it never sent."""
    row = tx.execute("SELECT event_id FROM event ORDER BY eid DESC LIMIT 1").fetchone()
    return hashlib.sha256(row[0].encode()).hexdigest()[:8] if row else "0"


def _rows(tx: Tx, peer: str, upto: int, most: int) -> tuple[list[bytes], list[bytes], int]:
    """Return PDUs, EDUs and the place of the last row: as many as go into a transaction, at most `most`."""
    pdus: list[bytes] = []
    edus: list[bytes] = []
    size = last = 0
    rows = tx.execute(
        "SELECT o.pos, o.edu, e.json FROM outbox o LEFT JOIN event e ON e.eid=o.eid "
        "WHERE o.peer=? AND o.pos<=? ORDER BY o.pos LIMIT ?",
        (peer, upto, most),
    )
    for pos, edu, pdu in rows:
        raw = pdu if edu is None else edu
        if raw is not None:  # None: an event that was purged meanwhile
            size += len(raw)
            if last and (len(pdus) == MOST_PDUS or len(edus) == MOST_EDUS or size > MOST_BYTES):
                break
            (pdus if edu is None else edus).append(bytes(raw))
        last = pos
    return pdus, edus, last


def abandon(tx: Tx, peer: str) -> None:
    """Take a transaction apart that the peer refuses as a whole; its rows stay owed."""
    tx.execute("DELETE FROM outbox_flight WHERE peer=?", (peer,))


def peers(rx: Rx) -> dict[str, Trouble]:
    """Return every peer to which something is owed, and what trouble it makes (none: zeros)."""
    rows = rx.execute(
        "WITH RECURSIVE p (name) AS (SELECT min(peer) FROM outbox UNION ALL "
        "SELECT (SELECT min(peer) FROM outbox WHERE peer>p.name) FROM p WHERE p.name IS NOT NULL) "
        "SELECT p.name, ifnull(t.failures, 0), ifnull(t.retry_at, 0), ifnull(t.refused, 0) "
        "FROM p LEFT JOIN outbox_peer t ON t.peer=p.name WHERE p.name IS NOT NULL"
    )
    return {name: Trouble(failures, retry_at, bool(refused)) for name, failures, retry_at, refused in rows}


def set_trouble(tx: Tx, peer: str, trouble: Trouble) -> None:
    """Remember that a peer fails."""
    tx.execute(
        "INSERT OR REPLACE INTO outbox_peer VALUES (?, ?, ?, ?)",
        (peer, trouble.failures, trouble.retry_at, int(trouble.refused)),
    )


def owed(rx: Rx, peer: str) -> int:
    """Return how many rows are owed to a peer."""
    return int(rx.execute("SELECT count(*) FROM outbox WHERE peer=?", (peer,)).fetchone()[0])

"""The full-text index over unencrypted messages, room names and topics.

One FTS5 row per event, under the event's eid: `body` is the text, `scope` two words that narrow a search down inside
the index: `r<rid>` for the room and `kb`, `kn` or `kt` for body, name or topic. Accents and case do not matter.

The index follows the events with a cursor (`advance`), never in the transaction of a message. A redaction takes the
text out when the cursor passes it; until then, every question here leaves redacted events out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson

from appliance.store.readers import Rx
from appliance.store.timeline import HIDDEN
from appliance.store.writer import Tx

TABLES = """
CREATE VIRTUAL TABLE search_text USING fts5 (scope, body, tokenize='unicode61 remove_diacritics 2');
CREATE TABLE search_cursor (eid INTEGER NOT NULL) STRICT;
INSERT INTO search_cursor VALUES (0);
"""

BODY, NAME, TOPIC = "kb", "kn", "kt"
_KINDS = {"m.room.message": BODY, "m.room.name": NAME, "m.room.topic": TOPIC}
_LIVE = f"e.pos IS NOT NULL AND e.redacted_by IS NULL AND e.flags&{HIDDEN}=0"


def behind(rx: Rx) -> bool:
    """Tell whether there are events that the cursor has not passed."""
    row = rx.execute("SELECT (SELECT max(eid) FROM event) > (SELECT eid FROM search_cursor)").fetchone()
    return bool(row[0])


def advance(tx: Tx, most: int) -> bool:
    """Move the cursor over at most `most` events, indexing and unindexing; True if there are more."""
    cursor = int(tx.execute("SELECT eid FROM search_cursor").fetchone()[0])
    last = int(tx.execute("SELECT coalesce(max(eid), 0) FROM event").fetchone()[0])
    upto = min(cursor + most, last)
    found = tx.execute(
        "SELECT eid, rid, type, redacted_by, json FROM event WHERE eid>? AND eid<=? AND flags=0 "
        "AND type IN ('m.room.message', 'm.room.name', 'm.room.topic', 'm.room.redaction')",
        (cursor, upto),
    ).fetchall()
    for eid, rid, type, redacted_by, raw in found:
        pdu = orjson.loads(raw)
        if type == "m.room.redaction":
            _unindex(tx, pdu)
        elif redacted_by is None:
            _index(tx, eid, rid, _KINDS[type], text_of(type, pdu["content"]))
    tx.execute("UPDATE search_cursor SET eid=?", (upto,))
    return upto < last


def _index(tx: Tx, eid: int, rid: int, kind: str, text: str) -> None:
    if text:
        tx.execute("INSERT INTO search_text (rowid, scope, body) VALUES (?,?,?)", (eid, f"r{rid} {kind}", text))


def _unindex(tx: Tx, redaction: Mapping[str, Any]) -> None:
    target = redaction["content"].get("redacts", redaction.get("redacts"))
    if isinstance(target, str):
        tx.execute(
            "DELETE FROM search_text WHERE rowid=(SELECT eid FROM event WHERE event_id=? AND redacted_by IS NOT NULL)",
            (target,),
        )


def text_of(type: str, content: Mapping[str, Any]) -> str:
    """Return the searchable text of an event's content, empty if it has none."""
    field = {"m.room.message": "body", "m.room.name": "name"}.get(type, "topic")
    parts = [content.get(field)]
    block = content.get("m.topic") if type == "m.room.topic" else None
    texts = block.get("m.text") if isinstance(block, dict) else None
    for text in texts[:20] if isinstance(texts, list) else []:
        if isinstance(text, dict) and text.get("mimetype", "text/plain") == "text/plain":
            parts.append(text.get("body"))
    return "\n".join(dict.fromkeys(part for part in parts if isinstance(part, str) and part))


class Question(msgspec.Struct, frozen=True):
    """A search: an FTS5 expression over `body`, the rooms and kinds of text to look at.

    `recent` orders by time and goes on below position `before`; otherwise the best come first and `skip` are left out.
    """

    words: str
    rids: Sequence[int]
    kinds: Sequence[str]
    recent: bool
    skip: int = 0
    before: int = 2**62

    @property
    def expression(self) -> str:
        """The whole FTS5 query."""
        rooms = " OR ".join(f"r{rid}" for rid in self.rids)
        return f"scope : ({rooms}) AND scope : ({' OR '.join(self.kinds)}) AND body : ({self.words})"


def find(rx: Rx, question: Question, limit: int) -> list[tuple[int, int, float]]:
    """Return up to `limit` matches as (eid, position, rank); a higher rank is a better match."""
    order = "e.pos DESC" if question.recent else "score DESC, e.pos DESC"
    sql = (
        "SELECT e.eid, e.pos, -bm25(search_text, 0.0, 1.0) AS score FROM search_text JOIN event e "
        f"ON e.eid=search_text.rowid WHERE search_text MATCH ? AND e.pos<? AND {_LIVE} "
        f"ORDER BY {order} LIMIT ? OFFSET ?"
    )
    return rx.execute(sql, (question.expression, question.before, limit, question.skip)).fetchall()


def count(rx: Rx, question: Question, most: int) -> int:
    """Return how many events match, counted up to `most`."""
    sql = (
        "SELECT count(*) FROM (SELECT 1 FROM search_text JOIN event e ON e.eid=search_text.rowid "
        f"WHERE search_text MATCH ? AND {_LIVE} LIMIT ?)"
    )
    return int(rx.execute(sql, (question.expression, most)).fetchone()[0])


def encrypted(rx: Rx, rids: Sequence[int]) -> set[int]:
    """Return those of the rooms that are end-to-end encrypted now."""
    rows = rx.execute(
        "SELECT r.value FROM json_each(CAST(? AS TEXT)) r CROSS JOIN current_state c ON c.rid=r.value AND c.sk="
        "(SELECT sk FROM state_key WHERE type='m.room.encryption' AND state_key='')",
        (orjson.dumps(list(rids)),),
    )
    return {int(row[0]) for row in rows}

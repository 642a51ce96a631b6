"""What users reported: rooms, events, people. Kept until somebody responsible has dealt with them."""

from __future__ import annotations

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE report (
    report INTEGER PRIMARY KEY,
    reporter TEXT NOT NULL,
    ts INTEGER NOT NULL,
    room_id TEXT,
    event_id TEXT,
    user_id TEXT,
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX report_reporter ON report (reporter, ts);
"""


class Report(msgspec.Struct, frozen=True):
    """One report: an event has `room_id` and `event_id`, a room only `room_id`, a person only `user_id`. `ts` in ms."""

    reporter: str
    ts: int
    room_id: str | None
    event_id: str | None
    user_id: str | None
    reason: str


def add(tx: Tx, report: Report) -> int:
    """Keep a report; returns its number."""
    cursor = tx.execute(
        "INSERT INTO report (reporter, ts, room_id, event_id, user_id, reason) VALUES (?,?,?,?,?,?)",
        (report.reporter, report.ts, report.room_id, report.event_id, report.user_id, report.reason),
    )
    return int(cursor.lastrowid or 0)


def recent_by(rx: Rx | Tx, reporter: str, since: int) -> int:
    """Return how many reports the user made at or after `since` (milliseconds)."""
    row = rx.execute("SELECT count(*) FROM report WHERE reporter=? AND ts>=?", (reporter, since)).fetchone()
    return int(row[0])


def newest(rx: Rx, limit: int, before: int | None = None) -> list[tuple[int, Report]]:
    """Return the newest reports with their numbers, for the administration; `before` continues a listing."""
    found = rx.execute(
        "SELECT report, reporter, ts, room_id, event_id, user_id, reason FROM report WHERE report<? "
        "ORDER BY report DESC LIMIT ?",
        (2**62 if before is None else before, limit),
    )
    return [(row[0], Report(*row[1:])) for row in found]

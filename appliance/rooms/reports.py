"""Reporting content: to whom it may concern in the house, kept until somebody has looked.

Source: client-server API, "Reporting Content".
"""

from __future__ import annotations

from typing import Final

from appliance.matrix.errors import LimitExceeded, NotFound
from appliance.rooms.visibility import Sight
from appliance.store import events, reports, rooms
from appliance.store.reports import Report
from appliance.store.writer import Tx

MAX_REASON: Final = 2_000
MAX_PER_DAY: Final = 200
"""Reports of one person in a day; more would drown the others."""
DAY_MS: Final = 24 * 3600 * 1000


def room(tx: Tx, reporter: str, room_id: str, reason: str, now: int) -> None:
    """Report a room; whoever knows its id may. Raises `NotFound` for a room this server does not know."""
    if rooms.find(tx, room_id) is None:
        raise NotFound("The room was not found")
    _add(tx, Report(reporter, now, room_id, None, None, reason))


def event(tx: Tx, reporter: str, room_id: str, event_id: str, reason: str, now: int) -> None:
    """Report an event; raises `NotFound` unless the reporter is joined and can see it."""
    row = events.fetch(tx, [event_id]).get(event_id)
    if row is not None and row.event.room_id == room_id:
        sight = Sight(tx, row.rid, reporter)
        if sight.joined and sight.sees(row):
            _add(tx, Report(reporter, now, room_id, event_id, row.event.sender, reason))
            return
    raise NotFound("The event was not found or you are not joined to the room")


def user(tx: Tx, reporter: str, user_id: str, reason: str, now: int) -> None:
    """Report a person. Whether they exist is not told: people of other servers can be reported as well."""
    _add(tx, Report(reporter, now, None, None, user_id, reason))


def _add(tx: Tx, report: Report) -> None:
    if reports.recent_by(tx, report.reporter, report.ts - DAY_MS) >= MAX_PER_DAY:
        raise LimitExceeded(3600 * 1000, "Too many reports in one day")
    reports.add(tx, report)

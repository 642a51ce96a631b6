"""Evaluating a person's standing from the store: runs in a reader thread, on one snapshot.

What the person wants to be told (`Taste`), what one event says to them (`judge`), and from the timeline since the
receipt what is unread (`work_out`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from appliance.matrix import canonical
from appliance.push import editing
from appliance.push.conditions import Reader, RoomFacts, Subject
from appliance.push.rules import Outcome, Rules, compile_ruleset, default_rules
from appliance.push.standing import MAIN, Marks, Standing, parent_of, thread_of
from appliance.store import account_data, events, push, receipts, rooms
from appliance.store.events import Row
from appliance.store.readers import Rx

SCAN = 2000
"""Events that are looked at when a standing is worked out from the store; who left more unread sees this many."""
SUBJECTS = 256
HOPS = 3
"""Relations followed from an event to its thread, as the specification recommends."""
REJOINS = 50
IGNORED = "m.ignored_user_list"


class Taste(msgspec.Struct, frozen=True):
    """What a person wants to be told: compiled rules and ignored people, with the account data they came from."""

    source: tuple[bytes | None, bytes | None]
    rules: Rules
    ignored: frozenset[str]


def sources(rx: Rx, user_id: str) -> tuple[bytes | None, bytes | None]:
    """Return the account data from which a taste is made."""
    return (account_data.get(rx, user_id, account_data.GLOBAL, editing.TYPE),
            account_data.get(rx, user_id, account_data.GLOBAL, IGNORED))


def read_taste(rx: Rx, user_id: str) -> Taste:
    """Read and compile what a person wants to be told."""
    source = sources(rx, user_id)
    rules = default_rules() if source[0] is None else compile_ruleset(editing.load(source[0]))
    return Taste(source, rules, _ignored(source[1]))


def _ignored(stored: bytes | None) -> frozenset[str]:
    if stored is None:
        return frozenset()
    people = canonical.decode_object(stored).get("ignored_users")
    return frozenset(people) if isinstance(people, dict) else frozenset()


class Subjects:
    """The subjects of recent events, so that what is worked out about an event serves everybody who reads it."""

    def __init__(self) -> None:
        self._subjects: dict[int, Subject] = {}

    def of(self, row: Row, facts: RoomFacts) -> Subject:
        """Return the subject of an event in a room with these facts."""
        subject = self._subjects.get(row.eid)
        if subject is None or subject.room is not facts or subject.event is not row.event:
            subject = self._subjects[row.eid] = Subject(row.event, facts)
            if len(self._subjects) > SUBJECTS:
                del self._subjects[next(iter(self._subjects))]
        return subject


def judge(taste: Taste, reader: Reader, row: Row, facts: RoomFacts, subjects: Subjects | None = None) -> Outcome | None:
    """Return what an event says to a person; None for nothing."""
    event = row.event
    if event.sender == reader.user_id or row.redacted_by is not None or event.sender in taste.ignored:
        return None
    return taste.rules.outcome(subjects.of(row, facts) if subjects else Subject(event, facts), reader)


def find_thread(rx: Rx, row: Row) -> str:
    """Follow relations to the thread an event belongs to."""
    event = row.event
    for _ in range(HOPS):
        thread = thread_of(event)
        if thread is not None:
            return thread
        parent = parent_of(event)
        found = events.fetch(rx, [parent]).get(parent) if parent is not None else None
        if found is None or found.rid != row.rid:
            return MAIN
        event = found.event
    return thread_of(event) or MAIN


def _joined_since(rx: Rx, membership: rooms.Membership) -> int:
    """Return the position at which the present stay began: changes of a name in between do not begin a new one."""
    since, row = membership.pos, events.by_eids(rx, [membership.eid]).get(membership.eid)
    for _ in range(REJOINS):
        if row is None or row.event.content.get("membership") != "join":
            return since
        since = row.pos if row.pos is not None else since
        row = events.by_eids(rx, [row.replaces]).get(row.replaces) if row.replaces is not None else None
    return since


def _name_in(rx: Rx, rid: int, user_id: str) -> str | None:
    for row in events.current_events(rx, rid, [("m.room.member", user_id)]):
        name = row.event.content.get("displayname")
        return name if isinstance(name, str) else None
    return None


class Question(msgspec.Struct, frozen=True):
    """Whose standing in which room is asked for, up to which position; `touched` as in `Standing`."""

    user_id: str
    rid: int
    upto: int
    touched: int


Recent = Callable[[int], tuple[list[Row], int]]
"""The newest events of a room (rid) in memory, oldest first, and the position after which they are complete."""


def work_out(rx: Rx, question: Question, taste: Taste, facts: RoomFacts, recent: Recent) -> Standing | None:
    """Evaluate a person's standing; None for somebody who is not in the room."""
    user_id, rid, upto = question.user_id, question.rid, question.upto
    membership = rooms.membership(rx, user_id, rid)
    if membership is None or membership.membership != "join":
        return None
    read = marks(rx, user_id, rid)
    since = _joined_since(rx, membership)
    standing = Standing(_name_in(rx, rid, user_id), since, read, upto, question.touched)
    floor, main = max(since, read.whole), max(since, read.upto(MAIN))
    rows = _newest(rx, rid, main, upto, recent)
    if main > floor:  # the main timeline is read further than some thread may be
        older = events.by_eids(rx, push.thread_eids(rx, rid, floor, main, SCAN))
        rows += sorted(older.values(), key=lambda row: -(row.pos or 0))
    reader = Reader(user_id, standing.name)
    for row in reversed(rows):
        outcome = judge(taste, reader, row, facts)
        if outcome is not None and row.pos is not None:
            standing.note(find_thread(rx, row), row.pos, outcome.highlight)
    standing.settle()
    return standing


def _newest(rx: Rx, rid: int, after: int, upto: int, recent: Recent) -> list[Row]:
    """Return the events with after < pos <= upto, the newest first, from memory if it reaches back that far."""
    rows, complete = recent(rid)
    if after >= complete:
        return [row for row in reversed(rows) if after < (row.pos or 0) <= upto]
    return events.timeline(rx, rid, after=after, upto=upto, limit=SCAN, backwards=True)


def work_out_all(
    rx: Rx, questions: Sequence[tuple[Question, RoomFacts]], taste: Taste, recent: Recent
) -> dict[int, Standing | None]:
    """Evaluate one person's standings in many rooms (by rid) in one read."""
    return {question.rid: work_out(rx, question, taste, facts, recent) for question, facts in questions}


def marks(rx: Rx, user_id: str, rid: int) -> Marks:
    """Return up to where a person has read a room."""
    return Marks.of(receipts.of_user(rx, rid, user_id))


def newer(rx: Rx, rid: int, after: int, upto: int) -> list[Row]:
    """Return the events since a position, at most the newest `SCAN`."""
    return events.timeline(rx, rid, after=after, upto=upto, limit=SCAN, backwards=True)[::-1]

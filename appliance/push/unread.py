"""Unread counts, worked out when somebody asks.

No row is written per member and message, and no sync counts rows. A person's standing in a room is evaluated from the
timeline when it is first asked for, and from then on only what is new since is looked at, nearly always in memory.
Three things make it stale: the person was woken (a receipt, push rules, the list of ignored users: the store is asked
whether something of that changed), the person's membership changed, or an event of the room was redacted. After a
restart everything is evaluated again from the receipt.

Source: client-server API, "Receiving notifications".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from appliance.push import evaluate
from appliance.push.conditions import Reader
from appliance.push.evaluate import Question, Subjects, Taste, judge
from appliance.push.facts import Facts
from appliance.push.rules import Outcome
from appliance.push.standing import MAIN, NOTHING, Standing, UnreadCounts, thread_of
from appliance.store import rooms
from appliance.store.changes import Commit
from appliance.store.database import Store
from appliance.store.events import Row

PEOPLE = 2000
"""People whose standings are kept in memory."""


class Recent(Protocol):
    """The newest events in memory (`rooms.live.Live`)."""

    def since(self, rid: int, after: int, upto: int) -> list[Row] | None:
        """Return the events with after < pos <= upto, None if memory does not reach back that far."""

    def recent(self, rid: int) -> tuple[list[Row], int]:
        """Return all recent events, and the position after which they are complete; from any thread."""


class Judged(msgspec.Struct, frozen=True):
    """An event that notifies somebody, what the rule says, and whether it was read."""

    row: Row
    outcome: Outcome
    read: bool


@dataclass(slots=True)
class _Person:
    """`touched`: position of the last commit that woke the person; `checked`: what the taste is known to follow."""

    taste: Taste
    checked: int
    touched: int
    standings: dict[int, Standing] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Unread:
    """Unread counts of everybody who asks."""

    def __init__(self, store: Store, live: Recent, facts: Facts) -> None:
        self._store = store
        self._live = live
        self._facts = facts
        self._people: OrderedDict[str, _Person] = OrderedDict()
        self._rids: OrderedDict[str, int] = OrderedDict()
        self._breaks = 0
        self._subjects = Subjects()
        store.changes.listen(self._committed)

    def landed(self, row: Row, pruned_id: str | None = None) -> None:
        """Follow a committed event (`rooms.ledger.Ledger.listen`)."""
        if row.event.type == "m.room.member":
            self._breaks += 1
            person = self._people.get(row.event.state_key or "")
            if person is not None:
                person.standings.pop(row.rid, None)
        if pruned_id is not None:
            self._breaks += 1
            for person in self._people.values():
                person.standings.pop(row.rid, None)

    def _committed(self, commit: Commit) -> None:
        for user_id in commit.users:
            person = self._people.get(user_id)
            if person is not None:
                person.touched = commit.position

    async def counts(self, user_id: str, room_id: str, upto: int) -> UnreadCounts:
        """Return what is unread in a room up to a position (at least: a later answer may include more)."""
        rid = await self._rid(room_id)
        if rid is None:
            return NOTHING
        standing = await self._standing(user_id, rid, upto)
        return standing.counts if standing is not None else NOTHING

    async def prepare(self, user_id: str, rids: Iterable[int], upto: int) -> None:
        """Work out a person's standings in many rooms at once, so that `counts` finds them (an initial sync)."""
        person = await self._person(user_id)
        missing = [rid for rid in rids if rid not in person.standings]
        if not missing:
            return
        touched, breaks, taste = person.touched, self._breaks, person.taste
        at = max(upto, self._store.changes.position)
        questions = [(Question(user_id, rid, at, touched), await self._facts.of(rid)) for rid in missing]
        found = await self._store.read(evaluate.work_out_all, questions, taste, self._live.recent)
        if breaks == self._breaks and taste is person.taste:
            person.standings.update((rid, standing) for rid, standing in found.items() if standing is not None)

    async def examine(self, user_id: str, rid: int, rows: Sequence[Row]) -> list[Judged]:
        """Return those of some events of one room that notify a person, in the given order."""
        facts = await self._facts.of(rid)
        standing = await self._standing(user_id, rid, 0)
        person = await self._person(user_id)
        reader = Reader(user_id, standing.name if standing is not None else None)
        judged = []
        for row in rows:
            outcome = judge(person.taste, reader, row, facts)
            if outcome is not None:
                pos = row.pos or 0
                if standing is not None and pos <= standing.since:
                    continue  # from before the person came
                read = standing is not None and pos <= standing.marks.upto(thread_of(row.event) or MAIN)
                judged.append(Judged(row, outcome, read))
        return judged

    async def _rid(self, room_id: str) -> int | None:
        rid = self._rids.get(room_id)
        if rid is None:
            room = await self._store.read(rooms.find, room_id)
            if room is None:
                return None
            rid = self._rids[room_id] = room.rid
            if len(self._rids) > 4 * PEOPLE:
                self._rids.popitem(last=False)
        return rid

    async def _person(self, user_id: str) -> _Person:
        person = self._people.get(user_id)
        if person is None:
            before = self._store.changes.position
            taste = await self._store.read(evaluate.read_taste, user_id)
            # Nobody has noted whether the person was woken during the read; if anything happened, look again.
            person = self._people.setdefault(user_id, _Person(taste, before, self._store.changes.position))
            if len(self._people) > PEOPLE:
                self._people.popitem(last=False)
        if user_id in self._people:
            self._people.move_to_end(user_id)
        if person.checked < person.touched:
            touched = person.touched
            if await self._store.read(evaluate.sources, user_id) != person.taste.source:
                person.taste = await self._store.read(evaluate.read_taste, user_id)
                person.standings.clear()
            person.checked = max(person.checked, touched)
        return person

    async def _standing(self, user_id: str, rid: int, upto: int) -> Standing | None:
        person = await self._person(user_id)
        standing = person.standings.get(rid)
        if standing is not None and standing.touched >= person.touched and standing.upto >= upto:
            return standing
        async with person.lock:
            standing = person.standings.get(rid)
            if standing is not None and standing.touched < person.touched:
                standing = await self._reread(user_id, rid, person, standing)
            if standing is None:
                return await self._work_out(user_id, rid, person, max(upto, self._store.changes.position))
            if standing.upto < upto:
                await self._catch_up(user_id, rid, person, standing, upto)
            return standing

    async def _reread(self, user_id: str, rid: int, person: _Person, standing: Standing) -> Standing | None:
        """The person was woken: perhaps by a receipt."""
        touched = person.touched
        marks = await self._store.read(evaluate.marks, user_id, rid)
        if person.standings.get(rid) is not standing:
            return None
        standing.read(marks)
        standing.touched = touched
        return standing

    async def _work_out(self, user_id: str, rid: int, person: _Person, upto: int) -> Standing | None:
        touched, breaks, taste = person.touched, self._breaks, person.taste
        facts = await self._facts.of(rid)
        question = Question(user_id, rid, upto, touched)
        standing = await self._store.read(evaluate.work_out, question, taste, facts, self._live.recent)
        if standing is not None and breaks == self._breaks and taste is person.taste:
            person.standings[rid] = standing
        return standing

    async def _catch_up(self, user_id: str, rid: int, person: _Person, standing: Standing, upto: int) -> None:
        """Evaluate what is new since the standing was last looked at."""
        facts = await self._facts.of(rid)
        rows = self._live.since(rid, standing.upto, upto)
        if rows is None:
            rows = await self._store.read(evaluate.newer, rid, standing.upto, upto)
        reader = Reader(user_id, standing.name)
        judged = ((row, judge(person.taste, reader, row, facts, self._subjects)) for row in rows)
        found = [(row, outcome) for row, outcome in judged if outcome is not None]
        if found:
            for row, outcome in found:
                thread = thread_of(row.event)
                if thread is None:
                    thread = await self._store.read(evaluate.find_thread, row)
                standing.note(thread, row.pos or 0, outcome.highlight)
            standing.settle()
        standing.upto = upto

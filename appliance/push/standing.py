"""How far somebody has read a room, and what is unread: positions, not rows.

A `Standing` belongs to one person and one room. It keeps, thread by thread, the positions of the events that notify
(eight bytes each); a receipt cuts them off. The main timeline is the thread `main`.

Source: client-server API, "Marking notifications as read", "Threaded read receipts".
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from appliance.matrix.event import Event
from appliance.store.receipts import PRIVATE, READ, ReceiptRow

MAIN = "main"


class UnreadCounts(msgspec.Struct, frozen=True):
    """Unread notifications of a room, all threads together, and per thread root (without the main timeline)."""

    notification: int
    highlight: int
    threads: Mapping[str, tuple[int, int]]

    @property
    def main(self) -> tuple[int, int]:
        """The counts of the main timeline alone: (notifications, highlights)."""
        return (self.notification - sum(count for count, _ in self.threads.values()),
                self.highlight - sum(count for _, count in self.threads.values()))


NOTHING = UnreadCounts(0, 0, {})


@dataclass(slots=True)
class Marks:
    """Up to where somebody has read: everything (`whole`), and beyond it each thread by itself."""

    whole: int = 0
    threads: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, receipts: Iterable[ReceiptRow]) -> Marks:
        """Read the marks from a person's receipts; of the public and the private one the more advanced counts."""
        marks = cls()
        for receipt in receipts:
            if receipt.kind not in (READ, PRIVATE):
                continue
            if receipt.thread_id:
                before = marks.threads.get(receipt.thread_id, receipt.event_pos)
                marks.threads[receipt.thread_id] = max(before, receipt.event_pos)
            else:
                marks.whole = max(marks.whole, receipt.event_pos)
        return marks

    def upto(self, thread: str) -> int:
        """Return the position up to which a thread has been read."""
        return max(self.whole, self.threads.get(thread, self.whole))


def thread_of(event: Event) -> str | None:
    """Return the thread an event says to be in; None if that depends on the event it relates to."""
    relates = event.content.get("m.relates_to")
    if not isinstance(relates, dict):
        return MAIN
    parent, kind = relates.get("event_id"), relates.get("rel_type")
    if not isinstance(parent, str) or not isinstance(kind, str):
        return MAIN
    return parent if kind == "m.thread" else None


def parent_of(event: Event) -> str | None:
    """Return the event that this one relates to."""
    relates = event.content.get("m.relates_to")
    parent = relates.get("event_id") if isinstance(relates, dict) else None
    return parent if isinstance(parent, str) else None


class Standing:
    """One person in one room. `upto`: evaluated up to this position; `since`: joined at this position."""

    __slots__ = ("_highlights", "_notes", "counts", "marks", "name", "since", "touched", "upto")

    def __init__(self, name: str | None, since: int, marks: Marks, upto: int, touched: int) -> None:
        self.name = name
        self.since = since
        self.marks = marks
        self.upto = upto
        self.touched = touched
        self.counts = NOTHING
        self._notes: dict[str, array[int]] = {}
        self._highlights: dict[str, array[int]] = {}

    def note(self, thread: str, pos: int, highlight: bool) -> None:
        """Take note of a notifying event; call `settle` afterwards. Positions come in rising order."""
        if pos > self.marks.upto(thread):
            self._notes.setdefault(thread, array("q")).append(pos)
            if highlight:
                self._highlights.setdefault(thread, array("q")).append(pos)

    def read(self, marks: Marks) -> None:
        """Receipts moved forward: cut off what has been read."""
        self.marks = marks
        for threads in (self._notes, self._highlights):
            for thread in list(threads):
                rest = threads[thread][bisect_right(threads[thread], marks.upto(thread)):]
                if rest:
                    threads[thread] = rest
                else:
                    del threads[thread]
        self.settle()

    def settle(self) -> None:
        """Work the counts out anew."""
        if not self._notes:
            self.counts = NOTHING
            return
        each = {thread: (len(notes), len(self._highlights.get(thread, ()))) for thread, notes in self._notes.items()}
        total = (sum(n for n, _ in each.values()), sum(h for _, h in each.values()))
        each.pop(MAIN, None)
        self.counts = UnreadCounts(*total, each)

"""State events ready to be sent, kept by short id.

The state of a room is the same for everybody and mostly old, so its events are read and serialised once and their bytes
go into every initial sync. The cache is bounded by bytes. It is filled by readers in their threads and emptied of
redacted events on the event loop; a read that began before a redaction must not put the old form back, hence
`generation`, which a reader takes before its read begins.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from appliance.matrix.client_event import Encoded
from appliance.store import events
from appliance.store.events import Row
from appliance.store.readers import Rx

MAX_BYTES: Final = 8 * 1024 * 1024
OVERHEAD: Final = 400
"""Bytes of one entry beside its JSON (a guess on the safe side)."""


class Known(msgspec.Struct, frozen=True):
    """One state event: what a filter asks about it, and its client format as bytes."""

    eid: int
    pos: int | None
    event_id: str
    type: str
    state_key: str
    sender: str
    has_url: bool
    redacted: bool
    encoded: Encoded
    size: int


def known(row: Row) -> Known:
    """Prepare one state event."""
    event = row.event
    return Known(
        row.eid, row.pos, event.event_id, event.type, event.state_key or "", event.sender,
        isinstance(event.content.get("url"), str), row.redacted_by is not None, Encoded(event),
        len(event.raw) + OVERHEAD,
    )


class KnownEvents:
    """A bounded store of `Known`, shared by all syncs."""

    def __init__(self, maximum: int = MAX_BYTES) -> None:
        self._maximum = maximum
        self._bytes = 0
        self._events: OrderedDict[int, Known] = OrderedDict()
        self._eids: dict[str, int] = {}
        self._lock = threading.Lock()
        self.generation = 0
        """Grows with every redaction."""

    def load(self, rx: Rx, eids: Collection[int], generation: int) -> dict[int, Known]:
        """Return the events by short id, reading those that are not in memory.

        `generation` is that of the moment before the read began: what it reads is kept only if nothing was redacted
        since.
        """
        found = {eid: event for eid in eids if (event := self._events.get(eid)) is not None}
        missing = [eid for eid in eids if eid not in found]
        if missing:
            fresh = [known(row) for row in events.by_eids(rx, missing).values()]
            found.update((event.eid, event) for event in fresh)
            with self._lock:
                if generation == self.generation:
                    self._keep(event for event in fresh if not event.redacted)
        return found

    def _keep(self, fresh: Iterable[Known]) -> None:
        for event in fresh:
            if event.eid not in self._events:
                self._events[event.eid] = event
                self._eids[event.event_id] = event.eid
                self._bytes += event.size
        while self._bytes > self._maximum and self._events:
            _, oldest = self._events.popitem(last=False)
            self._eids.pop(oldest.event_id, None)
            self._bytes -= oldest.size

    def add(self, row: Row, pruned_id: str | None) -> None:
        """Follow a committed event: what it redacts must be read again."""
        if pruned_id is not None:
            with self._lock:
                self.generation += 1
                self._drop(pruned_id)

    def _drop(self, event_id: str) -> None:
        eid = self._eids.pop(event_id, None)
        gone = self._events.pop(eid, None) if eid is not None else None
        if gone is not None:
            self._bytes -= gone.size

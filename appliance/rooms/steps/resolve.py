"""Step 9 and 10: one state out of several, by the store's short ids.

The rules and the algorithm are in `matrix.resolve`; here its events are read as it asks for them. Runs in a reader's
thread, so a large fork delays nobody's event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from appliance.matrix.event import Event
from appliance.matrix.ids import EventId
from appliance.matrix.resolve import resolve
from appliance.matrix.versions import RoomVersion
from appliance.store import events, graph
from appliance.store.events import REJECTED
from appliance.store.readers import Rx
from appliance.store.state import Key

SELF = 0
"""Short id of the event that is just being placed, which has none yet."""


MOST_EVENTS: Final = 50_000
"""Events looked at to resolve one fork; what needs more waits, so that no fork keeps a reader busy for ever."""


class Incomplete(Exception):
    """What is needed to place an event is not in the store, or too much of it is needed."""


class _Book:
    """Events by id, read when they are asked for; and which of them were rejected."""

    def __init__(self, rx: Rx, own: Event) -> None:
        self._rx = rx
        self._events: dict[EventId, Event] = {own.event_id: own}
        self._rejected: set[EventId] = set()

    def __call__(self, event_id: EventId) -> Event:
        if event_id not in self._events:
            if len(self._events) > MOST_EVENTS:
                raise Incomplete("the fork is too large")
            self._load([event_id])
        return self._events[event_id]

    def _load(self, event_ids: Sequence[EventId]) -> None:
        """Read events and, because they will be asked for next, their auth events."""
        rows = events.fetch(self._rx, event_ids)
        parents = {parent for row in rows.values() for parent in row.event.auth_events} - self._events.keys()
        rows.update(events.fetch(self._rx, parents))
        for event_id, row in rows.items():
            self._events.setdefault(EventId(event_id), row.event)
            if row.flags & REJECTED:
                self._rejected.add(EventId(event_id))

    def __contains__(self, event_id: object) -> bool:
        return event_id in self._rejected


def resolved(rx: Rx, version: RoomVersion, states: Sequence[Mapping[Key, int]], own: Event) -> dict[Key, int]:
    """Return the one state that these resolve to; `own` is the event being placed, `SELF` in the states.

    Raises `Incomplete`.
    """
    distinct: list[Mapping[Key, int]] = []
    for state in states:
        if state not in distinct:
            distinct.append(state)
    if len(distinct) == 1:
        return dict(distinct[0])
    eids = {eid for state in distinct for eid in state.values()}
    names = {**{eid: EventId(name) for eid, name in graph.ids_of(rx, eids).items()}, SELF: own.event_id}
    book = _Book(rx, own)
    try:
        found = resolve(
            version, [{key: names[eid] for key, eid in state.items()} for state in distinct], book, rejected=book
        )
    except KeyError as error:
        raise Incomplete(f"an event of the fork is missing: {error}") from error
    back = {name: eid for eid, name in names.items()}
    back.update({EventId(n): e for n, e in graph.eids_of(rx, [i for i in found.values() if i not in back]).items()})
    return {key: back[event_id] for key, event_id in found.items()}

"""Step 5: may the event stand on the auth events that it names? Many at once, for whole chains of them.

An event is judged when all of its auth events have been; so a chain is walked from the create event upwards. What
hangs in the air, because something below it is missing (or pretends to stand on itself), is not judged at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from appliance.matrix import auth
from appliance.matrix.auth import Rejected
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId


class Judged(msgspec.Struct, frozen=True):
    """An event with our verdict: None, or why it is rejected."""

    event: Event
    rejected: str | None = None


def implied(event: Event) -> tuple[EventId, ...]:
    """Return what must be at hand to judge an event: its auth events, and the create event that its room id names."""
    if event.version.room_id_is_hash and event.type != "m.room.create":
        return (*event.auth_events, EventId("$" + event.room_id[1:]))
    return event.auth_events


def judge(event: Event, below: Mapping[EventId, Judged]) -> Judged:
    """Check an event against its auth events, all of which are in `below`."""
    cited = [below[event_id].event for event_id in event.auth_events]
    rejected = {event_id for event_id in implied(event) if below[event_id].rejected is not None}
    create = None
    if event.version.room_id_is_hash and event.type != "m.room.create":
        create_id = EventId("$" + event.room_id[1:])
        if create_id in rejected:
            return Judged(event, "the create event was rejected")
        create = below[create_id].event
    try:
        state = auth.check_auth_events(event, cited, create=create, rejected=rejected)
        auth.check(event, state)
    except Rejected as error:
        return Judged(event, str(error))
    return Judged(event)


def judge_all(events: Mapping[EventId, Event], known: Mapping[EventId, Judged]) -> dict[EventId, Judged]:
    """Judge events that stand on each other and on what is known; those that hang in the air are left out.

    The result is in an order in which each event follows what it stands on.
    """
    judged: dict[EventId, Judged] = {}
    below: dict[EventId, Judged] = dict(known)
    for event in ordered(events, implied):
        if all(event_id in below for event_id in implied(event)):
            below[event.event_id] = judged[event.event_id] = judge(event, below)
    return judged


def ordered(
    events: Mapping[EventId, Event], parents: Callable[[Event], Iterable[EventId]]
) -> list[Event]:
    """Return the events so that each follows those of its parents that are among them, without any circles."""
    open_count: dict[EventId, int] = {}
    above: dict[EventId, list[EventId]] = {}
    for event_id, event in events.items():
        inside = {parent for parent in parents(event) if parent in events}
        open_count[event_id] = len(inside)
        for parent in inside:
            above.setdefault(parent, []).append(event_id)
    free = sorted((e for e, count in open_count.items() if not count), key=lambda e: (events[e].depth, e), reverse=True)
    result: list[Event] = []
    while free:
        event_id = free.pop()
        result.append(events[event_id])
        for child in above.get(event_id, ()):
            open_count[child] -= 1
            if not open_count[child]:
                free.append(child)
    return result

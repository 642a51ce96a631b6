"""Steps 1 to 3: form and size, signatures, content hash.

What fails here is dropped as if it had never come, for nobody can be held to it. Only a wrong content hash is no
reason: the event's essence is signed all the same, so it is used without the content that somebody changed.

Source: server-server API, "Checks performed on receipt of a PDU".
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Final

from appliance.matrix import event as matrix_event
from appliance.matrix.errors import MatrixError
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId
from appliance.matrix.versions import RoomVersion
from appliance.rooms.steps.asking import Pdu, Signatures

IN_THE_LOOP: Final = 64
"""Events read on the event loop (0.1 ms each); larger batches go to a thread."""


def parse(pdu: Pdu, version: RoomVersion, room_id: str) -> Event:
    """1. Read an event of a room; raises `BadEvent` where it does not have the form of the room's version."""
    event = matrix_event.parse(pdu, version)
    if event.room_id != room_id:
        raise matrix_event.BadEvent("The event belongs to another room")
    return event


async def verify(signatures: Signatures, events: Sequence[Event]) -> dict[EventId, Event | MatrixError]:
    """2. Check signatures, 3. content hashes: return each event as it may be used, or why it may not."""
    problems = await signatures.verify_events(events)
    result: dict[EventId, Event | MatrixError] = {}
    for event, problem in zip(events, problems, strict=True):
        if problem is not None:
            result.setdefault(event.event_id, problem)
        elif not isinstance(result.get(event.event_id), Event):
            result[event.event_id] = event if matrix_event.content_hash_matches(event.pdu) else pruned(event)
    return result


def pruned(event: Event) -> Event:
    """Return what is left of an event whose content is not the one that was signed."""
    return matrix_event.pruned(event)


async def genuine(
    signatures: Signatures, pdus: Sequence[Pdu], version: RoomVersion, room_id: str
) -> dict[EventId, Event]:
    """Return those of many fetched events that pass steps 1 to 3, by id; the others are left out."""
    found = read_all(pdus, version, room_id) if len(pdus) <= IN_THE_LOOP else await asyncio.to_thread(
        read_all, pdus, version, room_id
    )
    verified = await verify(signatures, found)
    return {event_id: event for event_id, event in verified.items() if isinstance(event, Event)}


def read_all(pdus: Iterable[Pdu], version: RoomVersion, room_id: str) -> list[Event]:
    """Read events, without those that have no proper form."""
    found = []
    for pdu in pdus:
        try:
            found.append(parse(pdu, version, room_id))
        except MatrixError:
            continue
    return found

"""Step 6: have what precedes the event.

First the events between our tips and the new one are asked for; usually a few were lost on the way. What is too far
away stays a gap: then the peer tells the state before the event, and the gap is filled when somebody reads back.

Source: server-server API, "Retrieving missing events", `get_missing_events`, `state_ids`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.matrix import versions
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, ServerName
from appliance.rooms.steps.asking import Budget, Unobtainable
from appliance.rooms.steps.auth import ordered
from appliance.rooms.steps.fetch_auth import Archive
from appliance.rooms.steps.parse import genuine
from appliance.store import graph
from appliance.store.readers import Rx
from appliance.store.rooms import RoomRow
from appliance.store.state import Key

MOST_BETWEEN: Final = 1_000
PAGE: Final = 50
ROUNDS: Final = 60
NAMED: Final = 20
"""Events named in one question."""
FEW: Final = 20
"""Up to so many unknown state events are fetched one by one; more are fetched as a whole state."""


async def between(
    archive: Archive, room: RoomRow, event: Event, origins: Sequence[ServerName], budget: Budget
) -> list[Event]:
    """Return what lies between our tips and the event, oldest first, as far as a peer gives it."""
    tips = [EventId(tip.event_id) for tip in await archive.store.read(graph.tips, room.rid)]
    found: dict[EventId, Event] = {}
    for origin in origins:
        try:
            await _ask_back(archive, room, event, tips, origin, budget, found)
        except Unobtainable:
            continue
        break
    return ordered(found, lambda one: one.prev_events)


async def _ask_back(
    archive: Archive, room: RoomRow, event: Event, tips: Sequence[EventId], origin: ServerName, budget: Budget,
    found: dict[EventId, Event],
) -> None:
    version = versions.get(room.version)
    latest = [event.event_id]
    for _ in range(ROUNDS):
        pdus = await budget.ask(
            archive.peers.missing_events(origin, room.room_id, tips[-NAMED:], latest, PAGE)
        )
        budget.take(len(pdus))
        fetched = await genuine(archive.signatures, pdus, version, room.room_id)
        fresh = _ancestors(event, {**found, **fetched})
        if len(fresh) == len(found) or len(fresh) > MOST_BETWEEN:
            return
        found.update(fresh)
        lower = {parent for one in found.values() for parent in one.prev_events} - found.keys()
        placed = await archive.store.read(placed_of, lower)
        open_ends = lower - placed
        if not open_ends:
            return
        latest = [e for e, one in found.items() if open_ends.intersection(one.prev_events)][:NAMED]


def placed_of(rx: Rx, event_ids: set[EventId]) -> set[str]:
    """Return those of the events that have a place in our graph."""
    return {event_id for event_id, found in graph.known(rx, event_ids).items() if found.sid is not None}


def _ancestors(event: Event, found: dict[EventId, Event]) -> dict[EventId, Event]:
    """Return those of the events that the event follows; nobody gets others in by the way."""
    result: dict[EventId, Event] = {}
    stack = list(event.prev_events)
    while stack:
        event_id = stack.pop()
        if event_id in found and event_id not in result:
            result[event_id] = found[event_id]
            stack.extend(found[event_id].prev_events)
    return result


async def borrow(
    archive: Archive, room: RoomRow, event: Event, origins: Sequence[ServerName], budget: Budget
) -> dict[Key, int]:
    """Return a peer's word for the state before an event, all of it checked and in the store."""
    problem: Unobtainable | None = None
    for origin in origins:
        try:
            return await _borrow(archive, room, event, origin, budget)
        except Unobtainable as error:
            problem = error
    raise Unobtainable("nobody tells the state before the event") from problem


async def _borrow(
    archive: Archive, room: RoomRow, event: Event, origin: ServerName, budget: Budget
) -> dict[Key, int]:
    answer = await budget.ask(archive.peers.state_ids(origin, room.room_id, event.event_id))
    ids = {EventId(event_id) for event_id in (*answer.pdu_ids, *answer.auth_chain_ids)}
    budget.take(len(ids))
    unknown = ids - (await archive.store.read(graph.known, ids)).keys()
    if len(unknown) > FEW:
        whole = await budget.ask(archive.peers.state(origin, room.room_id, event.event_id))
        await archive.keep(room, [*whole.pdus, *whole.auth_chain], budget)
    elif unknown:
        await archive.obtain(room, unknown, [origin], budget)
    claimed = await archive.store.read(graph.state_of, room.rid, answer.pdu_ids)
    if claimed is None or ("m.room.create", "") not in claimed:
        raise Unobtainable("the state that the peer tells is not complete")
    return claimed

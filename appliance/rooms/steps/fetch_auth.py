"""Step 4: have what authorises the event; what is missing is fetched, judged, and kept as outliers.

First the whole chain is asked for at once. Should that not help, single events, one level after the other, as far as
the budget goes: an endless chain costs a stranger more than us. Nothing is kept that is not complete downwards, so
everything in the store stands on something in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from appliance.matrix import versions
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, ServerName
from appliance.rooms.steps.asking import AT_ONCE, Budget, Pdu, Peers, Signatures, Unobtainable
from appliance.rooms.steps.auth import Judged, implied, judge_all
from appliance.rooms.steps.parse import genuine
from appliance.store import events, graph
from appliance.store.database import Store
from appliance.store.events import REJECTED
from appliance.store.graph import Known
from appliance.store.readers import Rx
from appliance.store.rooms import RoomRow
from appliance.store.writer import Tx


class Archive:
    """Brings outliers into the store."""

    def __init__(self, store: Store, peers: Peers, signatures: Signatures) -> None:
        self.store = store
        self.peers = peers
        self.signatures = signatures

    async def authorise(
        self, room: RoomRow, event: Event, below: Mapping[EventId, Judged], origins: Sequence[ServerName],
        budget: Budget,
    ) -> Judged:
        """Return the event judged by its auth events, fetching those that are not `below`; raises `Unobtainable`."""
        if len(below) < len(set(implied(event))):
            await self._fetch_chain(room, event, origins, budget)
            below = await self.store.read(judged, implied(event))
        if len(below) < len(set(implied(event))):
            await self.obtain(room, [e for e in implied(event) if e not in below], origins, budget)
            below = await self.store.read(judged, implied(event))
        if len(below) < len(set(implied(event))):
            raise Unobtainable("an auth event is missing")
        return judge_all({event.event_id: event}, below)[event.event_id]

    async def _fetch_chain(
        self, room: RoomRow, event: Event, origins: Sequence[ServerName], budget: Budget
    ) -> None:
        for origin in origins:
            try:
                chain = await budget.ask(self.peers.event_auth(origin, room.room_id, event.event_id))
            except Unobtainable:
                continue
            await self.keep(room, chain, budget, wanted=implied(event))
            return

    async def obtain(
        self, room: RoomRow, wanted: Collection[EventId], origins: Sequence[ServerName], budget: Budget
    ) -> None:
        """Fetch events one by one, and what they stand on, as far as the budget goes; keep what is complete."""
        found: dict[EventId, Event] = {}
        asked: set[EventId] = set()
        level = set(wanted)
        try:
            while level:
                asked |= level
                fresh = await self._fetch_each(room, sorted(level), origins, budget)
                found.update(fresh)
                lower = {parent for event in fresh.values() for parent in implied(event)} - asked
                level = lower - (await self.store.read(graph.known, lower)).keys()
        except Unobtainable:
            pass  # what hangs in the air is not kept; the caller sees what is still missing
        await self._keep_events(room, found)

    async def _fetch_each(
        self, room: RoomRow, wanted: Sequence[EventId], origins: Sequence[ServerName], budget: Budget
    ) -> dict[EventId, Event]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(event_id: EventId) -> list[Pdu]:
            async with gate:
                for origin in origins:
                    try:
                        return [await budget.ask(self.peers.event(origin, event_id))]
                    except Unobtainable:
                        continue
            return []

        budget.take(len(wanted))
        answers = await asyncio.gather(*(one(event_id) for event_id in wanted))
        pdus = [pdu for answer in answers for pdu in answer]
        fetched = await genuine(self.signatures, pdus, versions.get(room.version), room.room_id)
        return {event_id: event for event_id, event in fetched.items() if event_id in set(wanted)}

    async def keep(
        self, room: RoomRow, pdus: Sequence[Pdu], budget: Budget, wanted: Iterable[EventId] | None = None
    ) -> None:
        """Check and keep fetched events as outliers; with `wanted` only those and what they stand on."""
        budget.take(len(pdus))
        found = await genuine(self.signatures, pdus, versions.get(room.version), room.room_id)
        await self._keep_events(room, found if wanted is None else reachable(found, wanted))

    async def _keep_events(self, room: RoomRow, found: Mapping[EventId, Event]) -> None:
        if not found:
            return
        below = {parent for event in found.values() for parent in implied(event)}
        known = await self.store.read(judged, [*below, *found])
        fresh = {event_id: event for event_id, event in found.items() if event_id not in known}
        verdicts = await asyncio.to_thread(judge_all, fresh, known)
        if verdicts:
            await self.store.write(keep_outliers, room.rid, list(verdicts.values()))


class Ground(msgspec.Struct, frozen=True):
    """What an event stands on, as far as we have it: itself, its auth events, and which predecessors are missing."""

    held: Known | None
    below: Mapping[EventId, Judged]
    missing: list[EventId]


def survey(rx: Rx, event: Event) -> Ground:
    """Look at what an event stands on."""
    known = graph.known(rx, [event.event_id, *event.prev_events])
    missing = [e for e in dict.fromkeys(event.prev_events) if e not in known or known[e].sid is None]
    return Ground(known.get(event.event_id), judged(rx, implied(event)), missing)


def judged(rx: Rx, event_ids: Iterable[EventId]) -> dict[EventId, Judged]:
    """Return the known ones of these events with the verdict of their time."""
    return {
        EventId(event_id): Judged(row.event, "rejected before" if row.flags & REJECTED else None)
        for event_id, row in events.fetch(rx, event_ids).items()
    }


def keep_outliers(tx: Tx, rid: int, verdicts: Sequence[Judged]) -> None:
    """Store judged events outside of the timeline, the rejected ones as such."""
    for verdict in verdicts:
        graph.add_outlier(tx, rid, verdict.event, rejected=verdict.rejected is not None)


def reachable(found: Mapping[EventId, Event], wanted: Iterable[EventId]) -> dict[EventId, Event]:
    """Return those of the events that are wanted, or that a wanted one stands on."""
    result: dict[EventId, Event] = {}
    stack = [event_id for event_id in wanted if event_id in found]
    while stack:
        event_id = stack.pop()
        if event_id not in result:
            result[event_id] = found[event_id]
            stack.extend(parent for parent in implied(found[event_id]) if parent in found)
    return result

"""Steps 7 to 11 in one look at the store: where an event belongs, and what it changes.

Runs in a reader's thread, while the room's head is held, so nothing can move in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from appliance.matrix import event as matrix_event
from appliance.matrix import versions
from appliance.matrix.auth import CREATE, POWER_LEVELS, redaction_applies
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, RoomId
from appliance.matrix.power import Power
from appliance.rooms.steps.resolve import SELF, Incomplete, resolved
from appliance.rooms.steps.soft_fail import outdated
from appliance.rooms.steps.state_before import refusal, state_before
from appliance.store import events, graph, rooms, state
from appliance.store.append import New, Place
from appliance.store.events import REJECTED, SOFT_FAILED
from appliance.store.graph import Known, Tip
from appliance.store.readers import Rx
from appliance.store.rooms import RoomRow
from appliance.store.state import Key
from appliance.store.writer import Tx

MOST_TIPS: Final = 50
"""Forward extremities of a room. An event that only adds one more is kept, but nothing continues from it."""
_WALK: Final = 1_000


class Found(msgspec.Struct, frozen=True):
    """What is known before an event is placed.

    `rejected` why its auth events do not allow it; `borrowed` a peer's word for the state before it; `past` its place
    before the beginning of the timeline, None for an event that is live.
    """

    rejected: str | None = None
    borrowed: Mapping[Key, int] | None = None
    past: int | None = None


class Placed(msgspec.Struct, frozen=True):
    """Where the event belongs. `new` is None if it has its place already (`flags` say how it was judged then)."""

    flags: int
    reason: str | None
    new: New | None = None
    before: Mapping[Key, int] | None = None
    """A state to be stored in the same transaction, None where `new.before` names it."""
    base: int | None = None
    """The snapshot that `before` is stored as a change of."""
    tips: list[tuple[EventId, int]] | None = None
    current: dict[Key, EventId] | None = None

    def prepare(self, tx: Tx, rid: int) -> New:
        """Store the state before the event, if it is a new one, and return what is to be appended."""
        if self.new is None:
            raise ValueError("the event has its place already")
        if self.before is None:
            return self.new
        return msgspec.structs.replace(self.new, before=graph.add_state(tx, rid, self.base, self.before))


def place(rx: Rx, room_id: RoomId, event: Event, found: Found) -> Placed:
    """Find the event's place; raises `Incomplete` if a predecessor is missing and nobody's word stands for it."""
    room = rooms.find(rx, room_id)
    if room is None:
        raise Incomplete(room_id)
    version = versions.get(room.version)
    known = graph.known(rx, [event.event_id, *event.prev_events])
    own = known.pop(event.event_id, None)
    if own is not None and own.sid is not None:
        return Placed(own.flags, "judged before")
    prevs = [known[e] for e in dict.fromkeys(event.prev_events) if e in known and known[e].sid is not None]
    missing = [e for e in dict.fromkeys(event.prev_events) if e not in known or known[e].sid is None]
    if missing and found.borrowed is None:
        raise Incomplete(event.event_id)
    sids = [prev.sid for prev in prevs if prev.sid is not None]
    sid, before = state_before(rx, version, event, sids, found.borrowed if missing else None)
    reason = found.rejected or refusal(rx, event, before)
    flags = REJECTED if reason is not None else 0
    if not flags and found.past is None and sid != room.sid:
        reason = outdated(rx, room.rid, event)
        flags = SOFT_FAILED if reason is not None else 0
    tips = None if flags or found.past is not None else _tips_after(rx, room.rid, event, prevs)
    current = None if tips is None else _current_after(rx, room, event, tips, sid, before)
    kept, redacted_by = _redacted(rx, event, own)
    new = New(
        kept, flags, before=sid, current=current, prunes=None if flags else _prunes(rx, event, before),
        place=Place(None if tips is None else [tip.eid for tip in tips], missing, own.eid if own else None, found.past,
                    redacted_by),
    )  # fmt: skip
    return Placed(
        flags, reason, new, before if sid is None else None, sids[0] if sids else room.sid,
        None if tips is None else [(EventId(tip.event_id), tip.depth) for tip in tips],
        None if current is None else _named(rx, current, event),
    )


def _tips_after(rx: Rx, rid: int, event: Event, prevs: Sequence[Known]) -> list[Tip] | None:
    """Return the forward extremities after the event, itself as `SELF`; None if they stay what they are."""
    held = graph.tips(rx, rid)
    covered = _covered(rx, prevs)
    left = [tip for tip in held if tip.eid not in covered]
    if graph.has_successor(rx, rid, event.event_id):
        return left if len(left) < len(held) and left else None
    if len(left) >= MOST_TIPS:
        return None
    return [*left, Tip(SELF, event.event_id, event.depth, SELF)]


def _covered(rx: Rx, prevs: Sequence[Known]) -> set[int]:
    """Return what the event follows directly, or through events that never became tips themselves."""
    covered: set[int] = set()
    stack = list(prevs)
    while stack and len(covered) < _WALK:
        prev = stack.pop()
        if prev.eid in covered:
            continue
        covered.add(prev.eid)
        if prev.flags:
            row = events.by_eids(rx, [prev.eid])[prev.eid]
            stack.extend(graph.known(rx, row.event.prev_events).values())
    return covered


def _current_after(
    rx: Rx, room: RoomRow, event: Event, tips: Sequence[Tip], sid: int | None, before: Mapping[Key, int]
) -> dict[Key, int] | None:
    """Return the room's state when these are the tips; None if it stays what it is."""
    follows = any(tip.eid == SELF for tip in tips)
    sids = {tip.sid for tip in tips if tip.eid != SELF}
    if not (follows and event.state_key is not None):
        if sids | ({sid} if follows else set()) == {room.sid}:
            return None
    states: list[Mapping[Key, int]] = [state.snapshot(rx, one) for one in sorted(sids)]
    if follows:
        states.append(before if event.state_key is None else {**before, event.key: SELF})
    wanted = resolved(rx, versions.get(room.version), states, event)
    return wanted if wanted != state.current(rx, room.rid) else None


def _named(rx: Rx, current: Mapping[Key, int], own: Event) -> dict[Key, EventId]:
    names = graph.ids_of(rx, current.values())
    return {key: own.event_id if eid == SELF else EventId(names[eid]) for key, eid in current.items()}


def _power(rx: Rx, event: Event, before: Mapping[Key, int]) -> Power:
    rows = events.by_eids(rx, [before[key] for key in (CREATE, POWER_LEVELS) if key in before])
    by_key = {row.event.key: row.event for row in rows.values()}
    return Power(event.version, by_key.get(CREATE), by_key.get(POWER_LEVELS))


def _prunes(rx: Rx, event: Event, before: Mapping[Key, int]) -> str | None:
    """Return what this redaction takes the content of; a target that is unknown is judged when it comes."""
    if event.type != "m.room.redaction" or event.redacts is None:
        return None
    target = events.fetch(rx, [event.redacts]).get(event.redacts)
    if target is None or redaction_applies(event, target.event, _power(rx, event, before)):
        return event.redacts
    return None


def _redacted(rx: Rx, event: Event, own: Known | None) -> tuple[Event, int | None]:
    """Return the event as it is to be kept: without content if its redaction arrived before it."""
    if own is not None:
        row = events.by_eids(rx, [own.eid])[own.eid]
        if row.redacted_by is not None:
            return row.event, row.redacted_by
    for redaction in graph.pending_redactions(rx, event.event_id):
        if redaction.sid is None or redaction.flags:
            continue
        if redaction_applies(redaction.event, event, _power(rx, event, state.snapshot(rx, redaction.sid))):
            return matrix_event.pruned(event), redaction.eid
    return event, None

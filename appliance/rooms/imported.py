"""A room that another server lets us into: its state is taken in as it was before our join.

Everything the peer says is checked as if it had come alone: form, signatures, hashes, and each event by its auth events
from the create event upwards. What fails is left out, and with it what stands on it. The state is kept as outliers; the
timeline begins with the join, and what lies before it is a gap that reading back will fill.

Source: server-server API, "Joining Rooms", the response of `send_join`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from appliance.matrix import auth
from appliance.matrix.auth import CREATE, Rejected
from appliance.matrix.errors import Forbidden, MatrixError
from appliance.matrix.event import Event, event_id_of
from appliance.matrix.ids import EventId, RoomId, ServerName
from appliance.matrix.versions import RoomVersion
from appliance.rooms.receive import Receiver
from appliance.rooms.steps.asking import Pdu
from appliance.rooms.steps.auth import Judged, judge, judge_all
from appliance.rooms.steps.fetch_auth import judged
from appliance.rooms.steps.parse import genuine, parse, verify
from appliance.store import device_lists, graph, rooms
from appliance.store.append import New, Place
from appliance.store.events import Row
from appliance.store.state import Key
from appliance.store.writer import Tx

MOST: Final = 100_000
"""Events in the state of a room, and in what authorises it."""


class BadRoom(MatrixError):
    """What the peer told about the room does not hold together; another peer may know better."""

    status, errcode = 502, "M_UNKNOWN"


async def import_join(
    receiver: Receiver, room_id: RoomId, version: RoomVersion, join: Pdu, state: Sequence[Pdu],
    auth_chain: Sequence[Pdu], origin: ServerName,
) -> Row:
    """Take in a room with the join of one of our users; returns the join as it is on disk. Raises `BadRoom`."""
    if len(state) + len(auth_chain) > MOST:
        raise BadRoom("The room's state is too large")
    own = await _own(receiver, room_id, version, join)
    found = await genuine(receiver.archive.signatures, [*auth_chain, *state], version, room_id)
    known = await receiver.store.read(judged, [*found, *own.auth_events])
    fresh = {event_id: event for event_id, event in found.items() if event_id not in known}
    verdicts = await asyncio.to_thread(judge_all, fresh, known)
    before = _state(state, version, {**known, **verdicts})
    _check(own, before, {**known, **verdicts}, version)
    head = await receiver.heads.get(room_id)
    if head is None:
        return await _append(receiver, room_id, version, own, verdicts, before)
    async with receiver.standing(room_id) as head:
        row = await _append(receiver, room_id, version, own, verdicts, before)
        head.broken = True  # the room continues from the join alone: it is read anew
        return row


async def _own(receiver: Receiver, room_id: RoomId, version: RoomVersion, join: Pdu) -> Event:
    event = parse(join, version, room_id)
    if event.type != "m.room.member" or event.content.get("membership") != "join":
        raise BadRoom("The peer did not answer with the join")
    checked = (await verify(receiver.archive.signatures, [event]))[event.event_id]
    if not isinstance(checked, Event):
        raise BadRoom(f"The join is not signed as it must be: {checked.message}")
    return checked


def _state(state: Sequence[Pdu], version: RoomVersion, verdicts: Mapping[EventId, Judged]) -> dict[Key, Event]:
    """Return the state that the peer claims, without what does not hold."""
    found: dict[Key, Event] = {}
    for pdu in state:
        verdict = verdicts.get(event_id_of(pdu, version)) if isinstance(pdu.get("content"), dict) else None
        if verdict is None or verdict.rejected is not None or verdict.event.state_key is None:
            continue
        if found.setdefault(verdict.event.key, verdict.event) != verdict.event:
            raise BadRoom("The room's state names two events for one thing")
    return found


def _check(
    own: Event, before: Mapping[Key, Event], verdicts: Mapping[EventId, Judged], version: RoomVersion
) -> None:
    """The room must be of its version, and both its state and the auth events must let us in."""
    create = before.get(CREATE)
    if create is None or create.content.get("room_version", "1") != version.name:
        raise BadRoom("The room's state has no create event of its version")
    below = {**verdicts, create.event_id: Judged(create)}
    if any(event_id not in below for event_id in own.auth_events):
        raise BadRoom("What authorises the join is missing")
    verdict = judge(own, below)
    if verdict.rejected is not None:
        raise BadRoom(f"The join is not allowed: {verdict.rejected}")
    keys = auth.auth_keys(version, own.type, own.sender, own.state_key, own.content)
    try:
        auth.check(own, {key: before[key] for key in {*keys, CREATE} if key in before})
    except Rejected as error:
        raise Forbidden(f"The room does not let you in: {error}") from error


async def _append(
    receiver: Receiver, room_id: RoomId, version: RoomVersion, own: Event, verdicts: Mapping[EventId, Judged],
    before: Mapping[Key, Event],
) -> Row:
    """Store everything in one transaction: outliers, the state, and the join as the room's only tip."""

    def room(tx: Tx) -> int:
        found = rooms.find(tx, room_id)
        return found.rid if found is not None else rooms.insert(tx, room_id, version.name)

    def prepare(tx: Tx, rid: int) -> New:
        for verdict in verdicts.values():
            graph.add_outlier(tx, rid, verdict.event, rejected=verdict.rejected is not None)
        eids = graph.eids_of(tx, [event.event_id for event in before.values()])
        state = {key: eids[event.event_id] for key, event in before.items()}
        held = graph.known(tx, [own.event_id, *own.prev_events])
        missing = [e for e in dict.fromkeys(own.prev_events) if e not in held or held[e].sid is None]
        outlier = held[own.event_id].eid if own.event_id in held else None
        if own.state_key is not None:
            device_lists.tell_again(tx, own.state_key)  # to servers that may never have heard of them
        return New(
            own, before=graph.add_state(tx, rid, None, state), current={**state, own.key: 0},
            place=Place((0,), missing, outlier),
        )  # fmt: skip

    row = await receiver.ledger.append_placed(room, prepare)
    receiver.members.forget_room(room_id)
    return row

"""Several wards that know each other: peers in memory, real stores and signatures, post delivered by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.link.errors import RefusedByPeer, Unreachable
from appliance.matrix import auth, versions
from appliance.matrix import event as matrix_event
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, RoomId, ServerName, UserId, server_of
from appliance.matrix.requester import Requester
from appliance.matrix.signing import BadSignature, SigningKey, decode_base64, verify_json
from appliance.rooms.backfill import Backfill
from appliance.rooms.imported import import_join
from appliance.rooms.receive import Outcome, Receiver
from appliance.store import events, graph, rooms, state
from appliance.store.database import Store
from appliance.store.events import REJECTED, Row
from appliance.store.readers import Rx
from tests.world.rooms import Ward

Pdu = Mapping[str, Any]
StateIds = dict[tuple[str, str], str]


@dataclass
class States:
    """A state before an event, as a peer tells it."""

    pdus: list[Pdu]
    auth_chain: list[Pdu]

    @property
    def pdu_ids(self) -> list[str]:
        return [_id(pdu) for pdu in self.pdus]

    @property
    def auth_chain_ids(self) -> list[str]:
        return [_id(pdu) for pdu in self.auth_chain]


V: dict[str, str] = {}
"""Room version by room id, so that a PDU can be named."""


def _id(pdu: Pdu) -> str:
    room_id = pdu.get("room_id")
    return matrix_event.event_id_of(pdu, versions.get(V[room_id] if room_id in V else "12"))


class Town:
    """All wards by name, and what goes wrong between them."""

    def __init__(self) -> None:
        self.wards: dict[ServerName, RemoteWard] = {}
        self.keys: dict[ServerName, SigningKey] = {}
        self.withheld: set[str] = set()
        """Events that no peer gives away."""
        self.silent: set[ServerName] = set()
        """Peers that cannot be reached."""
        self.calls: list[tuple[str, ServerName]] = []
        self.lies: dict[str, Callable[..., Any]] = {}
        """What a peer answers instead, by name of the question."""

    async def verify_events(self, found: Sequence[Event]) -> list[BadSignature | None]:
        return [self._verify(event) for event in found]

    def _verify(self, event: Event) -> BadSignature | None:
        essence = matrix_event.redact(event.pdu, event.version)
        for server in matrix_event.signers(event):
            key = self.keys.get(server)
            if key is None:
                return BadSignature("nobody knows this server")
            try:
                verify_json({**essence, "signatures": event.pdu["signatures"]}, server, key.key_id, _verify_key(key))
            except BadSignature as error:
                return error
        return None

    # -- peers

    def _ward(self, question: str, peer: ServerName) -> RemoteWard:
        self.calls.append((question, peer))
        if peer in self.silent or peer not in self.wards:
            raise Unreachable(peer, "could not be connected to")
        return self.wards[peer]

    async def event(self, peer: ServerName, event_id: EventId) -> Pdu:
        if "event" in self.lies:
            self._ward("event", peer)
            return self.lies["event"](event_id)
        rows = await self._ward("event", peer).store.read(events.fetch, [event_id])
        if event_id not in rows or event_id in self.withheld:
            raise RefusedByPeer(peer, 404, "M_NOT_FOUND")
        return rows[event_id].event.pdu

    async def event_auth(self, peer: ServerName, room_id: RoomId, event_id: EventId) -> Sequence[Pdu]:
        ward = self._ward("event_auth", peer)
        if "event_auth" in self.lies:
            return self.lies["event_auth"](event_id)
        chain = await ward.store.read(graph.auth_chain, [event_id])
        return [event.pdu for name, event in chain.items() if name not in self.withheld]

    async def state(self, peer: ServerName, room_id: RoomId, event_id: EventId) -> States:
        ward = self._ward("state", peer)
        if event_id in self.withheld:
            raise RefusedByPeer(peer, 404, "M_NOT_FOUND")
        if "state" in self.lies:
            return self.lies["state"](event_id)
        return await ward.store.read(_state_before, event_id, peer)

    async def state_ids(self, peer: ServerName, room_id: RoomId, event_id: EventId) -> States:
        return await self.state(peer, room_id, event_id)

    async def missing_events(
        self, peer: ServerName, room_id: RoomId, earliest: Iterable[EventId], latest: Iterable[EventId],
        limit: int, min_depth: int = 0,
    ) -> list[Pdu]:
        ward = self._ward("missing_events", peer)
        if "missing_events" in self.lies:
            return self.lies["missing_events"](list(latest))
        found = await ward.store.read(_back, list(latest), set(earliest), min(limit, 20))
        return [event.pdu for event in found if event.event_id not in self.withheld]

    async def backfill(self, peer: ServerName, room_id: RoomId, start: Iterable[EventId], limit: int) -> list[Pdu]:
        ward = self._ward("backfill", peer)
        names: list[str] = list(start)
        found = await ward.store.read(_these, names)
        found += await ward.store.read(_back, names, set(names), limit - len(found))
        return [event.pdu for event in found if event.event_id not in self.withheld]


def _verify_key(key: SigningKey) -> bytes:
    return decode_base64(key.verify_key_b64)


def _these(rx: Rx, names: list[str]) -> list[Event]:
    return [row.event for row in events.fetch(rx, names).values()]


def _back(rx: Rx, latest: list[str], earliest: set[str], limit: int) -> list[Event]:
    """Breadth first from the predecessors of `latest`, oldest last in, answered oldest first."""
    found: dict[str, Event] = {}
    level = [parent for row in events.fetch(rx, latest).values() for parent in row.event.prev_events]
    while level and len(found) < limit:
        rows = {k: row for k, row in events.fetch(rx, level).items() if k not in found and k not in earliest}
        for name, row in rows.items():
            if row.sid is not None and len(found) < limit:
                found[name] = row.event
        level = [parent for row in rows.values() for parent in row.event.prev_events]
    return list(reversed(found.values()))


def _state_before(rx: Rx, event_id: str, peer: ServerName) -> States:
    row = events.fetch(rx, [event_id]).get(event_id)
    if row is None or row.sid is None:
        raise RefusedByPeer(peer, 404, "M_NOT_FOUND")
    sid = events.sid_before(rx, row)
    rows = events.events_of(rx, sid) if sid is not None else []
    chain = graph.auth_chain(rx, [one.event.event_id for one in rows])
    return States([one.event.pdu for one in rows], [event.pdu for event in chain.values()])


class RemoteWard(Ward):
    """A ward with neighbours."""

    def __init__(self, town: Town, store: Store, server: ServerName, seed: int) -> None:
        super().__init__(store, server, seed)
        self.town = town
        town.wards[server] = self
        town.keys[server] = self.key
        self.receiver = Receiver(
            store, self.heads, self.ledger, self.members, town, town, server, self.clock
        )
        self.backfill = Backfill(self.receiver)
        self.sent: list[Event] = []
        """What our own users wrote, in order: to be delivered by the test."""
        self.seen: list[str] = []
        """Every event that reached the live timeline here, in order."""
        self.ledger.listen(self._landed)

    def _landed(self, row: Row, pruned_id: str | None) -> None:
        if row.flags == 0 and row.pos is not None and row.pos > 0:
            self.seen.append(row.event.event_id)
            if server_of(row.event.sender) == self.server:
                self.sent.append(row.event)

    async def get(self, event: Event | Pdu, origin: RemoteWard | ServerName) -> Outcome:
        """Receive one event."""
        name = origin if isinstance(origin, str) else origin.server
        return await self.receiver.receive(event.pdu if isinstance(event, Event) else event, name)

    async def enter(self, requester: Requester, other: RemoteWard, room_id: RoomId) -> Event:
        """Join a room through another server, as the handshake does."""
        join, before, chain = await other.admit(self, requester.user_id, room_id)
        V[room_id] = join.version.name
        await import_join(self.receiver, room_id, join.version, join.pdu, before, chain, other.server)
        return join

    async def admit(self, guest: RemoteWard, user_id: UserId, room_id: RoomId) -> tuple[Event, list[Pdu], list[Pdu]]:
        """Let a user of another server in: (the join, the state before it, its auth chain)."""
        head = await self.heads.get(room_id)
        assert head is not None
        V[room_id] = head.version.name
        content = {"membership": "join"}
        event = await guest.make(self, room_id, user_id, "m.room.member", content, user_id)
        before = await self.store.read(_current, room_id)
        outcome = await self.get(event, guest)
        assert outcome.verdict == "accepted", outcome
        chain = await self.store.read(graph.auth_chain, [one.event_id for one in before])
        return event, [one.pdu for one in before], [one.pdu for one in chain.values()]

    async def make(
        self, seen_by: RemoteWard, room_id: RoomId, sender: UserId, kind: str, content: Mapping[str, Any],
        state_key: str | None = None, *, prev: Sequence[Event] | None = None, auth_ids: Sequence[EventId] | None = None,
        ts: int | None = None, redacts: EventId | None = None,
    ) -> Event:
        """Make an event of this server's user without sending it; tips and state are what `seen_by` sees."""
        head = await seen_by.heads.get(room_id)
        assert head is not None
        keys = auth.auth_keys(head.version, kind, sender, state_key, content)
        tips = head.tips if prev is None else [(event.event_id, event.depth) for event in prev]
        return matrix_event.build(
            head.version, room_id=room_id, type=kind, sender=sender, state_key=state_key, content=content,
            origin_server_ts=self.clock() if ts is None else ts, depth=max(depth for _, depth in tips) + 1,
            prev_events=[event_id for event_id, _ in tips],
            auth_events=[head.state[key] for key in keys if key in head.state] if auth_ids is None else auth_ids,
            redacts=redacts, signer=self.key, server=self.server,
        )  # fmt: skip

    def resign(self, event: Event, *, prev: Sequence[EventId]) -> Event:
        """Return the same event with other predecessors, properly signed."""
        return matrix_event.build(
            event.version, room_id=event.room_id, type=event.type, sender=event.sender, state_key=event.state_key,
            content=event.content, origin_server_ts=event.origin_server_ts, depth=event.depth, prev_events=prev,
            auth_events=event.auth_events, redacts=event.redacts, signer=self.key, server=self.server,
        )  # fmt: skip

    async def state(self, room_id: RoomId) -> StateIds:
        """Return the current state as it is on disk, after checking that all its copies agree."""
        ids, members, copies = await self.store.read(_everything, room_id)
        head = await self.heads.get(room_id)
        assert head is not None and head.state == ids == copies
        for user_id, kind in members.items():
            cached = (await self.members.rooms_of(user_id))[room_id]
            assert cached.membership == kind, user_id
        joined = {u for u, kind in members.items() if kind == "join" and server_of(u) == self.server}
        assert await self.members.local_joined(room_id) == joined
        return ids

    async def tips(self, room_id: RoomId) -> set[str]:
        """Return the forward extremities, which memory and disk must agree on."""
        head = await self.heads.get(room_id)
        assert head is not None
        found = {tip.event_id for tip in await self.store.read(graph.tips, head.rid)}
        assert found == {event_id for event_id, _ in head.tips}
        return found

    async def timeline(self, room_id: RoomId) -> list[Event]:
        """Return everything a client could read, oldest first."""
        return [row.event for row in await self.store.read(_timeline, room_id)]

    async def flags(self, event: Event) -> int:
        """Return how an event was judged."""
        return (await self.store.read(events.fetch, [event.event_id]))[event.event_id].flags


def _current(rx: Rx, room_id: str) -> list[Event]:
    room = rooms.find(rx, room_id)
    assert room is not None
    return [row.event for row in events.current_events(rx, room.rid)]


def _everything(rx: Rx, room_id: str) -> tuple[StateIds, dict[str, str], StateIds]:
    room = rooms.find(rx, room_id)
    assert room is not None and room.sid is not None
    ids = dict(state.current_ids(rx, room.rid))
    names = graph.ids_of(rx, state.snapshot(rx, room.sid).values())
    copies = {key: names[eid] for key, eid in state.snapshot(rx, room.sid).items()}
    members = {str(member.user_id): member.membership for member in rooms.members(rx, room.rid)}
    for row in events.current_events(rx, room.rid):
        assert not row.flags & REJECTED
        if row.event.type == "m.room.member":
            assert members[str(row.event.state_key)] == row.event.content["membership"]
    return ids, members, copies


def _timeline(rx: Rx, room_id: str) -> list[Row]:
    room = rooms.find(rx, room_id)
    assert room is not None
    return events.timeline(rx, room.rid, after=-(2**62), upto=2**62, limit=100_000, backwards=False)


@asynccontextmanager
async def town(folder: Path, *names: str) -> AsyncIterator[list[RemoteWard]]:
    """Open wards that can reach each other."""
    async with AsyncExitStack() as stack:
        found = Town()
        wards = []
        for number, name in enumerate(names):
            place = folder / name
            await asyncio.to_thread(place.mkdir)
            store = await Store.open(place / "schleuse.db")
            stack.push_async_callback(store.close)
            wards.append(RemoteWard(found, store, ServerName(f"{name}.example"), 10 + number))
        yield wards


@dataclass
class Meeting:
    """A public room of the first ward's Ada in which one person of each other ward takes part."""

    wards: list[RemoteWard]
    room_id: RoomId
    people: list[Requester] = field(default_factory=list)
    rogue: Requester = field(init=False)
    victim: Requester = field(init=False)
    """Somebody on the second ward whom others throw out, and somebody on the third; where a test lets them in."""

    async def settle(self) -> None:
        """Deliver everything to everybody."""
        for ward in self.wards:
            sent, ward.sent = ward.sent, []
            for event in sent:
                for other in self.wards:
                    if other is not ward:
                        await other.get(event, ward)


async def meeting(wards: list[RemoteWard], version: str = "11") -> Meeting:
    """Found a room on the first ward and let one person of each other ward join it."""
    ada = await wards[0].person("ada")
    room_id = await wards[0].room(ada, preset="public_chat", version=version)
    V[room_id] = version
    found = Meeting(wards, room_id, [ada])
    for number, ward in enumerate(wards[1:]):
        person = await ward.person(f"p{number}")
        found.people.append(person)
        await ward.enter(person, wards[0], room_id)
    joins = [event for ward in wards[1:] for event in ward.sent]
    for ward in wards[1:]:
        for event in joins:
            await ward.get(event, wards[0])
    for ward in wards:
        ward.sent.clear()
    return found

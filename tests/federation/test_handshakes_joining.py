"""Our users join rooms of other servers: two and three servers with real stores, residents in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from appliance.federation import answers
from appliance.federation.answers import Joined, Template
from appliance.federation.joining import Joining, NoResident
from appliance.link.errors import RefusedByPeer, Unreachable
from appliance.matrix.errors import Forbidden, IncompatibleRoomVersion, MatrixError
from appliance.matrix.ids import EventId, RoomId, ServerName, UserId
from appliance.rooms import send
from appliance.rooms.handshakes import Coming, Handshakes
from tests.world.federation import RemoteWard, V, meeting, town

KNOWN = [str(n) for n in range(6, 13)]


class Residents:
    """The other wards' serving side, asked by `guest`; `spoil` changes what they answer."""

    def __init__(self, guest: RemoteWard) -> None:
        self.guest = guest
        self.asked: list[str] = []
        self.spoil: Callable[[dict[str, Any]], None] = lambda answer: None

    def _at(self, peer: ServerName) -> Handshakes:
        self.asked.append(peer)
        ward = self.guest.town.wards.get(peer)
        if ward is None or peer in self.guest.town.silent:
            raise Unreachable(peer, "could not be connected to")
        return Handshakes(ward.receiver, ward.author, ward.key)

    async def make_join(self, peer: ServerName, room_id: RoomId, user: UserId, versions: Iterable[str]) -> Template:
        offered = frozenset(versions)
        try:
            found = await self._at(peer).template(Coming(self.guest.server, room_id, "join"), user, offered)
        except MatrixError as error:
            version = error.body().get("room_version")
            named = version if isinstance(version, str) else None
            raise RefusedByPeer(peer, error.status, error.errcode, room_version=named) from error
        self.spoil(found)
        V[room_id] = found["room_version"]
        return answers.template(peer, found, room_id, user, "join", offered)

    async def send_join(self, peer: ServerName, room_id: RoomId, event_id: EventId, pdu: Mapping[str, Any]) -> Joined:
        coming = Coming(self.guest.server, room_id, "join")
        found = await self._at(peer).join(coming, event_id, pdu, omit_members=False)
        body: dict[str, Any] = {"event": found.event, "state": found.state, "auth_chain": found.auth_chain}
        self.spoil(body)
        return answers.read(peer, body, Joined)


def joining(ward: RemoteWard, known: list[str] = KNOWN) -> tuple[Joining, Residents]:
    residents = Residents(ward)
    return Joining(ward.receiver, ward.author, ward.key, residents, known), residents


@pytest.mark.parametrize("version", ["9", "10", "11", "12"])
async def test_a_room_of_another_server(tmp_path: Path, version: str) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben", "Ben")
        room_id = await a.room(ada, "public_chat", version=version, name="Station")
        door, _ = joining(b)
        assert await door.join(ben, room_id, [a.server], "rounds") == room_id
        assert await a.state(room_id) == await b.state(room_id)
        member = (await b.timeline(room_id))[-1]
        assert member.content == {"membership": "join", "displayname": "Ben", "reason": "rounds"}
        await b.say(ben, room_id, "hello")
        assert (await a.get(b.sent[-1], b)).verdict == "accepted"


async def test_a_restricted_room_on_the_word_of_its_server(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b])
        ada, ben = m.people
        rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": m.room_id}]}
        room_id = await a.room(ada)
        await send.state(a.author, ada, room_id, "m.room.join_rules", "", rules)
        door, _ = joining(b)
        await door.join(ben, room_id, [a.server])
        assert await a.state(room_id) == await b.state(room_id)
        signatures = (await b.timeline(room_id))[-1].pdu["signatures"]
        assert isinstance(signatures, dict) and set(signatures) == {a.server, b.server}


async def test_the_next_resident_helps_where_one_does_not(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b])
        late = await c.person("late")
        a.town.silent.add(a.server)
        door, residents = joining(c)
        via = [c.server, ServerName("nowhere.example"), a.server, a.server, b.server]
        await door.join(late, m.room_id, via)
        assert residents.asked == ["nowhere.example", a.server, b.server, b.server]
        assert await b.state(m.room_id) == await c.state(m.room_id)


async def test_two_of_us_at_once_are_one_handshake(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, people = await a.person("ada"), [await b.person(f"p{n}") for n in range(3)]
        room_id = await a.room(ada, "public_chat")
        door, residents = joining(b)
        await asyncio.gather(*(door.join(person, room_id, [a.server]) for person in people))
        assert residents.asked == [a.server, a.server]
        for event in b.sent[1:]:
            await a.get(event, b)
        assert await a.state(room_id) == await b.state(room_id)


async def test_refusals(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben")
        private, public = await a.room(ada), await a.room(ada, "public_chat", version="12")
        door, residents = joining(b)
        for room_id, via, refusal in (
            (private, [a.server, ServerName("nowhere.example")], Forbidden), (public, [], NoResident),
            (public, [b.server], NoResident), (RoomId("!x:a.example"), [a.server], NoResident),
        ):  # fmt: skip
            with pytest.raises(refusal):
                await door.join(ben, room_id, via)
        with pytest.raises(IncompatibleRoomVersion):
            await joining(b, ["9", "10"])[0].join(ben, public, [a.server])
        assert await b.heads.get(public) is None and await b.heads.get(private) is None
        many = [ServerName(f"s{n}.example") for n in range(20)]
        residents.asked.clear()
        with pytest.raises(NoResident):
            await door.join(ben, public, many)
        assert residents.asked == many[:5]


@pytest.mark.parametrize(
    "change",
    [
        {"depth": -1}, {"depth": "x"}, {"prev_events": []}, {"prev_events": ["$x"] * 21}, {"auth_events": [1]},
        {"auth_events": ["$x" * 200]}, {"prev_events": None},
    ],
)  # fmt: skip
async def test_a_template_that_is_none(tmp_path: Path, change: dict[str, Any]) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, "public_chat")
        door, residents = joining(b)
        residents.spoil = lambda answer: answer["event"].update(change)
        with pytest.raises(NoResident):
            await door.join(ben, room_id, [a.server])
        assert await b.heads.get(room_id) is None

"""The writing side of rooms: what our own users may do, and that it is on disk once and whole."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest

from appliance.matrix.errors import Forbidden, MatrixError, UnsupportedRoomVersion
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, RoomId, UserId
from appliance.rooms import invite, join, leave, send, upgrade
from appliance.rooms.create import RoomInUse
from appliance.rooms.profiles import profile_changed
from appliance.store import append, events, profiles, rooms, state
from appliance.store.profiles import Profile
from appliance.store.readers import Rx
from appliance.store.writer import Tx
from tests.world.rooms import SERVER, Ward, ward


def _timeline(rx: Rx, room_id: str) -> list[Event]:
    room = rooms.find(rx, room_id)
    assert room is not None
    rows = events.timeline(rx, room.rid, after=0, upto=2**40, limit=10_000, backwards=False)
    return [row.event for row in rows]


def _state(rx: Rx, room_id: str) -> dict[tuple[str, str], Event]:
    room = rooms.find(rx, room_id)
    assert room is not None
    return {row.event.key: row.event for row in events.current_events(rx, room.rid)}


def _count(rx: Rx, table: str) -> int:
    return int(rx.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


async def _membership(w: Ward, user: str, room_id: str) -> str:
    return (await w.members.rooms_of(user))[RoomId(room_id)].membership


@pytest.mark.parametrize("version", ["9", "10", "11", "12"])
async def test_a_room_of_each_version_lives(tmp_path: Path, version: str) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada", "Ada"), await w.person("ben")
        wish: dict[str, Any] = {"name": "Station 3", "topic": "Night", "invite": (ben.user_id,), "is_direct": True}
        room_id = await w.room(ada, version=version, **wish)
        assert await _membership(w, ben.user_id, room_id) == "invite"
        await w.join(ben, room_id)
        said = await w.say(ben, room_id, "hello")
        found = await w.store.read(_state, room_id)
        assert found["m.room.create", ""].content["room_version"] == version
        assert found["m.room.name", ""].content == {"name": "Station 3"}
        assert found["m.room.member", ben.user_id].content["membership"] == "join"
        line = await w.store.read(_timeline, room_id)
        assert [event.type for event in line][:3] == ["m.room.create", "m.room.member", "m.room.power_levels"]
        assert line[-1].event_id == said
        # A line of events: each follows the one before and is one deeper.
        assert all(b.prev_events == (a.event_id,) and b.depth == a.depth + 1 for a, b in itertools.pairwise(line))


async def test_a_plain_message_costs_one_row_and_no_state(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        tables = ("event", "snapshot", "current_state", "state_log", "membership", "tip", "state_key", "relation")
        before = {table: await w.store.read(_count, table) for table in tables}
        for number in range(10):
            await w.say(ada, room_id, str(number))
        after = {table: await w.store.read(_count, table) for table in tables}
        assert after == {**before, "event": before["event"] + 10}


async def test_the_same_ticket_many_times_is_one_event(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)

        async def once() -> EventId:
            return await send.message(w.author, ada, room_id, "m.room.message", {"body": "x"}, "same")

        first = set(await asyncio.gather(*(once() for _ in range(32))))
        w.author._sent.clear()  # as after a restart
        again = set(await asyncio.gather(*(once() for _ in range(32))))
        assert first == again and len(first) == 1
        assert [event.type for event in await w.store.read(_timeline, room_id)].count("m.room.message") == 1
        await w.say(ada, room_id, "the room goes on")


async def test_a_failed_commit_breaks_nothing_but_itself(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)

        def explode(tx: Tx) -> None:
            raise RuntimeError("as a bug in a neighbour of the group would")

        sends = [asyncio.ensure_future(w.say(ada, room_id, str(n))) for n in range(20)]
        with pytest.raises(RuntimeError):
            await w.store.write(explode)
        ids = await asyncio.gather(*sends)
        said = [event.event_id for event in await w.store.read(_timeline, room_id) if event.type == "m.room.message"]
        assert sorted(said) == sorted(ids)


async def test_events_built_on_a_lost_one_are_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        real = append.append

        def flaky(tx: Tx, rid: int, new: append.New, *listeners: Any) -> events.Row:
            if new.event.content.get("body") == "3":
                raise OSError("the disk does not like this one")
            return real(tx, rid, new, *listeners)

        monkeypatch.setattr(append, "append", flaky)
        results = await asyncio.gather(*(w.say(ada, room_id, str(n)) for n in range(8)), return_exceptions=True)
        lost = [result for result in results if isinstance(result, BaseException)]
        kept = [result for result in results if not isinstance(result, BaseException)]
        assert len(lost) == 1 and isinstance(lost[0], OSError)
        line = await w.store.read(_timeline, room_id)
        assert {event.event_id for event in line if event.type == "m.room.message"} == set(kept)
        known = {event.event_id for event in line}
        assert all(set(event.prev_events) <= known for event in line)


async def test_what_the_rules_refuse(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada)
        for attempt in (
            w.say(ben, room_id, "outsider"),
            w.join(ben, room_id),
            invite.invite(w.author, ben, room_id, ben.user_id),
            leave.kick(w.author, ada, room_id, ben.user_id, None),
            leave.unban(w.author, ada, room_id, ben.user_id, None),
            leave.leave(w.author, w.members, ben, room_id),
            send.state(w.author, ben, room_id, "m.room.topic", "", {"topic": "x"}),
            w.say(ada, RoomId(f"!nowhere:{SERVER}"), "void"),
        ):
            with pytest.raises(Forbidden):
                await attempt
        with pytest.raises(UnsupportedRoomVersion):
            await w.room(ada, version="1")
        with pytest.raises(MatrixError):
            await w.room(ada, invite=(UserId("@x:elsewhere.example"),))


async def test_members_come_and_go(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        assert await w.members.local_joined(room_id) == {ada.user_id, ben.user_id}
        await leave.kick(w.author, ada, room_id, ben.user_id, "rest")
        await w.join(ben, room_id)
        await leave.ban(w.author, ada, room_id, ben.user_id, None)
        with pytest.raises(Forbidden):
            await w.join(ben, room_id)
        await leave.unban(w.author, ada, room_id, ben.user_id, None)
        await leave.forget(w.author, w.members, ben, room_id)
        assert (await w.members.rooms_of(ben.user_id))[room_id].forgotten
        await w.join(ben, room_id)
        assert not (await w.members.rooms_of(ben.user_id))[room_id].forgotten
        assert await w.members.local_joined(room_id) == {ada.user_id, ben.user_id}


async def test_restricted_and_knocking(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        space = await w.room(ada, "public_chat", creation_content={"type": "m.space"})
        rule = {"join_rule": "knock_restricted", "allow": [{"type": "m.room_membership", "room_id": space}]}
        room_id = await w.room(ada, initial_state=[("m.room.join_rules", "", rule)])
        with pytest.raises(Forbidden):
            await w.join(ben, room_id)
        await join.knock(w.author, ben, room_id, "please")
        assert await _membership(w, ben.user_id, room_id) == "knock"
        shown = await w.store.read(rooms.stripped, ben.user_id, (await w.author.head(room_id)).rid)
        assert {entry["type"] for entry in shown} >= {"m.room.create", "m.room.join_rules", "m.room.member"}
        await leave.leave(w.author, w.members, ben, room_id)
        await w.join(ben, space)
        await w.join(ben, room_id)
        member = (await w.store.read(_state, room_id))["m.room.member", ben.user_id]
        assert member.content["join_authorised_via_users_server"] == ada.user_id


async def test_redactions_take_the_content_from_disk_and_memory(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        mine, theirs = await w.say(ben, room_id, "secret-mine"), await w.say(ada, room_id, "secret-hers")
        with pytest.raises(Forbidden):
            await send.redact(w.author, ben, room_id, theirs, {}, "r1")
        redaction = await send.redact(w.author, ben, room_id, mine, {"reason": "wrong room"}, "r2")
        assert await send.redact(w.author, ben, room_id, mine, {}, "r2") == redaction
        row = (await w.store.read(events.fetch, [mine]))[mine]
        assert row.event.content == {} and row.redacted_by is not None
        rid = (await w.author.head(room_id)).rid
        recent = w.live.since(rid, 0, 2**40)
        assert recent is not None and all("secret-mine" not in str(r.event.content) for r in recent)


async def test_state_said_twice_is_one_event(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        first = await send.state(w.author, ada, room_id, "m.room.topic", "", {"topic": "x"})
        assert await send.state(w.author, ada, room_id, "m.room.topic", "", {"topic": "x"}) == first
        assert await send.state(w.author, ada, room_id, "m.room.topic", "", {"topic": "y"}) != first


async def test_an_alias_belongs_to_one_room(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada, alias=f"#ward:{SERVER}")
        with pytest.raises(RoomInUse):
            await w.room(ada, alias=f"#ward:{SERVER}")
        assert await join.find(w.author, f"#ward:{SERVER}") == room_id
        with pytest.raises(MatrixError, match="does not point"):
            await send.state(w.author, ada, room_id, "m.room.canonical_alias", "", {"alias": f"#other:{SERVER}"})


async def test_a_new_face_shows_in_every_room(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada", "Ada")
        one, two = await w.room(ada), await w.room(ada)
        await w.store.write(profiles.put, Profile(ada.user_id, "Dr. Ada", "mxc://test.example/x"))
        await profile_changed(w.author, w.members, ada.user_id)
        for room_id in (one, two):
            member = (await w.store.read(_state, room_id))["m.room.member", ada.user_id]
            assert member.content["displayname"] == "Dr. Ada"


@pytest.mark.parametrize(("old", "new"), [("9", "11"), ("11", "12"), ("12", "11")])
async def test_upgrades_carry_the_room_over(tmp_path: Path, old: str, new: str) -> None:
    async with ward(tmp_path) as w:
        ada, ben, eve = await w.person("ada"), await w.person("ben"), await w.person("eve")
        room_id = await w.room(ada, "public_chat", version=old, name="Ward", alias=f"#w:{SERVER}", public=True)
        await w.join(ben, room_id)
        await leave.ban(w.author, ada, room_id, eve.user_id, None)
        with pytest.raises(Forbidden):
            await upgrade.upgrade(w.author, w.founding, ben, room_id, new)
        successor = await upgrade.upgrade(w.author, w.founding, ada, room_id, new)
        found = await w.store.read(_state, successor)
        predecessor = found["m.room.create", ""].content["predecessor"]
        assert isinstance(predecessor, dict) and predecessor["room_id"] == room_id
        assert found["m.room.name", ""].content == {"name": "Ward"}
        assert found["m.room.member", eve.user_id].content["membership"] == "ban"
        closed = await w.store.read(_state, room_id)
        assert closed["m.room.tombstone", ""].content["replacement_room"] == successor
        assert await join.find(w.author, f"#w:{SERVER}") == successor
        with pytest.raises(Forbidden):
            await w.say(ben, room_id, "still here")
        await w.join(ben, successor)
        await w.say(ben, successor, "moved")


async def test_snapshots_tell_the_state_at_any_moment(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        seen = []
        for number in range(150):  # more than two full copies
            await send.state(w.author, ada, room_id, "m.room.topic", "", {"topic": str(number)})
            seen.append((w.store.changes.position, str(number)))
        rid = (await w.author.head(room_id)).rid

        def topic_at(rx: Rx, pos: int) -> object:
            sid = state.sid_at(rx, rid, pos)
            assert sid is not None
            return events.events_of(rx, sid, [("m.room.topic", "")])[0].event.content["topic"]

        for pos, topic in seen:
            assert await w.store.read(topic_at, pos) == topic

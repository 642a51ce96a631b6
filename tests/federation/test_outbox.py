"""What is owed to other servers is on disk with the event itself, in order, and costs nothing without federation."""

import json
from pathlib import Path

import pytest

from appliance.matrix import event as matrix_event
from appliance.matrix import versions
from appliance.matrix.errors import Forbidden
from appliance.matrix.event import Event
from appliance.matrix.ids import RoomId, UserId
from appliance.matrix.signing import generate
from appliance.rooms.author import Author
from appliance.store import append, device_lists, outbox, rooms
from appliance.store.append import New
from appliance.store.database import Store
from appliance.store.outbox import Flight, Trouble
from appliance.store.readers import Rx
from appliance.store.writer import Tx
from tests.world.rooms import SERVER, Ward, ward

KEY = generate("b", b"b" * 32)


def federating(w: Ward) -> Ward:
    """Let the author of a ward owe its events to others."""
    w.author = Author(
        w.store, w.heads, w.ledger, generate("test", b"\x07" * 32), SERVER, w.clock, lambda event, state: None,
        federates=True,
    )  # fmt: skip
    return w


def remote_member(tx: Tx, room_id: str, user_id: str, membership: str) -> None:
    """Seat somebody of another server in a room, without an event."""
    room = rooms.find(tx, room_id)
    assert room is not None
    rooms.set_membership(tx, user_id, room.rid, membership, 1, tx.next_pos())


def all_rows(rx: Rx) -> list[tuple[str, str]]:
    rows = rx.execute("SELECT o.peer, e.event_id FROM outbox o JOIN event e USING (eid) ORDER BY o.peer, o.pos")
    return [(peer, event_id) for peer, event_id in rows]


async def test_each_server_in_the_room_is_owed_each_event(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        federating(w)
        ada = await w.person("ada")
        room_id = await w.room(ada)
        assert await w.store.read(all_rows) == []
        for user in ("@x:b.example", "@y:b.example", "@z:c.example:8448"):
            await w.store.write(remote_member, room_id, user, "join")
        await w.store.write(remote_member, room_id, "@gone:d.example", "leave")
        await w.store.write(remote_member, room_id, "@asked:e.example", "invite")
        said = [await w.say(ada, room_id, str(number)) for number in range(3)]
        assert await w.store.read(all_rows) == [
            (peer, event_id) for peer in ("b.example", "c.example:8448") for event_id in said
        ]


async def test_the_last_of_a_server_still_hears_that_they_were_sent_away(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        federating(w)
        ada = await w.person("ada")
        room_id = await w.room(ada)
        room = await w.store.read(rooms.find, room_id)
        assert room is not None
        kick = event(w, room_id, "@x:b.example", "leave")
        await w.store.write(remote_member, room_id, "@x:b.example", "join")
        await w.store.write(owe_only, room.rid, kick)
        await w.store.write(remote_member, room_id, "@x:b.example", "leave")
        await w.say(ada, room_id, "among ourselves")
        rescinded = event(w, room_id, "@asked:e.example", "leave")
        await w.store.write(owe_only, room.rid, rescinded)
        assert [peer for peer, _ in await w.store.read(all_rows)] == ["b.example", "e.example"]


def event(w: Ward, room_id: str, subject: str, membership: str) -> Event:
    return matrix_event.build(
        versions.get("11"), room_id=RoomId(room_id), type="m.room.member", sender=UserId(f"@ada:{SERVER}"),
        state_key=subject, content={"membership": membership}, origin_server_ts=1, depth=9, prev_events=[],
        auth_events=[], signer=KEY, server=SERVER,
    )  # fmt: skip


def owe_only(tx: Tx, rid: int, made: Event) -> None:
    row = append._insert(tx, rid, New(made), tx.next_pos())
    outbox.owe(tx, row, (), SERVER)


async def test_who_comes_into_a_room_shows_their_devices_to_the_servers_in_it(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        federating(w)
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, invite=(ben.user_id,))
        await w.store.write(remote_member, room_id, "@x:b.example", "join")
        assert await w.store.read(device_lists.untold, SERVER, 10) == (0, [])
        await w.join(ben, room_id)
        assert (await w.store.read(device_lists.untold, SERVER, 10))[1] == [ben.user_id]


async def test_without_federation_nothing_is_owed(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        await w.store.write(remote_member, room_id, "@x:b.example", "join")
        await w.say(ada, room_id, "hello")
        assert await w.store.read(all_rows) == []


async def test_a_refused_event_owes_nothing(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        federating(w)
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada)
        await w.store.write(remote_member, room_id, "@x:b.example", "join")
        with pytest.raises(Forbidden):
            await w.say(ben, room_id, "I am not in here")
        assert await w.store.read(all_rows) == []


# -- transactions ----------------------------------------------------------------------------------------------------


async def opened(tmp_path: Path) -> Store:
    return await Store.open(tmp_path / "x.db")


def edus(tx: Tx, peer: str, first: int, last: int, key: str | None = None) -> None:
    for number in range(first, last):
        outbox.owe_edu(tx, json.dumps(number).encode(), [peer], key)


def numbers(flight: Flight | None) -> list[int]:
    assert flight is not None
    return [json.loads(raw) for raw in flight.edus]


async def test_a_transaction_is_a_prefix_and_stays_the_same_until_it_is_answered(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.write(edus, "b", 0, 130)
    first = await store.write(outbox.turn, "b", None, [b'"typing"'], 5)
    assert numbers(first) == list(range(100)) and first is not None and first.ts == 5
    await store.write(edus, "b", 130, 140)
    await store.close()
    store = await opened(tmp_path)
    assert await store.write(outbox.turn, "b", None, [b'"later"'], 99) == first
    second = await store.write(outbox.turn, "b", first, [b'"typing"'], 6)
    assert numbers(second) == [*range(100, 140), "typing"] and second is not None and second.txn != first.txn
    assert await store.write(outbox.turn, "b", None, [], 7) == second
    assert await store.write(outbox.turn, "b", second, [], 8) is None
    assert await store.read(outbox.owed, "b") == 0
    await store.close()


async def test_what_is_newer_takes_the_place_of_what_has_not_gone_out(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.write(edus, "b", 0, 3, "receipt")
    flight = await store.write(outbox.turn, "b", None, [], 5)
    assert numbers(flight) == [2]
    await store.write(edus, "b", 3, 6, "receipt")
    assert await store.write(outbox.turn, "b", None, [], 5) == flight  # what is under way does not change
    assert numbers(await store.write(outbox.turn, "b", flight, [], 5)) == [5]
    await store.close()


async def test_a_transaction_has_a_limit_in_bytes(tmp_path: Path) -> None:
    store = await opened(tmp_path)

    def large(tx: Tx) -> None:
        for _ in range(10):
            outbox.owe_edu(tx, b'"' + b"x" * 1_000_000 + b'"', ["b"])

    await store.write(large)
    flight = await store.write(outbox.turn, "b", None, [], 5)
    assert flight is not None and len(flight.edus) == 4
    assert await store.write(outbox.turn, "b", None, [], 6) == flight
    await store.close()


async def test_troubles_are_remembered_and_end_with_an_answer(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.write(edus, "b", 0, 1)
    await store.write(edus, "c", 0, 1)
    await store.write(outbox.set_trouble, "b", Trouble(3, 77, True))
    assert await store.read(outbox.peers) == {"b": Trouble(3, 77, True), "c": Trouble(0, 0)}
    flight = await store.write(outbox.turn, "b", None, [], 5)
    await store.write(edus, "b", 1, 2)
    await store.write(outbox.turn, "b", flight, [], 5)
    assert (await store.read(outbox.peers))["b"] == Trouble(0, 0)
    await store.close()

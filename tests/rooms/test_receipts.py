"""Receipts, read markers, typing, reports."""

from __future__ import annotations

import asyncio
from pathlib import Path

import orjson
import pytest

from appliance.matrix.errors import Forbidden, InvalidParam, LimitExceeded, NotFound
from appliance.matrix.requester import Requester
from appliance.rooms import leave, receipts, reports, typing
from appliance.rooms.receipts import Markers
from appliance.rooms.typing import Typing
from appliance.store import account_data, rooms
from appliance.store import receipts as kept
from appliance.store import reports as filed
from appliance.store.readers import Rx
from appliance.store.receipts import ReceiptRow
from tests.rooms.reading import relate
from tests.world.rooms import SERVER, Ward, ward


def _receipts(rx: Rx, room_id: str, user_id: str) -> list[ReceiptRow]:
    room = rooms.find(rx, room_id)
    assert room is not None
    assert kept.changed(rx, room.rid, 0, 2**40) == sorted(kept.changed(rx, room.rid, 0, 2**40), key=lambda row: row.pos)
    return kept.of_user(rx, room.rid, user_id)


async def _move(w: Ward, who: Requester, room_id: str, thread: str = "", **events: str) -> None:
    names = {"read": "m.read", "private": "m.read.private", "fully": "m.fully_read"}
    named = {names[kind]: event_id for kind, event_id in events.items()}
    await w.store.write(receipts.move, who.user_id, room_id, Markers(named, thread), 5)


async def test_receipts_move_forward_only(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        one, two, three = [await w.say(ada, room_id, str(number)) for number in range(3)]
        await _move(w, ada, room_id, read=two)
        await _move(w, ada, room_id, read=one)
        await _move(w, ada, room_id, private=three)
        found = await w.store.read(_receipts, room_id, ada.user_id)
        assert {(row.kind, row.event_id) for row in found} == {("m.read", two), ("m.read.private", three)}
        position = w.store.changes.position
        await _move(w, ada, room_id, read=two)
        assert w.store.changes.position == position, "what changes nothing wakes nobody"


async def test_the_fully_read_marker_is_account_data_and_moves_forward_only(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        one, two = [await w.say(ada, room_id, str(number)) for number in range(2)]
        await _move(w, ada, room_id, fully=two, read=two, private=one)
        await _move(w, ada, room_id, fully=one)
        raw = await w.store.read(account_data.get, ada.user_id, room_id, "m.fully_read")
        assert raw is not None and orjson.loads(raw) == {"event_id": two}
        assert len(await w.store.read(_receipts, room_id, ada.user_id)) == 2


async def test_a_receipt_needs_a_member_and_an_event_of_the_room(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id, other = await w.room(ada), await w.room(ada)
        inside, outside = await w.say(ada, room_id, "x"), await w.say(ada, other, "y")
        with pytest.raises(Forbidden):
            await _move(w, ben, room_id, read=inside)
        for wrong in (outside, "$unknown"):
            with pytest.raises(InvalidParam):
                await _move(w, ada, room_id, read=inside, fully=wrong)
        assert await w.store.read(_receipts, room_id, ada.user_id) == [], "all or nothing"


async def test_threaded_receipts_name_events_of_their_thread(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        plain, root = await w.say(ada, room_id, "plain"), await w.say(ada, room_id, "root")
        inside = await relate(w, ada, room_id, root, "m.thread")
        deeper = await relate(w, ada, room_id, inside, "m.reference")
        on_root = await relate(w, ada, room_id, root, "m.reference")
        good = [("main", plain), ("main", root), ("main", on_root), (root, inside), (root, deeper), (root, root)]
        for thread, event_id in good:
            await _move(w, ada, room_id, thread, read=event_id)
        for thread, event_id in (("main", inside), ("main", deeper), (root, plain), (root, on_root), ("$x", inside)):
            with pytest.raises(InvalidParam):
                await _move(w, ada, room_id, thread, read=event_id)
        await _move(w, ada, room_id, read=deeper)
        found = await w.store.read(_receipts, room_id, ada.user_id)
        assert {row.thread_id: row.event_id for row in found} == {"main": on_root, root: deeper, "": deeper}


async def test_old_threads_make_room_for_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "MAX_THREADS", 3)
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        roots = [await w.say(ada, room_id, str(number)) for number in range(5)]
        await _move(w, ada, room_id, read=roots[0])
        for root in roots:
            await _move(w, ada, room_id, root, read=root)
        found = await w.store.read(_receipts, room_id, ada.user_id)
        assert {row.thread_id for row in found} == {"", *roots[2:]}


async def test_typing_ends_by_itself_and_tells_of_changes_only(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    change = asyncio.Event()

    def listen(room_id: str) -> None:
        told.append(room_id)
        change.set()

    people = Typing(1_000, listen)
    people.set("!r", "@b", 60_000)
    people.set("!r", "@a", 20)
    assert people.users("!r") == ["@a", "@b"] and people.users("!other") == []
    assert (people.position, people.serial("!r"), people.serial("!other")) == (1_002, 1_002, 0)
    people.set("!r", "@b", 60_000)  # still typing: nothing new
    assert told == ["!r", "!r"]
    change.clear()
    await asyncio.wait_for(change.wait(), 5)
    assert people.users("!r") == ["@b"]
    people.stop("!r", "@b")
    people.stop("!r", "@b")
    assert people.users("!r") == [] and told == ["!r"] * 4
    monkeypatch.setattr(typing, "MAX_MS", 10)
    people.set("!r", "@a", 10**12)
    change.clear()
    await asyncio.wait_for(change.wait(), 5)
    assert people.users("!r") == []
    people.set("!r", "@a", 1000)
    people.close()
    assert people.users("!r") == []


async def test_who_has_sent_or_left_no_longer_types(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        people = Typing(1)
        w.ledger.listen(people.committed)
        people.set(room_id, ada.user_id, 60_000)
        people.set(room_id, ben.user_id, 60_000)
        await w.say(ada, room_id, "done")
        assert people.users(room_id) == [ben.user_id]
        await leave.leave(w.author, w.members, ben, room_id)
        assert people.users(room_id) == []
        people.close()


async def test_reports_are_kept_for_somebody_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada)
        event_id = await w.say(ada, room_id, "rude")
        with pytest.raises(NotFound):
            await w.store.write(reports.event, ben.user_id, room_id, event_id, "rude", 7)
        with pytest.raises(NotFound):
            await w.store.write(reports.room, ben.user_id, f"!nothing:{SERVER}", "rude", 7)
        await w.store.write(reports.event, ada.user_id, room_id, event_id, "rude", 7)
        await w.store.write(reports.room, ben.user_id, room_id, "", 8)
        await w.store.write(reports.user, ben.user_id, "@x:elsewhere.example", "strange", 9)
        found = [report for _, report in await w.store.read(filed.newest, 10)]
        assert [report.reason for report in found] == ["strange", "", "rude"]
        assert (found[2].event_id, found[2].user_id, found[2].reporter) == (event_id, ada.user_id, ada.user_id)
        monkeypatch.setattr(reports, "MAX_PER_DAY", 2)
        with pytest.raises(LimitExceeded):
            await w.store.write(reports.room, ben.user_id, room_id, "again", 10)

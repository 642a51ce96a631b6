"""Transactions from other servers: each once, in order, and a slow room is the trouble of its sender alone."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from appliance.federation.inbound import PER_ORIGIN, Inbound
from appliance.matrix.errors import LimitExceeded, MatrixError
from appliance.matrix.ids import ServerName
from appliance.store.database import Store
from tests.federation.post import A, B, Clock, until


@dataclass
class Outcome:
    event_id: str
    kept: bool = True
    reason: str = ""


@dataclass
class Rooms:
    """Where events go in: what arrived, and a gate for each room."""

    taken: list[tuple[str, str]] = field(default_factory=list)
    edus: list[Mapping[str, Any]] = field(default_factory=list)
    gates: dict[str, asyncio.Event] = field(default_factory=dict)

    async def receive(self, pdus: Sequence[dict[str, Any]], origin: ServerName, /) -> list[Outcome]:
        room_id = pdus[0].get("room_id", "")
        assert all(pdu.get("room_id", "") == room_id for pdu in pdus)
        if room_id in self.gates:
            await self.gates[room_id].wait()
        self.taken += [(room_id, pdu["n"]) for pdu in pdus]
        return [Outcome(pdu["n"], "bad" not in pdu, "not good enough" if "bad" in pdu else "") for pdu in pdus]

    async def handle(self, origin: ServerName, edus: Sequence[Mapping[str, Any]]) -> None:
        self.edus += edus


@asynccontextmanager
async def inbound(folder: Path, rooms: Rooms, seconds: float = 5) -> AsyncIterator[Inbound]:
    store = await Store.open(folder / "x.db")
    made = Inbound(store, rooms.receive, rooms.handle, Clock(), seconds=seconds)
    try:
        yield made
    finally:
        await made.close()
        await store.close()


def pdu(room: str, name: str, **more: Any) -> dict[str, Any]:
    return {"room_id": room, "n": name, **more}


async def test_results_one_by_one(tmp_path: Path) -> None:
    rooms = Rooms()
    async with inbound(tmp_path, rooms) as i:
        content = {"origin": A, "pdus": [pdu("!a", "$1"), pdu("!b", "$2", bad=1), pdu("!a", "$3"), {"n": ""}]}
        answer = await i.accept(A, "t", content)
        assert answer == {"pdus": {"$1": {}, "$2": {"error": "not good enough"}, "$3": {}}}
        assert [name for room, name in rooms.taken if room == "!a"] == ["$1", "$3"]


async def test_a_repetition_gets_the_same_answer_and_does_nothing_after_a_restart_too(tmp_path: Path) -> None:
    rooms = Rooms()
    content = {"pdus": [pdu("!a", "$1"), pdu("!a", "$2", bad=1)], "edus": [{"edu_type": "m.typing"}]}
    async with inbound(tmp_path, rooms) as i:
        answers = await asyncio.gather(*(i.accept(A, "t", content) for _ in range(20)))
        assert all(answer == answers[0] for answer in answers)
        assert await i.accept(B, "t", {"pdus": []}) == {"pdus": {}}  # ids belong to their origin
    async with inbound(tmp_path, rooms) as i:
        assert await i.accept(A, "t", {"pdus": [pdu("!a", "$other")]}) == answers[0]
    assert rooms.taken == [("!a", "$1"), ("!a", "$2")] and len(rooms.edus) == 1


async def test_receipts_come_after_the_events_that_they_may_name(tmp_path: Path) -> None:
    rooms = Rooms(gates={"!a": asyncio.Event()})
    async with inbound(tmp_path, rooms) as i:
        edus = [{"edu_type": "m.receipt"}, {"edu_type": "m.direct_to_device"}]
        task = asyncio.create_task(i.accept(A, "t", {"pdus": [pdu("!a", "$1")], "edus": edus}))
        await until(lambda: bool(rooms.edus))
        assert rooms.edus == edus[1:] and not task.done()
        rooms.gates["!a"].set()
        await task
        assert rooms.edus == [edus[1], edus[0]]


async def test_a_slow_room_holds_up_its_sender_only_and_nothing_is_done_twice(tmp_path: Path) -> None:
    rooms = Rooms(gates={"!slow": asyncio.Event()})
    async with inbound(tmp_path, rooms, seconds=0.05) as i:
        content = {"pdus": [pdu("!slow", "$1"), pdu("!quick", "$2")]}
        with pytest.raises(LimitExceeded):
            await i.accept(A, "t", content)
        assert rooms.taken == [("!quick", "$2")]
        assert await i.accept(B, "t", {"pdus": [pdu("!quick", "$3")]}) == {"pdus": {"$3": {}}}
        with pytest.raises(LimitExceeded):
            await i.accept(A, "t", content)
        for number in range(PER_ORIGIN - 1):
            with pytest.raises(LimitExceeded):
                await i.accept(A, f"more{number}", {"pdus": [pdu("!slow", f"$m{number}")]})
        with pytest.raises(LimitExceeded):
            await i.accept(A, "one too many", {"pdus": [pdu("!quick", "$never")]})
        rooms.gates["!slow"].set()
        await until(lambda: len(rooms.taken) == 5)
        assert await i.accept(A, "t", content) == {"pdus": {"$1": {}, "$2": {}}}
        assert ("!quick", "$never") not in rooms.taken and len(rooms.taken) == 5


@pytest.mark.parametrize(
    "content",
    [
        {"pdus": [pdu("!a", "$x")] * 51},
        {"edus": [{"edu_type": "m.typing"}] * 101},
        {"pdus": {}},
        {"pdus": ["x"]},
        {"edus": [1]},
        {"origin": B, "pdus": [pdu("!a", "$x")]},
    ],
)
async def test_what_is_no_transaction(tmp_path: Path, content: dict[str, Any]) -> None:
    rooms = Rooms()
    async with inbound(tmp_path, rooms) as i:
        with pytest.raises(MatrixError) as refused:
            await i.accept(A, "t", content)
        assert refused.value.status == 400
        with pytest.raises(MatrixError):
            await i.accept(A, "t" * 256, {})
    assert rooms.taken == [] and rooms.edus == []


async def test_a_failure_of_ours_is_not_an_answer(tmp_path: Path) -> None:
    rooms = Rooms()

    async def fails(pdus: Sequence[dict[str, Any]], origin: ServerName, /) -> list[Outcome]:
        raise ConnectionError("the disk is full")

    async with inbound(tmp_path, rooms) as i:
        i._receive = fails
        with pytest.raises(ConnectionError):
            await i.accept(A, "t", {"pdus": [pdu("!a", "$1")]})
        i._receive = rooms.receive
        assert await i.accept(A, "t", {"pdus": [pdu("!a", "$1")]}) == {"pdus": {"$1": {}}}

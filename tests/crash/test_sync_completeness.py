"""64 writers and a reader that follows next_batch through restarts and power cuts sees every event exactly once."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.world.client import Client, register_many, session, transaction_id
from tests.world.follower import Follower
from tests.world.mains import Mains
from tests.world.server import homeserver

WRITERS = 64
ROOMS = 4


async def write(mains: Mains, writer: Client, room: str, marks: list[str], done: asyncio.Semaphore) -> None:
    for mark in marks:
        content = {"body": mark, "mark": mark, "msgtype": "m.text"}
        await mains.insist(writer.send, room, content, txn=transaction_id())
        done.release()


async def interrupt(mains: Mains, times: int, every: int, done: asyncio.Semaphore) -> None:
    """Restart the server after every so many acknowledged events, by SIGTERM and by SIGKILL in turn."""
    for number in range(times):
        for _ in range(every):
            await done.acquire()
        await mains.cut(gently=number % 2 == 0)


async def follow_through(data: Path, events: int, restarts: int) -> Follower:
    mains = Mains(homeserver(data))
    await asyncio.to_thread(mains.server.start)
    try:
        async with session() as http:
            names = ["reader", *(f"writer{n}" for n in range(WRITERS))]
            reader, *writers = await register_many(http, mains.server.base, names)
            rooms = [await reader.create_room(preset="public_chat") for _ in range(ROOMS)]
            for number, writer in enumerate(writers):
                await writer.join(rooms[number % ROOMS])
            done = asyncio.Semaphore(0)
            shares = [[f"{n}-{k}" for k in range(events // WRITERS)] for n in range(WRITERS)]
            async with Follower(reader, mains) as follower, asyncio.TaskGroup() as group:
                for number, writer in enumerate(writers):
                    group.create_task(write(mains, writer, rooms[number % ROOMS], shares[number], done))
                group.create_task(interrupt(mains, restarts, events // (restarts + 1), done))
                group.create_task(follower.has_all([mark for share in shares for mark in share], seconds=600))
    finally:
        mains.server.stop()
    return follower


async def test_a_reader_misses_nothing_of_64_writers(tmp_path: Path) -> None:
    events = int(os.environ.get("HARNESS_EVENTS", "5000"))
    follower = await follow_through(tmp_path / "data", events, restarts=3)
    assert len(follower.timeline) == events // WRITERS * WRITERS


@pytest.mark.slow
async def test_a_reader_misses_nothing_of_100_000_events(tmp_path: Path) -> None:
    follower = await follow_through(tmp_path / "data", 100_000, restarts=12)
    assert len(follower.timeline) == 100_000 // WRITERS * WRITERS

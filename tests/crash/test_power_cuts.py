"""kill -9 at random moments under load: what was acknowledged is there, once; nothing is handed out twice."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest

from tests.crash.ward import Ward
from tests.world.client import session
from tests.world.mains import Mains
from tests.world.server import homeserver


async def one_cut(ward: Ward, after: float) -> None:
    """Let everybody work, cut the power after so many seconds, restore it, compare."""
    async with asyncio.TaskGroup() as group:
        group.create_task(ward.work())
        await asyncio.sleep(after)  # the moment of the cut is the test's subject
        await ward.mains.cut()
        ward.finish()
    await ward.repeat_last_storms()
    await ward.check()


async def rounds_of_cuts(data: Path, rounds: int, seed: int) -> Ward:
    """Work, cut the power at a random moment, restore it, compare; `rounds` times on the same data."""
    dice = random.Random(seed)
    mains = Mains(homeserver(data))
    await asyncio.to_thread(mains.server.start)
    try:
        async with session() as http:
            ward = Ward(mains, http)
            await ward.open()
            async with ward.follower:
                for _ in range(rounds):
                    await one_cut(ward, dice.uniform(0.05, 0.9))
                await ward.check_history()
                await ward.drawer.empty()
    finally:
        mains.server.stop()
    return ward


def sound_databases(data: Path) -> int:
    """Check every SQLite file of a stopped server; return how many there were."""
    files = [path for path in data.rglob("*") if path.is_file() and path.read_bytes()[:15] == b"SQLite format 3"]
    for path in files:
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",), path
            assert database.execute("PRAGMA foreign_key_check").fetchall() == [], path
    return len(files)


async def test_nothing_acknowledged_is_lost_or_doubled(tmp_path: Path) -> None:
    ward = await rounds_of_cuts(tmp_path / "data", rounds=4, seed=4)
    assert sound_databases(tmp_path / "data") >= 1
    assert len(ward.acknowledged) > 40
    assert len(ward.delivered) > 4
    assert len(ward.drawer.handed_out) >= 20


@pytest.mark.slow
async def test_thirty_power_cuts(tmp_path: Path) -> None:
    ward = await rounds_of_cuts(tmp_path / "data", rounds=30, seed=30)
    assert sound_databases(tmp_path / "data") >= 1
    print(
        f"{len(ward.acknowledged)} events, {len(ward.delivered)} to-device messages, {ward.follower.gaps} gaps filled"
    )

"""The store: acknowledged is on disk, positions have no gaps, groups fail apart, files grow older and newer."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from appliance.matrix.errors import Forbidden
from appliance.store import migrations, readers
from appliance.store.changes import Commit
from appliance.store.connection import StoreUnavailable
from appliance.store.database import Store
from appliance.store.migrations import StoreTooNew
from appliance.store.readers import Rx
from appliance.store.writer import Tx

ALIAS = "INSERT INTO alias VALUES (?, 1, 'me', 0)"


def _put(tx: Tx, name: str) -> int:
    tx.execute(ALIAS, (name,))
    tx.wake_user(name)
    return tx.next_pos()


def _names(rx: Rx) -> list[str]:
    return [row[0] for row in rx.execute("SELECT alias FROM alias ORDER BY alias")]


async def test_a_write_is_visible_to_every_reader_when_it_returns(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "x.db")
    for number in range(20):
        await store.write(_put, f"{number:02}")
        assert len(await store.read(_names)) == number + 1
    await store.close()
    other = await Store.open(tmp_path / "x.db")
    assert len(await other.read(_names)) == 20 and other.changes.position == 20
    await other.close()


async def test_positions_are_given_in_the_order_of_the_calls_without_gaps(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "x.db")
    seen: list[Commit] = []
    store.changes.listen(seen.append)
    positions = await asyncio.gather(*(store.write(_put, str(number)) for number in range(300)))
    assert list(positions) == list(range(1, 301))
    assert [commit.position for commit in seen] == sorted(commit.position for commit in seen)
    assert frozenset().union(*(commit.users for commit in seen)) == {str(number) for number in range(300)}
    await store.close()


async def test_one_failure_in_a_group_hurts_nobody_else(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "x.db")

    def refuse(tx: Tx) -> None:
        _put(tx, "half")
        raise Forbidden("no")

    calls = [store.write(refuse) if number % 5 == 0 else store.write(_put, str(number)) for number in range(50)]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, Forbidden) for result in results) == 10
    names = await store.read(_names)
    assert len(names) == 40 and "half" not in names
    assert sorted(result for result in results if isinstance(result, int)) == list(range(1, 41))
    await store.close()


async def test_callbacks_run_in_commit_order_before_the_caller_continues(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "x.db")
    told: list[int] = []

    def note(tx: Tx, number: int) -> None:
        tx.on_commit(lambda: told.append(number))

    await asyncio.gather(*(store.write(note, number) for number in range(100)))
    assert told == list(range(100))
    await store.close()


async def test_a_cancelled_caller_does_not_stop_the_change(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "x.db")

    async def write() -> None:
        await store.write(_put, "kept")

    task = asyncio.ensure_future(write())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.write(_put, "later")
    assert await store.read(_names) == ["kept", "later"]
    await store.close()


async def test_readers_cannot_write(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "x.db")
    with pytest.raises(sqlite3.OperationalError):
        await store.read(lambda rx: rx.execute(ALIAS, ("x",)))
    await store.close()


async def test_a_disk_that_refuses_is_said_and_nothing_is_kept(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "x.db")

    def fill(tx: Tx) -> None:
        _put(tx, "too much")
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(StoreUnavailable):
        await store.write(fill)
    assert await store.read(_names) == []
    await store.write(_put, "fits")
    await store.close()


def _schema(path: Path) -> list[str]:
    db = sqlite3.connect(path)
    rows = db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE '\\_%' ESCAPE '\\'")
    schema = sorted(row[0] for row in rows)
    db.close()
    return schema


def test_a_newer_file_is_refused_in_words_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    migrations.migrate(path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={migrations.current() + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreTooNew, match="newer release"):
        migrations.migrate(path)
    assert path.read_bytes() == before


def test_an_older_file_is_copied_then_upgraded_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.db"
    migrations.migrate(path)
    db = sqlite3.connect(path)
    db.execute(ALIAS, ("kept",))
    db.commit()
    db.close()
    old = migrations.current()

    def first(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE alias ADD COLUMN note TEXT")

    def second(db: sqlite3.Connection) -> None:
        db.execute("UPDATE alias SET note='two'")
        if broken:
            raise RuntimeError("the power goes")

    broken = True
    monkeypatch.setattr(migrations, "STEPS", (*migrations.STEPS, ("first", first), ("second", second)))
    with pytest.raises(RuntimeError):
        migrations.migrate(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT note FROM alias").fetchall() == [(None,)], "the first step stays, the second left nothing"
    assert db.execute("PRAGMA user_version").fetchone()[0] == old + 1
    db.close()
    broken = False
    migrations.migrate(path)
    db = sqlite3.connect(path)
    assert db.execute("SELECT alias, note FROM alias").fetchall() == [("kept", "two")]
    assert db.execute("PRAGMA user_version").fetchone()[0] == migrations.current() == old + 2
    db.close()
    copy = sqlite3.connect(tmp_path / f"x.db.before-{old + 2}-from-{old}")
    assert copy.execute("SELECT alias FROM alias").fetchall() == [("kept",)]
    assert copy.execute("PRAGMA user_version").fetchone()[0] == old
    copy.close()


def test_a_half_made_file_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.touch()
    migrations.migrate(path)
    fresh = tmp_path / "y.db"
    migrations.migrate(fresh)
    assert _schema(path) == _schema(fresh)


async def test_a_question_without_end_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "LIMIT_SECONDS", 0.05)
    store = await Store.open(tmp_path / "x.db")
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(StoreUnavailable, match="too long"):
        await store.read(lambda rx: rx.execute(endless).fetchone())
    assert await store.read(_names) == []
    await store.close()

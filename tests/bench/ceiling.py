"""The physical limit of aiohttp and SQLite on this machine: one insert per PUT request.

    python -m tests.bench.ceiling [--requests 3000] [--in-flight 1 16 64]     -> JSON on stdout

Modes: `none` (no database); `full` and `normal`: one WAL commit per request on the event loop with that `synchronous`;
`full_group`: requests queue to one writer thread that commits whatever is waiting; `full_group_sign` adds what a Matrix
event needs at least: canonical JSON, SHA-256 twice, one Ed25519 signature and four index rows. A server process per
mode; this process is the client.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import queue
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from nacl.signing import SigningKey

from tests.bench.loadkit import bounded, fdatasync_ms, percentiles, sample
from tests.world.client import session
from tests.world.server import REPO, free_port

MODES = ("none", "full", "normal", "full_group", "full_group_sign")
GROUP = 256
INSERT = "INSERT INTO event(room, ts, json) VALUES(?, ?, ?)"
SCHEMA = """
CREATE TABLE event(id INTEGER PRIMARY KEY, room TEXT, ts INTEGER, json BLOB);
CREATE INDEX event_room ON event(room, id);
CREATE TABLE edge(event INTEGER, prev TEXT, PRIMARY KEY(event, prev)) WITHOUT ROWID;
CREATE TABLE txn(key TEXT PRIMARY KEY, event INTEGER) WITHOUT ROWID;
CREATE TABLE name(event_id TEXT PRIMARY KEY, id INTEGER) WITHOUT ROWID;
CREATE TABLE tip(room TEXT PRIMARY KEY, id INTEGER) WITHOUT ROWID;
"""

Rows = list[tuple[str, tuple[Any, ...]]]


def open_database(path: Path, mode: str) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute(f"PRAGMA synchronous={'FULL' if mode.startswith('full') else 'NORMAL'}")
    database.executescript(SCHEMA)
    return database


def plain_rows(room: str, body: bytes) -> Rows:
    return [(INSERT, (room, 0, body))]


def signed_rows(key: SigningKey) -> Callable[[str, bytes], Rows]:
    """Return what makes the rows of one hashed, signed and indexed event."""

    def compact(value: Any) -> bytes:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    def rows(room: str, body: bytes) -> Rows:
        prev = "$" + "b" * 43
        event: dict[str, Any] = {
            "type": "m.room.message",
            "room_id": room,
            "sender": "@u:x",
            "origin_server_ts": 1,
            "depth": 9,
            "auth_events": ["$" + "a" * 43] * 3,
            "prev_events": [prev],
            "content": json.loads(body),
        }
        event["hashes"] = {"sha256": base64.b64encode(hashlib.sha256(compact(event)).digest()).decode()}
        raw = compact(event)
        event["signatures"] = {"x": {"ed25519:1": base64.b64encode(key.sign(raw).signature).decode()}}
        event_id = "$" + base64.urlsafe_b64encode(hashlib.sha256(raw).digest()).decode()
        return [
            (INSERT, (room, 0, json.dumps(event))),
            ("INSERT OR REPLACE INTO name VALUES(?, last_insert_rowid())", (event_id,)),
            ("INSERT INTO edge VALUES((SELECT id FROM name WHERE event_id = ?), ?)", (event_id, prev)),
            ("INSERT OR REPLACE INTO txn VALUES(?, 1)", (event_id,)),
            ("INSERT OR REPLACE INTO tip VALUES(?, 1)", (room,)),
        ]

    return rows


class GroupWriter:
    """One thread that commits everything that waits, up to a limit, and wakes the requests of the group at once."""

    def __init__(self, database: sqlite3.Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._database, self._loop = database, loop
        self._waiting: queue.SimpleQueue[tuple[Rows, asyncio.Future[None]]] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    async def write(self, rows: Rows) -> None:
        done = self._loop.create_future()
        self._waiting.put((rows, done))
        await done

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            with contextlib.suppress(queue.Empty):
                while len(batch) < GROUP:
                    batch.append(self._waiting.get_nowait())
            self._database.execute("BEGIN IMMEDIATE")
            for rows, _ in batch:
                for sql, values in rows:
                    self._database.execute(sql, values)
            self._database.execute("COMMIT")
            self._loop.call_soon_threadsafe(self._wake, [done for _, done in batch])

    @staticmethod
    def _wake(waiting: list[asyncio.Future[None]]) -> None:
        for done in waiting:
            if not done.done():
                done.set_result(None)


def serve(mode: str, port: int, path: Path) -> None:
    """Answer PUT requests in the given mode until the process is ended."""
    loop = asyncio.new_event_loop()
    database = open_database(path, mode)
    rows = signed_rows(SigningKey.generate()) if mode.endswith("sign") else plain_rows
    writer = GroupWriter(database, loop) if "group" in mode else None

    async def put(request: web.Request) -> web.Response:
        body = await request.read()
        if writer:
            await writer.write(rows(request.match_info["room"], body))
        elif mode != "none":
            database.execute(*plain_rows(request.match_info["room"], body)[0])
        return web.json_response({"event_id": "$x"})

    app = web.Application()
    app.router.add_put("/send/{room}", put)
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, loop=loop)


async def first_answer(ask: Callable[[], Awaitable[None]]) -> None:
    for _ in range(400):
        try:
            return await ask()
        except aiohttp.ClientConnectionError:
            await asyncio.sleep(0.02)
    raise SystemExit("the little server never answered")


async def drive(port: int, requests: int, in_flight: int, pid: int) -> dict[str, Any]:
    async with session() as http:
        url, body = f"http://127.0.0.1:{port}/send/room", {"msgtype": "m.text", "body": "x" * 110}

        async def ask() -> None:
            async with http.put(url, json=body) as answer:
                await answer.read()

        await first_answer(ask)
        before = sample([pid])["cpu_s"]
        _, seconds, each = await bounded(in_flight, (ask for _ in range(requests)))
        cpu = sample([pid])["cpu_s"] - before
    return {
        "per_s": round(requests / seconds),
        "ms": percentiles(each, 50, 95, 99),
        "server_cpu_s_per_1000": round(cpu / requests * 1000, 3),
    }


def measure(mode: str, requests: int, flights: list[int]) -> dict[str, Any]:
    """Return the figures of one mode at several levels of concurrency, on a fresh database."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        command = [sys.executable, "-m", "tests.bench.ceiling", "--serve", mode, "--port", str(port), "--data", folder]
        with subprocess.Popen(command, cwd=REPO) as server:
            try:
                counts = {flight: requests if flight > 1 else requests // 5 for flight in flights}
                found = {flight: asyncio.run(drive(port, n, flight, server.pid)) for flight, n in counts.items()}
                return {"in_flight": found, "rss_mib": sample([server.pid])["rss_mib"]}
            finally:
                server.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--modes", nargs="+", default=MODES, choices=MODES)
    parser.add_argument("--serve", choices=MODES, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve(options.serve, options.port, options.data / "ceiling.db")
    modes = {mode: measure(mode, options.requests, options.in_flight) for mode in options.modes}
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({"modes": modes, "fdatasync_ms": fdatasync_ms(Path(folder))}, indent=1))


if __name__ == "__main__":
    main()

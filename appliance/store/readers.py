"""The readers: a few threads, each with a read-only connection of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from appliance.store.connection import StoreUnavailable, open_reader

# A read holds one snapshot of the file; SQLite reads do not wait for the writer, so a few threads are enough.
THREADS = 3

LIMIT_SECONDS = 20.0
CHECK_EVERY = 200_000
"""Steps of SQLite's machine between two looks at the clock (some milliseconds)."""

Rx = sqlite3.Connection
"""What a reading function gets: a connection inside one read transaction. It cannot write."""


class Readers:
    """A pool of read-only connections, one per thread, opened when first needed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._open: list[sqlite3.Connection] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="store-reader")

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Run `fn(rx, *args)` on one consistent snapshot."""
        return asyncio.get_running_loop().run_in_executor(self._pool, self._run, fn, args)

    def _run(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        db: sqlite3.Connection | None = getattr(self._local, "db", None)
        if db is None:
            db = self._local.db = open_reader(self._path)
            self._open.append(db)
        end = time.monotonic() + LIMIT_SECONDS
        db.set_progress_handler(lambda: time.monotonic() > end, CHECK_EVERY)
        db.execute("BEGIN")
        try:
            return fn(db, *args)
        except sqlite3.OperationalError as error:
            if time.monotonic() > end:
                raise StoreUnavailable("The question took too long to answer; ask for less") from error
            raise
        finally:
            db.set_progress_handler(None, 0)
            db.execute("ROLLBACK")

    async def close(self) -> None:
        """Wait for running reads and close the connections."""
        await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        for db in self._open:
            db.close()

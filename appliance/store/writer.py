"""The one writer: a thread, a connection, a queue, and group commit.

Whoever wants to change something hands a function to `Writer.submit`. The thread takes everything that is waiting (at
most `GROUP`), runs the functions one after the other in a single transaction and commits once: sixteen messages that
arrive together share one fsync. If one of them raises, the whole group is rolled back and each function is run again in
a transaction of its own, so that only the culprit fails; that is why a function must depend on nothing but the
transaction and its arguments.

Results go back to the event loop in one hop per group. On the loop, in commit order: first the `on_commit` callbacks
(caches learn what is on disk), then the futures of the callers, then `Changes.publish` wakes the sync waiters.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable
from typing import Any

from appliance.store.changes import Changes, Commit
from appliance.store.connection import StoreUnavailable

log = logging.getLogger(__name__)

GROUP = 256
IDLE_SECONDS = 0.5


class Tx:
    """What a writing function gets: the transaction, the stream counter, and the list of whom to wake."""

    __slots__ = ("_db", "asides", "callbacks", "execute", "executemany", "peers", "position", "rooms", "users")

    def __init__(self, db: sqlite3.Connection, position: int) -> None:
        self._db = db
        self.execute = db.execute
        self.executemany = db.executemany
        self.position = position
        self.users: set[str] = set()
        self.rooms: set[str] = set()
        self.asides: set[str] = set()
        self.peers: set[str] = set()
        self.callbacks: list[Callable[[], None]] = []

    def next_pos(self) -> int:
        """Take the next stream position. It becomes visible with the commit, together with all lower ones."""
        self.position += 1
        return self.position

    def wake_user(self, user_id: str) -> None:
        """After the commit, wake the sync requests of this user."""
        self.users.add(user_id)

    def wake_room(self, room_id: str, *, timeline: bool = False) -> None:
        """After the commit, wake the sync requests of everybody local in this room.

        `timeline` says that nothing but its timeline grew, which sync can answer from memory; anything else (receipts,
        device lists) makes it ask the store.
        """
        self.rooms.add(room_id)
        if not timeline:
            self.asides.add(room_id)

    def wake_peer(self, peer: str) -> None:
        """After the commit, tell whoever sends to other servers that something new is owed to this one."""
        self.peers.add(peer)

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Run `callback` on the event loop after the commit, before the caller of `write` continues."""
        self.callbacks.append(callback)


class _Job:
    __slots__ = ("args", "error", "fn", "future", "result")

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...], future: asyncio.Future[Any]) -> None:
        self.fn = fn
        self.args = args
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """Owns the writing connection and its thread."""

    def __init__(self, db: sqlite3.Connection, changes: Changes, loop: asyncio.AbstractEventLoop) -> None:
        self._db = db
        self._changes = changes
        self._loop = loop
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._position = int(db.execute("SELECT pos FROM stream").fetchone()[0])
        changes.position = self._position
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="store-writer", daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> asyncio.Future[Any]:
        """Queue `fn(tx, *args)`; the future ends after the commit. Order of calls = order of execution."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_Job(fn, args, future))
        return future

    async def close(self) -> None:
        """Finish what is queued, empty the write-ahead log, close the file."""
        self._queue.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    # -- in the writer thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        idle = True
        while not self._stopping:
            try:
                first = self._queue.get(timeout=None if idle else IDLE_SECONDS)
            except queue.Empty:
                self._checkpoint()
                idle = True
                continue
            group = self._collect(first)
            if group:
                self._commit(group)
                idle = False
        self._checkpoint()
        self._db.close()

    def _collect(self, first: _Job | None) -> list[_Job]:
        group: list[_Job] = []
        job = first
        while job is not None:
            group.append(job)
            if len(group) >= GROUP:
                return group
            try:
                job = self._queue.get_nowait()
            except queue.Empty:
                return group
        self._stopping = True
        return group

    def _checkpoint(self) -> None:
        try:
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.Error as error:
            log.warning("checkpoint postponed: %s", error)

    def _commit(self, group: list[_Job]) -> None:
        tx = self._attempt(group)
        if tx is not None:
            self._hand_over(group, tx)
            return
        for job in group:
            job.error = None
            tx = self._attempt([job])
            self._hand_over([job], tx)

    def _attempt(self, group: list[_Job]) -> Tx | None:
        """Run the group in one transaction; None if it was rolled back (each job of a group of one keeps its error)."""
        db = self._db
        tx = Tx(db, self._position)
        job = group[0]
        try:
            db.execute("BEGIN IMMEDIATE")
            for job in group:
                job.result = job.fn(tx, *job.args)
            if tx.position != self._position:
                db.execute("UPDATE stream SET pos=?", (tx.position,))
            db.execute("COMMIT")
        except Exception as error:
            if db.in_transaction:
                db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError | sqlite3.DatabaseError) and not isinstance(
                error, sqlite3.IntegrityError | sqlite3.ProgrammingError
            ):
                unavailable = StoreUnavailable("The store cannot write at the moment; nothing was changed")
                unavailable.__cause__ = error
                job.error = unavailable
            else:
                job.error = error
            return None
        self._position = tx.position
        return tx

    def _hand_over(self, group: list[_Job], tx: Tx | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._deliver, group, tx)
        except RuntimeError:
            log.warning("the loop ended before %d committed changes could be reported", len(group))

    # -- on the event loop ---------------------------------------------------------------------------------------

    def _deliver(self, group: Iterable[_Job], tx: Tx | None) -> None:
        if tx is not None:
            for callback in tx.callbacks:
                callback()
        for job in group:
            if job.future.cancelled():
                continue
            if job.error is not None:
                job.future.set_exception(job.error)
            else:
                job.future.set_result(job.result)
        if tx is not None and (tx.users or tx.rooms or tx.peers or tx.position > self._changes.position):
            touched = (frozenset(names) for names in (tx.users, tx.rooms, tx.asides, tx.peers))
            self._changes.publish(Commit(tx.position, *touched))

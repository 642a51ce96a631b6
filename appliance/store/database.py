"""The store as one resource: open the file, bring it up to date, read and write."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from appliance.store.changes import Changes
from appliance.store.connection import open_writer
from appliance.store.migrations import migrate
from appliance.store.readers import Readers, Rx
from appliance.store.writer import Tx, Writer

P = ParamSpec("P")
T = TypeVar("T")


class Store:
    """One SQLite file with one writer and several readers.

    >>> store = await Store.open(path)
    >>> await store.write(accounts.insert, user)      # on disk when it returns
    >>> await store.read(accounts.find, user_id)
    """

    def __init__(self, writer: Writer, readers: Readers, changes: Changes) -> None:
        self._writer = writer
        self._readers = readers
        self.changes = changes

    @classmethod
    async def open(cls, path: Path) -> Store:
        """Open or create the file at `path`, upgrading an older one; raises `StoreTooNew` for a newer one."""
        migrate(path)
        changes = Changes()
        writer = Writer(open_writer(path), changes, asyncio.get_running_loop())
        return cls(writer, Readers(path), changes)

    def write(self, fn: Callable[Concatenate[Tx, P], T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Run `fn(tx, *args)` in the writer; the result arrives after the commit.

        The call queues at once: two calls in a row are executed in that order even before the first is awaited.
        Raises what `fn` raises (then nothing was changed) and `StoreUnavailable` if the disk refuses.
        """
        if kwargs:
            raise TypeError("a writing function takes positional arguments only")
        return self._writer.submit(fn, args)

    def read(self, fn: Callable[Concatenate[Rx, P], T], *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        """Run `fn(rx, *args)` in a reader thread on one snapshot that includes everything acknowledged so far."""
        if kwargs:
            raise TypeError("a reading function takes positional arguments only")
        return self._readers.submit(fn, args)

    async def close(self) -> None:
        """Finish queued writes, empty the log, close every connection."""
        await self._readers.close()
        await self._writer.close()

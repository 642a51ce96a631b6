"""What became visible with a commit, told to whoever waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec


class Commit(msgspec.Struct, frozen=True):
    """One group commit as the rest of the house sees it.

    `position` is the highest stream position now on disk; `users` and `rooms` (room ids) are those whose
    sync responses may have changed; `asides` are those of the rooms in which something besides the timeline changed;
    `peers` are the servers to which something new is owed.
    """

    position: int
    users: frozenset[str] = msgspec.field(default_factory=frozenset)
    rooms: frozenset[str] = msgspec.field(default_factory=frozenset)
    asides: frozenset[str] = msgspec.field(default_factory=frozenset)
    peers: frozenset[str] = msgspec.field(default_factory=frozenset)


class Changes:
    """The committed position, and the listeners that are called on the event loop after every commit."""

    def __init__(self) -> None:
        self.position = 0
        self._listeners: list[Callable[[Commit], None]] = []
        self._awaited: list[tuple[int, asyncio.Future[None]]] = []

    def listen(self, listener: Callable[[Commit], None]) -> None:
        """Call `listener` on the loop after each commit, in the order of registration. It must not block."""
        self._listeners.append(listener)

    def publish(self, commit: Commit) -> None:
        """Advance the position, then tell everybody."""
        self.position = max(self.position, commit.position)
        for listener in self._listeners:
            listener(commit)
        if self._awaited:
            self._arrive()

    async def reached(self, position: int) -> None:
        """Return once everybody was told of all commits up to `position`, which a reader has seen on disk already."""
        if self.position < position:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._awaited.append((position, future))
            await future

    def _arrive(self) -> None:
        for position, future in self._awaited:
            if position <= self.position and not future.done():
                future.set_result(None)
        self._awaited = [(position, future) for position, future in self._awaited if not future.done()]

"""Many ask the same thing at once, one goes and looks, all get the answer.

The work runs in a task of its own, so that an asker who gives up takes nothing away from the others. Whoever makes
a `Flights` closes it; the work itself must end by itself (everything it awaits has a time limit).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flights(Generic[K, V]):
    """At most one piece of work per key, and at most `most` altogether at the same moment."""

    def __init__(self, most: int) -> None:
        self._under_way: dict[K, asyncio.Task[V]] = {}
        self._places = asyncio.Semaphore(most)

    def __len__(self) -> int:
        return len(self._under_way)

    async def join(self, key: K, work: Callable[[], Awaitable[V]]) -> V:
        """Return what the work under way for this key gives, or start it; its error goes to everybody who waits."""
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._fly(work))
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    async def _fly(self, work: Callable[[], Awaitable[V]]) -> V:
        async with self._places:
            return await work()

    def _landed(self, key: K, task: asyncio.Task[V]) -> None:
        del self._under_way[key]
        if not task.cancelled():
            task.exception()  # looked at, so that an error nobody waits for any more is no warning

    async def close(self) -> None:
        """Stop everything under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

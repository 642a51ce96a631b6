"""Turns: what belongs to one room and one peer happens in order, everything else at the same time.

Whoever waits for a slow peer waits in that peer's line only; other peers' events of the same room, and all other
rooms, go on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final

from appliance.matrix.errors import LimitExceeded

MOST_IN_LINE: Final = 64


class _Line:
    __slots__ = ("lock", "people")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.people = 0


class Lines:
    """First come, first served, by key; bounded."""

    def __init__(self, most: int = MOST_IN_LINE) -> None:
        self._most = most
        self._lines: dict[Hashable, _Line] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for one's turn in a line; raises `LimitExceeded` if too many are waiting there."""
        line = self._lines.setdefault(key, _Line())
        if line.people >= self._most:
            raise LimitExceeded(5_000, "Too many events of this room are waiting already")
        line.people += 1
        try:
            async with line.lock:
                yield
        finally:
            line.people -= 1
            if not line.people:
                self._lines.pop(key, None)

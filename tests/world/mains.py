"""The mains switch of a server under load: clients insist on their answer through power cuts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

import aiohttp

from tests.world.server import Homeserver

T = TypeVar("T")
P = ParamSpec("P")
UNANSWERED = (aiohttp.ClientError, ConnectionError, TimeoutError)


class Mains:
    """Cuts and restores the power of one server, and lets its clients wait for it."""

    def __init__(self, server: Homeserver) -> None:
        self.server = server
        self.cuts = 0
        self._on = asyncio.Event()
        self._on.set()

    async def cut(self, *, gently: bool = False) -> None:
        """End the server at once, as a power cut would, or by SIGTERM; then start it on the same data."""
        self._on.clear()
        await asyncio.to_thread(self.server.stop if gently else self.server.kill)
        await asyncio.to_thread(self.server.start)
        self.cuts += 1
        self._on.set()

    async def ready(self) -> None:
        """Wait until the power is on."""
        await self._on.wait()

    async def insist(self, ask: Callable[P, Awaitable[T]], *args: P.args, **fields: P.kwargs) -> T:
        """Ask until there is an answer; a request that a cut left unanswered is asked again, word for word."""
        while True:
            await self._on.wait()
            cuts = self.cuts
            try:
                return await ask(*args, **fields)
            except UNANSWERED:
                if self.cuts == cuts and self._on.is_set():
                    raise  # not the power: the server dropped a request by itself

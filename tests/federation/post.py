"""A post office between servers: transactions as they were sent, with the faults that tests ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.link.errors import RefusedByPeer, Unreachable
from appliance.matrix.ids import ServerName

A, B = ServerName("a.example"), ServerName("b.example")


class Clock:
    """A clock that stands still until it is moved (milliseconds)."""

    def __init__(self, now: int = 1_700_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


@dataclass
class Letter:
    peer: str
    txn: str
    ts: int
    pdus: list[Mapping[str, Any]]
    edus: list[Mapping[str, Any]]


Accept = Callable[[str, Mapping[str, Any]], Awaitable[object]]


@dataclass
class Post:
    """Delivers to whoever is `at` a name; `down` peers cannot be reached, `no` ones refuse with a status."""

    at: dict[str, Accept] = field(default_factory=dict)
    down: set[str] = field(default_factory=set)
    no: dict[str, int] = field(default_factory=dict)
    judge: Callable[[Letter], None] = lambda letter: None
    sent: list[Letter] = field(default_factory=list)
    tried: list[Letter] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    under_way: int = 0
    most_under_way: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    async def send(
        self, peer: ServerName, txn_id: str, ts: int, pdus: Sequence[Mapping[str, Any]],
        edus: Sequence[Mapping[str, Any]] = (),
    ) -> object:
        letter = Letter(peer, txn_id, ts, list(pdus), list(edus))
        self.tried.append(letter)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await asyncio.sleep(0)
            await self.open.wait()
        finally:
            self.under_way -= 1
        if peer in self.down:
            raise Unreachable(peer, "hung up")
        if peer in self.no:
            raise RefusedByPeer(peer, self.no[peer], "M_NO")
        self.judge(letter)
        if peer in self.at:
            await self.at[peer](txn_id, {"origin": A, "origin_server_ts": ts, "pdus": list(pdus), "edus": list(edus)})
        self.sent.append(letter)
        return {}


async def until(done: Callable[[], bool], seconds: float = 5.0) -> None:
    """Let others work until something holds."""
    async with asyncio.timeout(seconds):
        while not done():  # noqa: ASYNC110  # what is awaited happens inside the tested code
            await asyncio.sleep(0.002)

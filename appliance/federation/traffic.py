"""Everything that moves between this server and others by itself, connected: what is sent, and what is taken in.

    out    outbound.py <- outbox rows; passing.py; device_lists.Telling
    in     inbound.py -> rooms.receive and edus.py -> device_lists.Copies

Who builds the house gives it what it needs, lets `run` run, and hands `inbound` to the door, `users` to the accounts,
`heard` to the entry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from appliance.federation.client import Client
from appliance.federation.device_lists import Copies, Telling
from appliance.federation.edus import Edus, Presence, Typing
from appliance.federation.inbound import Inbound, Receive
from appliance.federation.outbound import Line, Outbound
from appliance.federation.passing import Passing
from appliance.federation.users import Users
from appliance.matrix.ids import ServerName
from appliance.store.database import Store


class Present(Presence, Protocol):
    """Who is online, both ways (`sync.presence.Presence`)."""

    def content(self, user_id: str) -> Mapping[str, Any] | None:
        """Return what others may know of somebody."""
        ...


@dataclass(frozen=True, slots=True)
class Ground:
    """What all parts stand on. `clock` gives milliseconds, `chance` numbers in [0, 1)."""

    store: Store
    home: ServerName
    client: Client
    clock: Callable[[], int]
    chance: Callable[[], float]
    line: Line | None = None


class Traffic:
    """All parts, built once. `typing` and `presence` are the house's own; None where presence is switched off."""

    def __init__(self, ground: Ground, receive: Receive, typing: Typing, presence: Present | None) -> None:
        store, home, clock = ground.store, ground.home, ground.clock
        self.outbound = Outbound(
            store, ground.client.send, clock=clock, chance=ground.chance, line=ground.line
        )
        self.telling = Telling(store, home)
        self.copies = Copies(store, home, ground.client.devices, clock=clock, chance=ground.chance)
        self.users = Users(store, home, ground.client, self.copies)
        self.edus = Edus(store, home, self.copies, typing, clock, presence)
        self.inbound = Inbound(store, receive, self.edus.handle, clock)
        self.passing = Passing(store, home, self.outbound, clock, presence.content if presence else _nothing)

    def heard(self, peer: ServerName) -> None:
        """A proved request came from a peer: whatever waits for it to be back need not wait any longer."""
        self.outbound.heard(peer)
        self.copies.heard(peer)

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for part in (self.outbound, self.telling, self.copies, self.passing):
                    tasks.create_task(part.run())
        finally:
            await self.inbound.close()


def _nothing(user_id: str) -> None:
    """Presence is switched off."""

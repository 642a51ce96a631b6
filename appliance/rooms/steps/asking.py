"""What receiving needs from outside, and how much of it one event may cost.

A stranger's event decides what we fetch; so everything that is fetched for it comes out of one `Budget` of calls,
events and seconds. When it is used up the event waits, and nothing else does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeVar

from appliance.link.errors import PeerError
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, RoomId, ServerName
from appliance.matrix.signing import BadSignature

CALLS: Final = 100
EVENTS: Final = 100_000
SECONDS: Final = 120.0
AT_ONCE: Final = 8

T = TypeVar("T")
Pdu = Mapping[str, Any]


class StateIds(Protocol):
    """The state before an event, as ids."""

    @property
    def pdu_ids(self) -> Sequence[str]: ...
    @property
    def auth_chain_ids(self) -> Sequence[str]: ...


class State(Protocol):
    """The state before an event, spelled out."""

    @property
    def pdus(self) -> Sequence[Pdu]: ...
    @property
    def auth_chain(self) -> Sequence[Pdu]: ...


class Peers(Protocol):
    """Asking other servers about a room's graph; `federation.client.Client` is one. All raise `PeerError`."""

    async def event(self, peer: ServerName, event_id: EventId) -> Pdu:
        """Return one event."""
        ...

    async def event_auth(self, peer: ServerName, room_id: RoomId, event_id: EventId) -> Sequence[Pdu]:
        """Return everything that authorises an event."""
        ...

    async def state(self, peer: ServerName, room_id: RoomId, event_id: EventId) -> State:
        """Return the state before an event."""
        ...

    async def state_ids(self, peer: ServerName, room_id: RoomId, event_id: EventId) -> StateIds:
        """Return the ids of the state before an event."""
        ...

    async def missing_events(
        self, peer: ServerName, room_id: RoomId, earliest: Iterable[EventId], latest: Iterable[EventId],
        limit: int, min_depth: int = 0,
    ) -> Sequence[Pdu]:
        """Return what lies between the earliest and the latest events."""
        ...

    async def backfill(
        self, peer: ServerName, room_id: RoomId, start: Iterable[EventId], limit: int
    ) -> Sequence[Pdu]:
        """Return these events and what precedes them."""
        ...


class Signatures(Protocol):
    """Whose signature is good; `federation.keyring.Keyring` is one."""

    async def verify_events(self, events: Sequence[Event]) -> list[BadSignature | None]:
        """Tell for each event what is wrong with its signatures, None if nothing is."""
        ...


class Unobtainable(Exception):
    """What an event stands on cannot be had now; asking again later may help."""


class Budget:
    """What may still be fetched on behalf of one event."""

    def __init__(self, calls: int = CALLS, events: int = EVENTS, seconds: float = SECONDS) -> None:
        self._calls = calls
        self._events = events
        self._until = asyncio.get_running_loop().time() + seconds

    async def ask(self, call: Awaitable[T]) -> T:
        """Spend one call; raises `Unobtainable` when the peer has no answer, or nothing is left to spend."""
        self._calls -= 1
        try:
            if self._calls < 0:
                raise Unobtainable("too much had to be fetched")
            async with asyncio.timeout_at(self._until):
                return await call
        except TimeoutError:
            raise Unobtainable("fetching took too long") from None
        except PeerError as error:
            raise Unobtainable(f"a peer did not help: {error}") from error
        finally:
            if asyncio.iscoroutine(call):
                call.close()

    def take(self, count: int) -> None:
        """Spend a number of events."""
        self._events -= count
        if self._events < 0:
            raise Unobtainable("too many events had to be fetched")

"""Who is online. In memory only: after a restart everybody is offline until their client asks for something.

A syncing client keeps its user online. Whoever has not synced for `ABSENT` is offline, whoever has done nothing of
their own accord for `IDLE` is unavailable. While somebody is `currently_active` nobody is told of every single deed.

Source: client-server API, "Presence".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from appliance.matrix.errors import Forbidden
from appliance.matrix.ids import UserId
from appliance.rooms.members import Members
from appliance.store import rooms
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.sync.ephemeral import Ephemeral
from appliance.sync.waiters import Hubs

Clock = Callable[[], int]
ABSENT: Final = 60_000
"""Milliseconds without a sync after which a user is offline (a long poll may take 30 seconds and a retry)."""
GRAIN: Final = 5_000
"""Milliseconds by which `synced` may lag behind."""
IDLE: Final = 5 * 60_000
SWEEP_SECONDS: Final = 15.0
OFFLINE: Final = "offline"
SILENT: Final = 30 * 60_000
"""Milliseconds after which a user of another server, of whom nothing was heard, is offline."""


class State(msgspec.Struct, frozen=True):
    """Somebody's presence. `active` is when they last did something, `synced` when they were last here (ms)."""

    presence: str = OFFLINE
    status: str | None = None
    active: int = 0
    synced: int = 0
    rooms: frozenset[str] = frozenset()
    """Where they are joined: whoever shares one of these may know."""


class Presence:
    """The presence of the local users; `enabled` off makes everybody offline for ever."""

    def __init__(self, store: Store, members: Members, hubs: Hubs, ephemeral: Ephemeral, clock: Clock,
                 *, enabled: bool) -> None:
        self._store = store
        self._members = members
        self._hubs = hubs
        self._ephemeral = ephemeral
        self._clock = clock
        self._enabled = enabled
        self._states: dict[str, State] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.on_change: Callable[[str], None] | None = None
        """Told whose presence changed (other servers may want to know)."""

    # -- what changes it -------------------------------------------------------------------------------------------

    async def put(self, user_id: str, presence: str, status: str | None) -> None:
        """The user says how they are (`PUT /presence`)."""
        if not self._enabled:
            return
        now = self._clock()
        state = self._states.get(user_id, State())
        active = now if presence == "online" else state.active
        await self._change(user_id, replace(state, presence=presence, status=status, active=active, synced=now))

    async def syncing(self, user_id: str, wish: str) -> None:
        """A client of the user asks for news; `wish` is its `set_presence`."""
        if not self._enabled or wish == OFFLINE:
            return
        now = self._clock()
        state = self._states.get(user_id)
        if state is not None and (state.presence == wish or (wish == "online" and state.presence != OFFLINE)):
            if now - state.synced > GRAIN:
                self._states[user_id] = replace(state, synced=now)
            return
        state = state or State()
        active = now if wish == "online" else state.active
        await self._change(user_id, replace(state, presence=wish, active=active, synced=now))

    async def heard(self, user_id: str, presence: str, status: str | None, active_ago: int) -> None:
        """Another server says how its user is, who last did something `active_ago` milliseconds before now."""
        if self._enabled:
            now = self._clock()
            await self._change(
                user_id, State(presence=presence, status=status, active=max(0, now - active_ago), synced=now)
            )

    def content(self, user_id: str) -> dict[str, Any] | None:
        """Return what others may know of somebody's presence, None if there is nothing to know."""
        state = self._states.get(user_id)
        return self._content(state) if state is not None and self._enabled else None

    def add(self, row: Row, pruned_id: str | None) -> None:
        """Follow a committed event: whoever sends is active. (A listener of the ledger.)"""
        state = self._states.get(row.event.sender)
        if state is None or state.presence == OFFLINE:
            return
        idle = state.presence != "online"
        self._states[row.event.sender] = replace(state, presence="online", active=self._clock())
        if idle:
            self._announce(row.event.sender)

    async def _change(self, user_id: str, state: State) -> None:
        memberships = await self._members.rooms_of(user_id)
        joined = frozenset(room_id for room_id, m in memberships.items() if m.membership == "join")
        old = self._states.get(user_id, State())
        self._states[user_id] = replace(state, rooms=joined)
        if (old.presence, old.status) != (state.presence, state.status):
            self._announce(user_id)
        self._schedule()

    def _announce(self, user_id: str) -> None:
        self._ephemeral.appeared(user_id)
        if self.on_change is not None:
            self.on_change(user_id)
        own = self._hubs.find(user_id)
        if own is not None:
            own.wake()
        for room_id in self._rooms(user_id, self._states[user_id]):
            self._hubs.wake_room(room_id)

    # -- time passes -----------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._timer is None and self._states:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self.sweep)

    def sweep(self) -> None:
        """Let those who went away be offline, and the idle be unavailable."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._clock()
        for user_id, state in list(self._states.items()):
            hub = self._hubs.find(user_id)
            if not self._members.local(user_id):
                if now - state.synced > SILENT:
                    self._move(user_id, state, OFFLINE)
            elif now - state.synced > ABSENT and (hub is None or not hub.active):
                self._move(user_id, state, OFFLINE)
            elif state.presence == "online" and now - state.active > IDLE:
                self._move(user_id, state, "unavailable")
        self._schedule()

    def _move(self, user_id: str, state: State, presence: str) -> None:
        if state.presence != presence:
            self._states[user_id] = replace(state, presence=presence)
            self._announce(user_id)
        elif presence == OFFLINE and state.status is None and self._clock() - state.synced > 10 * IDLE:
            del self._states[user_id]

    def close(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- who may know it -------------------------------------------------------------------------------------------

    async def get(self, asker: str, user_id: UserId) -> dict[str, Any]:
        """Return somebody's presence; raises `Forbidden` unless both share a room."""
        if asker != user_id and not await self._store.read(rooms.shares_room, asker, user_id):
            raise Forbidden("You do not share a room with this user")
        return self._content(self._states.get(user_id, State()))

    def news(self, user_id: str, joined: Collection[str], after: int | None) -> list[tuple[str, dict[str, Any]]]:
        """Return (user id, content) of whose presence changed after a serial, or of all who are not offline (None)."""
        if not self._enabled:
            return []
        if after is None:
            users = [who for who, state in self._states.items() if state.presence != OFFLINE]
        else:
            users = self._ephemeral.presence.after(after)
        found = [(who, state) for who in users if (state := self._states.get(who)) is not None]
        return [
            (who, self._content(state))
            for who, state in found
            if who == user_id or not self._rooms(who, state).isdisjoint(joined)
        ]

    def _rooms(self, user_id: str, state: State) -> frozenset[str]:
        """Return where somebody is joined: as their hub knows it, or where they were when they were last heard of."""
        hub = self._hubs.find(user_id)
        return hub.joined if hub is not None and hub.born else state.rooms

    def _content(self, state: State) -> dict[str, Any]:
        content: dict[str, Any] = {"presence": state.presence}
        if state.active:
            content["last_active_ago"] = max(0, self._clock() - state.active)
        if state.status is not None:
            content["status_msg"] = state.status
        if state.presence == "online":
            content["currently_active"] = True
        return content

"""Who is where: memberships of local users and the local people of a room, cached and kept current by commits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, TypeVar

from appliance.matrix.ids import RoomId, ServerName, UserId, server_of
from appliance.store import rooms
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.rooms import Membership

V = TypeVar("V")
USERS = 2000
ROOMS = 1000


class _Load:
    """A read under way; `stale` once a commit has touched what it reads."""

    __slots__ = ("stale",)

    def __init__(self) -> None:
        self.stale = False


class _Cache(Generic[V]):
    """A bounded cache whose loads notice that a commit overtook them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: OrderedDict[str, V] = OrderedDict()
        self._loads: dict[str, set[_Load]] = {}

    def get(self, key: str) -> V | None:
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    async def load(self, key: str, read: Callable[[], Awaitable[V]]) -> V:
        """Return the value of `key`, reading until no commit came between."""
        while (value := self.get(key)) is None:
            load = _Load()
            self._loads.setdefault(key, set()).add(load)
            try:
                fresh = await read()
            finally:
                waiting = self._loads[key]
                waiting.discard(load)
                if not waiting:
                    del self._loads[key]
            if not load.stale:
                self._put(key, fresh)
                return fresh
        return value

    def touch(self, key: str, change: Callable[[V], V] | None) -> None:
        """A commit concerns `key`: change the cached value (None: drop it) and void the reads under way."""
        for load in self._loads.get(key, ()):
            load.stale = True
        value = self._values.get(key)
        if value is not None:
            if change is None:
                del self._values[key]
            else:
                self._values[key] = change(value)

    def _put(self, key: str, value: V) -> None:
        self._values[key] = value
        if len(self._values) > self._size:
            self._values.popitem(last=False)


class Members:
    """Memberships by user and local people by room."""

    def __init__(self, store: Store, server: ServerName) -> None:
        self._store = store
        self._server = server
        self._rooms: _Cache[Mapping[RoomId, Membership]] = _Cache(USERS)
        self._people: _Cache[frozenset[UserId]] = _Cache(ROOMS)

    def local(self, user_id: str) -> bool:
        """Tell whether a user belongs to this server."""
        return server_of(user_id) == self._server

    async def rooms_of(self, user_id: str) -> Mapping[RoomId, Membership]:
        """Return every room in which the user has or had a membership. A value: later changes make a new one."""
        found = self._rooms.get(user_id)
        return found if found is not None else await self._rooms.load(user_id, lambda: self._read_rooms(user_id))

    async def _read_rooms(self, user_id: str) -> Mapping[RoomId, Membership]:
        return {m.room_id: m for m in await self._store.read(rooms.memberships, user_id)}

    async def local_joined(self, room_id: str) -> frozenset[UserId]:
        """Return the joined users of this server in a room."""
        found = self._people.get(room_id)
        if found is not None:
            return found
        return await self._people.load(room_id, lambda: self._store.read(_local_joined, room_id, self._server))

    def local_joined_now(self, room_id: str) -> frozenset[UserId] | None:
        """Return what `local_joined` would, if it is in memory."""
        return self._people.get(room_id)

    def add(self, row: Row, pruned_id: str | None = None) -> None:
        """Follow a committed event, if it is a membership that counts."""
        event = row.event
        if event.type != "m.room.member" or event.state_key is None or row.flags or row.pos is None or row.pos < 0:
            return
        user_id, kind, pos = UserId(event.state_key), str(event.content.get("membership")), row.pos

        def people(now: frozenset[UserId]) -> frozenset[UserId]:
            return now | {user_id} if kind == "join" else now - {user_id}

        def mine(now: Mapping[RoomId, Membership]) -> Mapping[RoomId, Membership]:
            before = now.get(event.room_id)
            hidden = before is not None and before.forgotten and kind in ("leave", "ban")
            return {**now, event.room_id: Membership(user_id, row.rid, event.room_id, kind, row.eid, pos, hidden)}

        if self.local(user_id):
            self._people.touch(event.room_id, people)
        self._rooms.touch(user_id, mine)

    def forget(self, user_id: str) -> None:
        """Drop what is cached of a user whose memberships changed without an event (`forget`, a resolved fork)."""
        self._rooms.touch(user_id, None)

    def shifted(self, row: Row, users: Iterable[str]) -> None:
        """Follow a resolved fork (see `Ledger.on_shift`)."""
        self.forget_room(row.event.room_id)
        for user_id in users:
            self.forget(user_id)

    def forget_room(self, room_id: str) -> None:
        """Drop what is cached of a room whose state was resolved anew."""
        self._people.touch(room_id, None)


def _local_joined(rx: Rx, room_id: str, server: ServerName) -> frozenset[UserId]:
    room = rooms.find(rx, room_id)
    if room is None:
        return frozenset()
    return frozenset(m.user_id for m in rooms.members(rx, room.rid, "join") if server_of(m.user_id) == server)

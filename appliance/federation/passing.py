"""What others are told of our users in passing: who types, who is online. And receipts, which are owed like events.

Typing and presence are lost when a peer is away; a receipt waits for it, the newest in the place of older ones.

Source: server-server API, "Typing Notifications", "Presence", "Receipts".
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from appliance.federation.outbound import Outbound
from appliance.matrix import canonical
from appliance.matrix.ids import ServerName, server_of
from appliance.store import outbox, rooms
from appliance.store.database import Store
from appliance.store.readers import Rx
from appliance.store.receipts import UNTHREADED
from appliance.store.writer import Tx

AGAIN_MS: Final = 20_000
"""Somebody who goes on typing is announced anew after this long; others forget them otherwise."""
MOST_WAITING: Final = 10_000

Content = Callable[[str], Mapping[str, Any] | None]
"""A user's presence as other servers may know it; None: nothing to tell."""


class Passing:
    """Tells while `run` runs."""

    def __init__(
        self, store: Store, home: ServerName, outbound: Outbound, clock: Callable[[], int], content: Content
    ) -> None:
        self._store = store
        self._home = home
        self._outbound = outbound
        self._clock = clock
        self._content = content
        self._typing: OrderedDict[tuple[str, str], bool] = OrderedDict()
        self._announced: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._appeared: OrderedDict[str, None] = OrderedDict()
        self._bell = asyncio.Event()

    def typed(self, room_id: str, user_id: str, now: bool) -> None:
        """Somebody types, goes on typing, or stops (`rooms.typing.Typing.on_person`)."""
        key = (room_id, user_id)
        if server_of(user_id) != self._home or len(self._typing) >= MOST_WAITING:
            return
        if now and self._clock() - self._announced.get(key, -AGAIN_MS) < AGAIN_MS:
            return
        if now:
            self._announced[key] = self._clock()
            if len(self._announced) > MOST_WAITING:
                self._announced.popitem(last=False)
        else:
            self._announced.pop(key, None)
        self._typing[key] = now
        self._bell.set()

    def appeared(self, user_id: str) -> None:
        """Somebody's presence changed."""
        if server_of(user_id) == self._home and len(self._appeared) < MOST_WAITING:
            self._appeared[user_id] = None
            self._bell.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._typing:
                (room_id, user_id), now = self._typing.popitem(last=False)
                edu = {"room_id": room_id, "user_id": user_id, "typing": now}
                peers = await self._store.read(_in_room, room_id, self._home)
                self._offer(peers, f"typing {room_id} {user_id}", "m.typing", edu)
            while self._appeared:
                user_id, _ = self._appeared.popitem(last=False)
                content = self._content(user_id)
                if content is not None:
                    update = {"last_active_ago": 0, **content, "user_id": user_id}
                    peers = list(await self._store.read(outbox.servers_of, user_id, self._home))
                    self._offer(peers, f"presence {user_id}", "m.presence", {"push": [update]})

    def _offer(self, peers: list[str], key: str, kind: str, content: Mapping[str, Any]) -> None:
        for peer in peers:
            self._outbound.offer(ServerName(peer), key, {"edu_type": kind, "content": content})


def _in_room(rx: Rx, room_id: str, home: str) -> list[str]:
    room = rooms.find(rx, room_id)
    return outbox.servers_in(rx, room.rid, home) if room is not None else []


def owe_receipt(home: ServerName) -> Callable[[Tx, int, str, str, str, str, int], None]:
    """Return what `rooms.receipts.move` calls for each public receipt of our users."""

    def owe(tx: Tx, rid: int, room_id: str, user_id: str, thread_id: str, event_id: str, ts: int) -> None:
        peers = outbox.servers_in(tx, rid, home)
        if not peers:
            return
        data: dict[str, Any] = {"ts": ts} if thread_id == UNTHREADED else {"ts": ts, "thread_id": thread_id}
        receipt = {"event_ids": [event_id], "data": data}
        edu = {"edu_type": "m.receipt", "content": {room_id: {"m.read": {user_id: receipt}}}}
        outbox.owe_edu(tx, canonical.dumps(edu), peers, f"receipt {rid} {user_id} {thread_id}")

    return owe

"""Two servers in one process: real stores, real senders and receivers, a post office between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

from appliance.accounts import e2ee_keys
from appliance.federation.answers import ClaimedKeys, DeviceList, PeerDevice, UserKeys
from appliance.federation.client import Client
from appliance.federation.traffic import Ground, Traffic
from appliance.link.errors import Unreachable
from appliance.matrix import canonical
from appliance.matrix.ids import RoomId, ServerName, UserId
from appliance.rooms.typing import Typing
from appliance.store import device_lists, devices, keys, rooms
from appliance.store.database import Store
from appliance.store.readers import Rx
from appliance.store.writer import Tx
from tests.federation.post import A, B, Clock, Post, until

ROOM = RoomId("!ward:a.example")
ADA, BEN = UserId(f"@ada:{A}"), UserId(f"@ben:{B}")


class Side:
    """One server. `questions` counts what it asked the other; `deaf` makes the other unreachable for questions."""

    def __init__(self, name: ServerName, store: Store, post: Post, clock: Clock) -> None:
        self.name, self.store, self.clock = name, store, clock
        self.other: Side | None = None
        self.questions: list[str] = []
        self.deaf = False
        self.before_answer: Callable[[], Any] | None = None
        client = cast(Client, self)
        self.send = self._posted(post)
        self.typing = Typing(1)
        self.seen: list[tuple[Any, ...]] = []
        self.traffic = Traffic(Ground(store, name, client, clock, lambda: 0.5), self.receive, self.typing, self)
        self.outbound, self.copies, self.edus = self.traffic.outbound, self.traffic.copies, self.traffic.edus
        self.inbound, self.users, self.passing = self.traffic.inbound, self.traffic.users, self.traffic.passing
        self.typing.on_person = self.passing.typed

    def _posted(self, post: Post) -> Any:
        async def send(
            peer: ServerName, txn_id: str, ts: int, pdus: Sequence[Mapping[str, Any]],
            edus: Sequence[Mapping[str, Any]] = (),
        ) -> object:
            other = self.other
            assert other is not None and peer == other.name

            async def accept(txn: str, content: Mapping[str, Any]) -> object:
                return await other.inbound.accept(self.name, txn, {**content, "origin": self.name})

            post.at[peer] = accept
            return await post.send(peer, txn_id, ts, pdus, edus)

        return send

    async def receive(self, pdus: Sequence[dict[str, Any]], origin: ServerName, /) -> list[Any]:
        return []

    async def heard(self, *what: Any) -> None:
        self.seen.append(what)

    def content(self, user_id: str) -> dict[str, Any]:
        return {"presence": "online"}

    # -- what a peer answers (the client's methods)

    async def _asked(self, question: str) -> Side:
        self.questions.append(question)
        await asyncio.sleep(0)
        if self.deaf or self.other is None:
            raise Unreachable("other", "hung up")
        return self.other

    async def devices(self, peer: ServerName, user: UserId, /) -> DeviceList:
        other = await self._asked(f"devices {user}")
        found = await other.store.read(_device_list, user)
        if self.before_answer is not None:
            await self.before_answer()
        return found

    async def user_keys(self, peer: ServerName, wanted: Mapping[str, Sequence[str]]) -> UserKeys:
        other = await self._asked("keys")
        found = await other.store.read(e2ee_keys.published, wanted, "")
        return UserKeys(found["device_keys"], found["master_keys"], found["self_signing_keys"])

    async def claim_keys(self, peer: ServerName, wanted: Mapping[str, Mapping[str, str]]) -> ClaimedKeys:
        await self._asked("claim")
        return ClaimedKeys({user: {device: {"x:1": "k"} for device in per} for user, per in wanted.items()})

    async def profile(self, peer: ServerName, user: UserId, field: str | None) -> dict[str, Any]:
        await self._asked("profile")
        return {"displayname": "X"}

    # -- what its users do

    async def device(self, user: UserId, device_id: str, key: str = "k1") -> None:
        await self.store.write(publish, user, device_id, key)

    async def drop(self, user: UserId, device_id: str) -> None:
        await self.store.write(devices.delete, user, [device_id])

    async def known(self, user: UserId) -> dict[str, str]:
        """Ask as a client does: device id -> key of a remote user."""
        assert self.other is not None
        found = await self.users.query_keys(self.other.name, {user: []})
        assert not found["failures"] or user not in found["device_keys"]
        return {device: keys["keys"][f"ed25519:{device}"] for device, keys in found["device_keys"][user].items()}


def _device_list(rx: Rx, user: str) -> DeviceList:
    found = e2ee_keys.published(rx, {user: ()}, "")
    made = [PeerDevice(device_id, value) for device_id, value in found["device_keys"][user].items()]
    return DeviceList(
        user, device_lists.version(rx, user), made, found["master_keys"].get(user), found["self_signing_keys"].get(user)
    )


def publish(tx: Tx, user: str, device_id: str, key: str) -> None:
    """Let a device publish its identity key."""
    devices.ensure(tx, user, device_id, None, 1, None)
    value: dict[str, Any] = {
        "user_id": user, "device_id": device_id, "algorithms": ["m.olm"], "keys": {f"ed25519:{device_id}": key},
        "signatures": {user: {f"ed25519:{device_id}": "sig"}},
    }  # fmt: skip
    if keys.put_device_keys(tx, user, device_id, canonical.encode(value)):
        devices.list_changed(tx, user)


def seat(tx: Tx, users: Mapping[str, str], room_id: RoomId = ROOM) -> int:
    """Seat users in a room that both know, without events."""
    room = rooms.find(tx, room_id)
    rid = room.rid if room is not None else rooms.insert(tx, room_id, "11")
    for user_id, membership in users.items():
        rooms.set_membership(tx, user_id, rid, membership, 1, tx.next_pos())
    return rid


@asynccontextmanager
async def pair(folder: Path, post: Post | None = None, clock: Clock | None = None) -> AsyncIterator[tuple[Side, Side]]:
    """Open both on files in `folder`; ada (a.example) and ben (b.example) share a room."""
    post, clock = post or Post(), clock or Clock()
    async with AsyncExitStack() as stack:
        sides = []
        for name in (A, B):
            store = await Store.open(folder / f"{name}.db")
            stack.push_async_callback(store.close)
            sides.append(Side(name, store, post, clock))
        one, two = sides
        one.other, two.other = two, one
        tasks = []
        for side in sides:
            await side.store.write(seat, {ADA: "join", BEN: "join"})
            stack.callback(side.typing.close)
            tasks.append(asyncio.create_task(side.traffic.run()))
        try:
            yield one, two
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            broken = [task.exception() for task in tasks if not task.cancelled() and task.exception()]
            assert broken == []


async def settled(*sides: Side) -> None:
    """Wait until everything that is owed has been told and sent."""
    for _ in range(3):
        for side in sides:
            async with asyncio.timeout(5):
                while (await side.store.read(device_lists.untold, side.name, 1))[0]:  # noqa: ASYNC110
                    await asyncio.sleep(0.002)
            await until(side.outbound.idle)
        await asyncio.sleep(0.005)

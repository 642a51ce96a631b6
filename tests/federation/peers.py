"""Other servers as values: their keys, their key objects, their faults."""

import asyncio
from collections.abc import Mapping
from typing import Any

from appliance.federation.key_object import WEEK_MS
from appliance.link.errors import BadAnswer, Unreachable
from appliance.matrix import event as events
from appliance.matrix import versions
from appliance.matrix.canonical import Json
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, RoomId, ServerName, UserId
from appliance.matrix.signing import SigningKey, generate, sign_json

V11 = versions.get("11")
DAY = 24 * 3600 * 1000


class Server:
    """A homeserver that has a key, an old key, and perhaps a fault."""

    def __init__(self, name: str, seed: int, now: int) -> None:
        self.name = ServerName(name)
        self.key = generate("now", bytes([seed]) * 32)
        self.before = generate("before", bytes([seed + 100]) * 32)
        self.expired = now - 30 * DAY
        self.until = now + DAY
        self.fault: str = ""
        self.visits = 0

    def rotate(self, seed: int, now: int) -> None:
        self.before, self.expired = self.key, now
        self.key = generate(f"k{seed}", bytes([seed]) * 32)

    def object(self, **changes: Json) -> dict[str, Json]:
        body: dict[str, Json] = {
            "server_name": self.name,
            "verify_keys": {self.key.key_id: {"key": self.key.verify_key_b64}},
            "old_verify_keys": {self.before.key_id: {"key": self.before.verify_key_b64, "expired_ts": self.expired}},
            "valid_until_ts": self.until,
            **changes,
        }
        return sign_json(body, self.name, self.key)

    def event(self, ts: int, *, key: SigningKey | None = None, sender: str = "", **content: Json) -> Event:
        """Make an event of a room, signed by this server whoever the sender is."""
        return events.build(
            V11, room_id=RoomId("!r:x.example"), type="m.room.message", sender=UserId(sender or f"@u:{self.name}"),
            state_key=None, content={"body": "x", **content}, origin_server_ts=ts, depth=1,
            prev_events=[EventId("$p")], auth_events=[EventId("$a")], signer=key or self.key, server=self.name,
        )  # fmt: skip


class Publishers:
    """Where the keyring asks; counts, and does to it what hostile servers do."""

    def __init__(self, *servers: Server) -> None:
        self.servers = {server.name: server for server in servers}
        self.notaries: dict[ServerName, Server] = {}
        self.asked: list[tuple[ServerName, Mapping[ServerName, Mapping[str, int]]]] = []
        self.at_once = self.most_at_once = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def key_object(self, peer: ServerName) -> dict[str, Json]:
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            return self._answer(peer)
        finally:
            self.at_once -= 1

    def _answer(self, peer: ServerName) -> dict[str, Json]:
        server = self.servers.get(peer)
        if server is None:
            raise Unreachable(peer, "could not be connected to")
        server.visits += 1
        if server.fault == "down":
            raise Unreachable(peer, "hung up")
        if server.fault == "nonsense":
            raise BadAnswer(peer, "answered with something that is not a JSON object")
        return LIES[server.fault](server) if server.fault else server.object()

    async def ask_notary(
        self, notary: ServerName, wanted: Mapping[ServerName, Mapping[str, int]]
    ) -> list[dict[str, Any]]:
        self.asked.append((notary, wanted))
        teller = self.notaries[notary]
        if teller.fault:
            raise Unreachable(notary, "hung up")
        known = [self.servers[server] for server in wanted if server in self.servers]
        return [sign_json(server.object(), teller.name, teller.key) for server in known]


LIES = {
    "other name": lambda s: s.object(server_name="victim.example"),
    "unsigned": lambda s: {**s.object(), "signatures": {}},
    "foreign signature": lambda s: {**s.object(), "signatures": {"other.example": {"ed25519:now": "AAAA"}}},
    "changed": lambda s: {**s.object(), "valid_until_ts": s.until + 1},
    "no time": lambda s: s.object(valid_until_ts="soon"),
    "float time": lambda s: {**s.object(), "valid_until_ts": 1e15},
    "no keys": lambda s: s.object(verify_keys={}),
    "list of keys": lambda s: s.object(verify_keys=[1]),
    "short key": lambda s: s.object(verify_keys={s.key.key_id: {"key": "AAAA"}}),
    "not base64": lambda s: s.object(verify_keys={s.key.key_id: {"key": "ä!"}}),
    "key is a number": lambda s: s.object(verify_keys={s.key.key_id: 7}),
    "bad old key": lambda s: s.object(old_verify_keys={"ed25519:x": {"key": s.key.verify_key_b64}}),
    "ten thousand": lambda s: s.object(
        old_verify_keys={f"ed25519:k{n}": {"key": s.key.verify_key_b64, "expired_ts": 1} for n in range(10_000)}
    ),
    "other algorithm": lambda s: s.object(verify_keys={"rsa:1": {"key": s.key.verify_key_b64}}),
}

WEEK = WEEK_MS

"""A small Matrix client for tests and load generators.

Only endpoints of the Client-Server specification are used, so the same code drives any homeserver.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

CLIENT = "/_matrix/client"
PASSWORD = "bench-Passw0rd!"
_numbers = itertools.count(1)


def transaction_id() -> str:
    """Return a transaction id that no other call of this process, or of another one, gives."""
    return f"t{os.getpid()}-{next(_numbers)}"


def segment(text: str) -> str:
    """Return `text` as one percent-encoded path segment."""
    return quote(text, safe="")


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer: status, headers and the whole body."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get("Content-Type", "").split(";")[0].strip().lower()


class Refusal(RuntimeError):
    """The server answered with something other than 200."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"HTTP {status}: {body}")
        self.status = status
        self.body = body
        self.errcode = body.get("errcode", "") if isinstance(body, dict) else ""


def session() -> aiohttp.ClientSession:
    """Return an HTTP session without a limit on connections; the caller closes it."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))


class Client:
    """One device of one user on one homeserver."""

    def __init__(self, http: aiohttp.ClientSession, base: str) -> None:
        self.http = http
        self.base = base.rstrip("/")
        self.token = ""
        self.user_id = ""
        self.device_id = ""

    async def call(
        self, method: str, path: str, body: Any = None, *, params: Any = None, seconds: float = 60
    ) -> dict[str, Any]:
        """Ask one thing and return the JSON object of a 200; raise `Refusal` for any other status.

        `path` is relative to /_matrix/client unless it names another root; `seconds` is the longest wait.
        """
        url = self.base + (path if path.startswith(("/_", "/.well-known")) else CLIENT + path)
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        limit = aiohttp.ClientTimeout(total=seconds)
        async with self.http.request(method, url, json=body, params=params, headers=headers, timeout=limit) as answer:
            data = await answer.json(content_type=None)
            if answer.status != 200:
                raise Refusal(answer.status, data)
            assert isinstance(data, dict), data
            return data

    async def register(self, name: str, password: str = PASSWORD, **fields: Any) -> Client:
        """Register by m.login.dummy, with the extra round when the server wants a UIA session first."""
        body = {"username": name, "password": password, "initial_device_display_name": name, **fields}
        auth = {"type": "m.login.dummy"}
        try:
            got = await self.call("POST", "/v3/register", {**body, "auth": auth})
        except Refusal as refusal:
            if refusal.status != 401 or not isinstance(refusal.body, dict) or "session" not in refusal.body:
                raise
            auth["session"] = refusal.body["session"]
            got = await self.call("POST", "/v3/register", {**body, "auth": auth})
        return self._signed_in(got)

    async def login(self, user: str, password: str = PASSWORD, **fields: Any) -> Client:
        """Log in with a password as a new device."""
        body = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": user}, "password": password}
        return self._signed_in(await self.call("POST", "/v3/login", {**body, **fields}))

    def _signed_in(self, got: dict[str, Any]) -> Client:
        self.token, self.user_id, self.device_id = got["access_token"], got["user_id"], got.get("device_id", "")
        return self

    async def create_room(self, **fields: Any) -> str:
        got = await self.call("POST", "/v3/createRoom", fields)
        return str(got["room_id"])

    async def join(self, room: str) -> None:
        await self.call("POST", f"/v3/join/{segment(room)}", {}, seconds=120)

    async def send(
        self, room: str, content: dict[str, Any], kind: str = "m.room.message", txn: str | None = None
    ) -> str:
        """Send one event and return its id."""
        path = f"/v3/rooms/{segment(room)}/send/{segment(kind)}/{segment(txn or transaction_id())}"
        return str((await self.call("PUT", path, content))["event_id"])

    async def sync(self, since: str | None = None, timeout_ms: int = 0, filter_json: str | None = None) -> Any:
        params = {"timeout": str(timeout_ms)}
        if since:
            params["since"] = since
        if filter_json:
            params["filter"] = filter_json
        return await self.call("GET", "/v3/sync", params=params, seconds=60 + timeout_ms / 1000)

    async def every_event(self, room: str, *, page: int = 500) -> list[dict[str, Any]]:
        """Return the whole timeline of a room, oldest first, by paging backwards through /messages."""
        events: list[dict[str, Any]] = []
        params = {"dir": "b", "limit": str(page)}
        while True:
            got = await self.call("GET", f"/v3/rooms/{segment(room)}/messages", params=params)
            events += got["chunk"]
            if not got.get("end") or got["end"] == params.get("from"):
                return events[::-1]
            params["from"] = got["end"]


async def register_many(http: aiohttp.ClientSession, base: str, names: list[str], at_once: int = 8) -> list[Client]:
    """Register several users, at most `at_once` at a time, and return them in the order of their names."""
    gate = asyncio.Semaphore(at_once)

    async def one(name: str) -> Client:
        async with gate:
            return await Client(http, base).register(name)

    return list(await asyncio.gather(*(one(name) for name in names)))

"""A practice: every room of the house on a real database, behind a real socket, with a clock that tests move.

Every answer is compared with the published OpenAPI description where the specification data lies beside the checkout.
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from yarl import URL

from appliance import house
from appliance.accounts.passwords import Passwords
from appliance.config import PROFILES, Config
from appliance.doors.web import Surface
from appliance.matrix.ids import ServerName
from appliance.store.database import Store
from tests.conformance.openapi import Specification
from tests.world.client import segment
from tests.world.rooms import SERVER, Clock

__all__ = ["PASSWORD", "V3", "Device", "Got", "Practice", "opened", "segment"]

V3 = "/_matrix/client/v3"
PASSWORD = "Visite-um-8"
_SPEC = Path(__file__).resolve().parents[3] / "shared" / "spec" / "data"
_QUICK = functools.partial(Passwords, 1, 8192)
"""The least work that argon2id does: these tests are not about its cost."""


@functools.cache
def specification() -> Specification | None:
    """Return the published description, None where it is not at hand."""
    if _SPEC.is_dir():
        return Specification(_SPEC)
    print("left out: comparison with the specification data, which is not laid beside this checkout")
    return None


@dataclass
class Got:
    """One answer."""

    status: int
    body: Any
    headers: Mapping[str, str]

    @property
    def errcode(self) -> str:
        return str(self.body.get("errcode", ""))


@dataclass
class Device:
    """A logged-in device."""

    practice: Practice
    user_id: str
    device_id: str
    token: str = field(repr=False)
    refresh: str | None = field(default=None, repr=False)

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> Got:
        return await self.practice.ask(method, path, body, token=self.token, **query)

    async def fine(self, method: str, path: str, body: Any = None, **query: str) -> dict[str, Any]:
        """Ask and expect a 200."""
        return await self.practice.fine(method, path, body, token=self.token, **query)

    async def confirmed(self, method: str, path: str, body: dict[str, Any], password: str = PASSWORD) -> Got:
        """Ask something that wants the password, and give it."""
        first = await self.ask(method, path, body)
        assert first.status == 401 and ["m.login.password"] in [f["stages"] for f in first.body["flows"]], first
        return await self.ask(method, path, {**body, "auth": self.proof(first.body["session"], password)})

    def proof(self, session: str, password: str = PASSWORD) -> dict[str, Any]:
        identifier = {"type": "m.id.user", "user": self.user_id}
        return {"type": "m.login.password", "identifier": identifier, "password": password, "session": session}

    async def sync(self, since: str | None = None) -> dict[str, Any]:
        return await self.fine("GET", "/sync", timeout="0", **({"since": since} if since else {}))

    async def room(self, *invited: str) -> str:
        body = {"preset": "private_chat", "invite": list(invited)}
        return str((await self.fine("POST", "/createRoom", body))["room_id"])


@dataclass
class Practice:
    """The house and the way to it."""

    folder: Path
    store: Store
    clock: Clock
    people: house.People
    http: ClientSession
    server: TestServer

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, raw: bytes | None = None,
        **query: str,
    ) -> Got:
        """Ask once; paths begin under /v3 unless they name another root. Any deviation in form fails the test."""
        full = path if path.startswith("/_") else V3 + path
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        url = URL(f"http://{self.server.host}:{self.server.port}{full}", encoded=True)
        url = url.update_query(query) if query else url
        async with self.http.request(method, url, data=data, headers=headers, allow_redirects=False) as answer:
            text = await answer.read()
            got = Got(answer.status, json.loads(text) if text else None, answer.headers)
        assert got.status < 500, got
        self._compare(method, full, got)
        return got

    def _compare(self, method: str, path: str, got: Got) -> None:
        spec = specification()
        found = spec.find(method, path) if spec is not None else None
        if spec is None or found is None or got.status == 302:
            return
        if got.status == 401 and "flows" not in got.body:
            assert got.errcode in ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN", "M_USER_LOCKED"), got
            return  # described in the text only, for all operations at once
        kind = got.headers.get("Content-Type", "")
        faults = spec.answer_faults(found[1], got.status, kind, got.body)
        assert not faults, f"{found[0]} {got.status}: {faults}"

    async def fine(self, method: str, path: str, body: Any = None, **how: Any) -> dict[str, Any]:
        got = await self.ask(method, path, body, **how)
        assert got.status == 200, (method, path, got)
        assert isinstance(got.body, dict)
        return got.body

    async def register(self, name: str, password: str = PASSWORD, **more: Any) -> Device:
        """Make an account by m.login.dummy."""
        body = {"username": name, "password": password, "auth": {"type": "m.login.dummy"}, **more}
        return self._device(await self.fine("POST", "/register", body))

    async def login(self, user: str, password: str = PASSWORD, **more: Any) -> Device:
        return self._device(await self.fine("POST", "/login", password_login(user, password, **more)))

    def _device(self, got: dict[str, Any]) -> Device:
        return Device(self, got["user_id"], got["device_id"], got["access_token"], got.get("refresh_token"))

    async def column(self, sql: str, *args: Any) -> list[Any]:
        """Look into the database itself."""
        return await self.store.read(lambda rx: [row[0] for row in rx.execute(sql, args)])


def password_login(user: str, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    """Return the body of a log-in."""
    identifier = {"type": "m.id.user", "user": user}
    return {"type": "m.login.password", "identifier": identifier, "password": password, **more}


@asynccontextmanager
async def opened(folder: Path, profile: str = "matrix", **settings: Any) -> AsyncIterator[Practice]:
    """Open a practice on the database in `folder`; in the laboratory profile everybody may register."""
    clock = Clock()
    wanted = {"open_registration": True, "rate_limits": False, **settings}
    config = Config(
        server_name=ServerName(SERVER), data=folder, host="127.0.0.1", port=0, profile=PROFILES[profile], **wanted
    )
    store = await Store.open(folder / "schleuse.db")
    with patch.object(house, "clock", clock), patch.object(house, "Passwords", _QUICK):
        rooms = house.Rooms(config, store)
        people = house.People(config, store, rooms)
        news = house.News(config, store, rooms)
    surface = Surface(people.tokens.authenticate, people.limits)
    server = TestServer(surface.application([*news.routes(), *rooms.routes(), *people.routes()]))
    await server.start_server()
    try:
        async with ClientSession() as http:
            yield Practice(folder, store, clock, people, http, server)
    finally:
        await server.close()
        await news.close()
        rooms.typing.close()
        people.passwords.close()
        await store.close()

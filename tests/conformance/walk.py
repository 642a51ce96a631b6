"""A walk through the Client-Server API that compares every answer with the published description."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

import aiohttp

from tests.conformance.openapi import Specification
from tests.world.client import CLIENT, PASSWORD, Answer, Client, segment, transaction_id

__all__ = ["Walk", "segment", "transaction_id"]
SUCCESS = 200


class Walk:
    """Calls operations, checks each answer, and remembers which operations answered as they should."""

    def __init__(self, http: aiohttp.ClientSession, base: str, specification: Specification) -> None:
        self.http, self.base, self.specification = http, base, specification
        self.run = uuid.uuid4().hex[:6]
        self.calls = 0
        self.reached: set[str] = set()
        self.faults: list[str] = []

    async def person(self, name: str) -> Client:
        """Register somebody who has not been here before."""
        return await Client(self.http, self.base).register(f"{name}{self.run}")

    async def raw(
        self, who: Client | None, method: str, path: str, *, headers: Mapping[str, str] | None = None, **fields: Any
    ) -> Answer:
        """Send a request and return the answer as it came; redirects are not followed."""
        sent = {"Authorization": f"Bearer {who.token}"} if who else {}
        url = self.base + path
        async with self.http.request(
            method, url, headers={**sent, **(headers or {})}, allow_redirects=False, **fields
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    async def __call__(
        self, who: Client | None, method: str, path: str, body: Any = None, *, expect: int = SUCCESS, **fields: Any
    ) -> dict[str, Any]:
        """Call one operation and note every deviation; return the JSON object, or an empty one."""
        full = path if path.startswith(("/_", "/.well-known")) else CLIENT + path
        if body is not None:
            fields["json"] = body
        answer = await self.raw(who, method, full, **fields)
        self.calls += 1
        where = f"{method} {path} {answer.status}"
        if answer.status != expect:
            self.faults.append(f"{where}: expected {expect}: {answer.raw[:200]!r}")
        got = json.loads(answer.raw) if answer.content_type == "application/json" and answer.raw else None
        found = self.specification.find(method, full)
        if found:
            name, operation = found
            if answer.status == expect and expect < 400:
                self.reached.add(name)
            faults = self.specification.answer_faults(operation, answer.status, answer.content_type, got)
            self.faults += [f"{where}: {fault}" for fault in faults]
        return got if isinstance(got, dict) else {}

    async def confirmed(
        self, who: Client, method: str, path: str, body: dict[str, Any], password: str = PASSWORD
    ) -> dict[str, Any]:
        """Call an operation that wants the password again (User-Interactive Authentication)."""
        asked = await self(who, method, path, body, expect=401)
        flows = [flow.get("stages") for flow in asked.get("flows", [])]
        if ["m.login.password"] not in flows:
            self.faults.append(f"{method} {path}: no password flow in {flows}")
        identifier = {"type": "m.id.user", "user": who.user_id}
        auth = {"type": "m.login.password", "identifier": identifier, "password": password}
        auth["session"] = asked.get("session", "")
        return await self(who, method, path, {**body, "auth": auth})

"""The door of one ward, behind a real socket, for the signed requests of its neighbours."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from yarl import URL

from appliance.doors.federation.entry import Entry, PeerRoute
from appliance.doors.web import Access, Route, Surface
from appliance.federation import requests
from appliance.federation.requests import Credentials, authorization
from appliance.matrix import canonical
from appliance.matrix.ids import ServerName
from appliance.matrix.requester import Requester
from appliance.matrix.signing import decode_base64
from tests.conformance.openapi import Specification
from tests.conftest import SPEC_DATA
from tests.world.federation import RemoteWard

V1 = "/_matrix/federation/v1"
V2 = "/_matrix/federation/v2"


@functools.cache
def specification() -> Specification | None:
    """Return the published description, None where it is not at hand."""
    if SPEC_DATA.is_dir():
        return Specification(SPEC_DATA, "server-server")
    print("left out: comparison with the specification data, which is not laid beside this checkout")
    return None


@dataclass
class Site:
    """The served ward; every answer is compared with its description."""

    home: RemoteWard
    http: ClientSession
    server: TestServer

    async def ask(self, guest: RemoteWard, method: str, target: str, body: Any = None) -> tuple[int, Any]:
        """Ask as the server `guest`; returns status and answer."""
        raw = canonical.encode(body) if body is not None else None
        header = authorization(guest.key, guest.server, self.home.server, method, target, raw)
        url = URL(f"http://127.0.0.1:{self.server.port}{target}", encoded=True)
        async with self.http.request(method, url, data=raw, headers={"Authorization": header}) as answer:
            found = await answer.json()
        described = specification()
        if described is not None:
            operation = described.find(method, target.split("?")[0])
            assert operation is not None, target
            faults = described.answer_faults(operation[1], answer.status, answer.content_type, found)
            assert not faults, f"{operation[0]}: {faults}"
        return answer.status, found


async def _nobody(token: str, access: Access) -> Requester:
    raise AssertionError("no clients here")


@asynccontextmanager
async def serving(home: RemoteWard, routes: Sequence[PeerRoute], plain: Sequence[Route] = ()) -> AsyncIterator[Site]:
    """Serve the routes of a ward to its neighbours, whose keys it knows."""

    async def authenticate(claim: Credentials, method: str, target: str, content: bytes | None) -> None:
        key = home.town.keys[ServerName(claim.origin)]
        requests.verify(claim, method, target, content, {key.key_id: decode_base64(key.verify_key_b64)})

    app = Surface(_nobody, lambda kind, who: None).application(plain)
    Entry(home.server, authenticate, lambda peer, path: None, lambda peer: None).serve(app, routes)
    server = TestServer(app)
    await server.start_server()
    async with ClientSession() as http:
        yield Site(home, http, server)
    await server.close()

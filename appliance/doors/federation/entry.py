"""The door that other homeservers come through: who they are is proved before anything else is done.

A chapter lists `PeerRoute`s; `Entry.serve` adds them to an application of `doors.web.Surface`, which answers what no
route serves. In this order: the Authorization header is read and must be meant for us, the body is read within its
limits, the signature is checked with the sender's current keys, the caller is admitted, then the handler runs. The few
routes that need no signature (keys, version) are ordinary `Route`s with `Access.NONE`.

Source: server-server API, "Request Authentication".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from appliance.doors.web import QUERY_LIMIT, Access, Call, Route, refusal, rendered
from appliance.federation import requests
from appliance.federation.requests import Credentials
from appliance.matrix import canonical
from appliance.matrix.errors import BadJson, TooLarge
from appliance.matrix.ids import ServerName

BODY_LIMIT: Final = 256 * 1024
Json = Any


@dataclass(frozen=True, slots=True)
class PeerCall:
    """One request of a peer that is known to come from it. `call` reads path and query, `content` is the body."""

    call: Call
    peer: ServerName
    content: dict[str, Json]


PeerHandler = Callable[[PeerCall], Awaitable[Json]]
Authenticate = Callable[[Credentials, str, str, bytes | None], Awaitable[None]]
"""From (claim, method, target, canonical body) to nothing; raises `Unauthorized`. `Keyring.authenticate` is one."""
AdmitPeer = Callable[[ServerName, str], None]
"""May this peer call this route (its path with placeholders) now? Raises `Forbidden` or `LimitExceeded`."""
Heard = Callable[[ServerName], None]
"""Told after every proved request: the peer is alive."""


@dataclass(frozen=True, slots=True)
class PeerRoute:
    """One signed operation."""

    method: str
    path: str
    handler: PeerHandler
    body_limit: int = BODY_LIMIT


class Entry:
    """Proves callers and hands them to the handlers."""

    def __init__(self, name: ServerName, authenticate: Authenticate, admit: AdmitPeer, heard: Heard) -> None:
        self._name = name
        self._authenticate = authenticate
        self._admit = admit
        self._heard = heard

    def serve(self, app: web.Application, routes: Iterable[PeerRoute]) -> None:
        """Add the routes to an application."""
        for route in routes:
            app.router.add_route(route.method, route.path, self._adapter(route))

    def _adapter(self, route: PeerRoute) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        plain = Route(route.method, route.path, _unused, Access.NONE, route.body_limit)

        async def handle(request: web.Request) -> web.StreamResponse:
            call = Call(request, plain, None)
            try:
                peer, content = await self._prove(call)
                self._admit(peer, route.path)
                result = await route.handler(PeerCall(call, peer, content))
            except Exception as error:
                return refusal(request, error)
            return rendered(result)

        return handle

    async def _prove(self, call: Call) -> tuple[ServerName, dict[str, Json]]:
        request = call.request
        if len(request.raw_path) > QUERY_LIMIT:
            raise TooLarge("The request line is too long", status=414)
        claim = requests.credentials(request.headers.getall("Authorization", []), self._name)
        raw = await call.body()
        content = canonical.decode_object(raw) if raw else None
        if content is None and request.method in ("PUT", "POST"):
            raise BadJson("The request needs a JSON object as its body")
        signed = canonical.encode(content) if content is not None else None
        await self._authenticate(claim, request.method, request.raw_path, signed)
        self._heard(claim.origin)
        return claim.origin, content or {}


async def _unused(call: Call) -> Json:
    raise AssertionError("a peer's route is served by its entry, not by the client surface")

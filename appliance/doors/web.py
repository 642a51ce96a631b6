"""Between aiohttp and the house: routes, the parsed call, the error shape.

A chapter of the API (`doors/client/*.py`) lists its `Route`s; a handler takes a `Call` and returns a dict, ready JSON
bytes, a `Reply`, or an aiohttp response for streams. Whatever goes wrong becomes JSON in one place here (`_refusal`);
handlers never build an error themselves.
"""

from __future__ import annotations

import asyncio
import enum
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from appliance.matrix import canonical
from appliance.matrix.errors import (
    InvalidParam,
    MatrixError,
    MethodNotAllowed,
    MissingParam,
    MissingToken,
    TooLarge,
    Unknown,
    Unrecognized,
)
from appliance.matrix.requester import Requester
from appliance.store.connection import StoreUnavailable

log = logging.getLogger(__name__)

Json = Any
BODY_LIMIT = 256 * 1024
QUERY_LIMIT = 16 * 1024
BODY_SECONDS = 60

CORS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization",
    "Access-Control-Max-Age": "86400",
}


class Access(enum.Enum):
    """Who may call a route."""

    NONE = enum.auto()  # anybody; a token is not even looked at
    OPTIONAL = enum.auto()  # anybody; a token, if given, must be good
    USER = enum.auto()  # an access token is needed
    ACCOUNT = enum.auto()  # as USER, and the account may be locked: logging out, nothing else


class Reply(msgspec.Struct, frozen=True):
    """An answer with a status or headers of its own; `body` is JSON-able or ready bytes."""

    body: Json = msgspec.field(default_factory=dict)
    status: int = 200
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)


class Call:
    """One request, parsed on demand. Every getter raises the field's own error for what is missing or malformed."""

    __slots__ = ("_requester", "request", "route")

    def __init__(self, request: web.Request, route: Route, requester: Requester | None) -> None:
        self.request = request
        self.route = route
        self._requester = requester

    @property
    def requester(self) -> Requester:
        """Return who asks; a route with `Access.NONE` or `OPTIONAL` must use `visitor` instead."""
        if self._requester is None:
            raise MissingToken()
        return self._requester

    @property
    def visitor(self) -> Requester | None:
        """Return who asks, or None for an anonymous call."""
        return self._requester

    def path(self, name: str) -> str:
        """Return a path parameter, percent-decoded."""
        return self.request.match_info[name]

    def query(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of a query parameter."""
        return self.request.query.get(name, default)

    def query_all(self, name: str) -> list[str]:
        """Return every value of a repeated query parameter."""
        return self.request.query.getall(name, [])

    def query_int(self, name: str, default: int, minimum: int = 0, maximum: int = 2**53 - 1) -> int:
        """Return an integer parameter, clamped to `maximum`; `InvalidParam` below `minimum` or for other text."""
        text = self.request.query.get(name)
        if text is None:
            return default
        digits = text.removeprefix("-")
        if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
            raise InvalidParam(f"{name} must be an integer")
        number = int(text)
        if number < minimum:
            raise InvalidParam(f"{name} must be at least {minimum}")
        return min(number, maximum)

    def query_bool(self, name: str, default: bool = False) -> bool:
        """Return a boolean parameter (`true` or `false`)."""
        text = self.request.query.get(name)
        if text is None:
            return default
        if text not in ("true", "false"):
            raise InvalidParam(f"{name} must be true or false")
        return text == "true"

    def query_choice(self, name: str, choices: Iterable[str], default: str | None = None) -> str:
        """Return a parameter that must be one of `choices`; without a default it is required."""
        text = self.request.query.get(name, default)
        if text is None:
            raise MissingParam(f"Missing query parameter {name}")
        if text not in choices:
            raise InvalidParam(f"{name} must be one of: {', '.join(sorted(choices))}")
        return text

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Within this block the request ends with its connection: nobody waits for news after hanging up.

        Every other request is carried through, as the client may have hung up only because it was impatient.
        """
        connection = self.request.protocol
        if not hasattr(connection, "patient"):
            yield
            return
        connection.patient = asyncio.current_task()
        try:
            yield
        finally:
            connection.patient = None

    async def body(self) -> bytes:
        """Read the whole body within the route's limits of size and time."""
        limit = self.route.body_limit
        if (self.request.content_length or 0) > limit:
            raise TooLarge(f"The request body must not exceed {limit} bytes")
        if self.request.content.is_eof():  # it came with the head, as small bodies do: nothing to wait for
            return await self._pieces(limit)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                return await self._pieces(limit)
        except TimeoutError as error:
            raise Unknown("The request body did not arrive in time", status=408) from error

    async def _pieces(self, limit: int) -> bytes:
        """Read piece by piece: a chunked or compressed body does not say in advance how long it will be."""
        pieces, size = [], 0
        while piece := await self.request.content.readany():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise TooLarge(f"The request body must not exceed {limit} bytes")
        return b"".join(pieces)

    async def json(self, *, optional: bool = False) -> dict[str, Json]:
        """Read the body as a JSON object; an empty one counts as `{}` if `optional`."""
        raw = await self.body()
        if optional and not raw:
            return {}
        return canonical.decode_object(raw)


Handler = Callable[[Call], Awaitable[Json]]
Authenticate = Callable[[str, Access], Awaitable[Requester]]
"""From the bearer token to the requester; raises `UnknownToken`, `UserDeactivated`, ..."""
Admit = Callable[[str, str], None]
"""Rate limit: (kind, key of the caller) -> None, or raises `LimitExceeded`."""


class Route(msgspec.Struct, frozen=True):
    """One operation. `rate` names the limiter's kind; None means the default for the caller."""

    method: str
    path: str
    handler: Handler
    access: Access = Access.USER
    body_limit: int = BODY_LIMIT
    rate: str | None = None


def bearer(request: web.Request) -> str | None:
    """Return the access token of a request (header, or the old query parameter)."""
    header = request.headers.get("Authorization")
    if header is not None:
        scheme, _, token = header.partition(" ")
        if scheme.lower() == "bearer" and token:
            return token.strip()
        return None
    return request.query.get("access_token")


_JSON_HEADERS: CIMultiDict[str] = CIMultiDict({**CORS, "Content-Type": "application/json"})


def json_response(body: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Render a body (bytes are taken as ready JSON) with the headers every client answer carries."""
    raw = body if isinstance(body, bytes) else canonical.dumps(body)
    all_headers = _JSON_HEADERS.copy()
    if headers:
        all_headers.update(headers)
    return web.Response(body=raw, status=status, headers=all_headers)


def error_response(error: MatrixError) -> web.Response:
    """Render a refusal. The only place where an exception becomes an answer."""
    headers = {}
    retry = error.extra.get("retry_after_ms")
    if isinstance(retry, int):
        headers["Retry-After"] = str(max(1, -(-retry // 1000)))
    return json_response(error.body(), error.status, headers)


def rendered(result: Json) -> web.StreamResponse:
    """Render what a handler returned: a stream as it is, a `Reply` with its status, anything else as JSON."""
    if isinstance(result, web.StreamResponse):
        return result
    if isinstance(result, Reply):
        return json_response(result.body, result.status, result.headers)
    return json_response(result)


class Surface:
    """The client API as an aiohttp application."""

    def __init__(self, authenticate: Authenticate, admit: Admit) -> None:
        self._authenticate = authenticate
        self._admit = admit

    def application(self, routes: Iterable[Route]) -> web.Application:
        """Build the application that serves `routes` and answers everything else in Matrix form."""
        app = web.Application(client_max_size=2**40)
        for route in routes:
            app.router.add_route(route.method, route.path, self._adapter(route))
        app.router.add_route("*", "/{anything:(?s:.*)}", _unmatched)
        return app

    def _adapter(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                requester = await self._identify(request, route)
                self._admit(route.rate or "default", requester.user_id if requester else request.remote or "")
                result = await route.handler(Call(request, route, requester))
            except Exception as error:
                return refusal(request, error)
            return rendered(result)

        return handle

    async def _identify(self, request: web.Request, route: Route) -> Requester | None:
        if len(request.raw_path) > QUERY_LIMIT:
            raise TooLarge("The request line is too long", status=414)
        if route.access is Access.NONE:
            return None
        token = bearer(request)
        if token is None:
            if route.access is Access.OPTIONAL:
                return None
            raise MissingToken()
        return await self._authenticate(token, route.access)


async def _unmatched(request: web.Request) -> web.StreamResponse:
    """Answer what no route serves: browsers' questions before a call, wrong methods, unknown paths."""
    if request.method == "OPTIONS":
        return web.Response(status=200, headers=CORS)
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        allowed |= (await resource.resolve(request))[1] - {"*"}
    if not allowed:
        return error_response(Unrecognized("Unrecognized request"))
    answer = error_response(MethodNotAllowed("Method not allowed"))
    answer.headers["Allow"] = ", ".join(sorted(allowed))
    return answer


def refusal(request: web.Request, error: Exception) -> web.Response:
    """Turn an exception into the field's own form; nothing of ours leaks into a 500."""
    match error:
        case MatrixError():
            return error_response(error)
        case web.HTTPException():
            return error_response(Unknown(error.reason, status=error.status))
        case HttpProcessingError() | web.RequestPayloadError() | UnicodeError():
            return error_response(Unknown("The request could not be understood", status=400))
        case StoreUnavailable():
            log.error("store unavailable: %s", error.__cause__)
            return error_response(Unknown(str(error), status=503))
        case ConnectionError():
            raise error
    return _broken(request, error)


def _broken(request: web.Request, error: Exception) -> web.Response:
    resource = request.match_info.route.resource
    where = resource.canonical if resource is not None else "?"
    log.error("internal error in %s %s", request.method, where, exc_info=error)
    return error_response(Unknown("Internal server error", status=500))

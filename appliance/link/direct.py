"""The direct way to other homeservers: over the network that this machine itself is in.

For laboratories and for whoever runs the house on the open internet. A hospital's appliance goes through its link
instead, which offers the same two functions.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import aiohttp
from yarl import URL

from appliance.link import dial
from appliance.link.addresses import AddressPolicy
from appliance.link.dns import Dns
from appliance.link.errors import BadAnswer, Unreachable
from appliance.link.exchange import Answer, Ask, Streamed
from appliance.link.expiring import Clock
from appliance.link.resolve import Destination, Endpoint, Remembered, Resolver
from appliance.link.well_known import MOST_BYTES, MOST_REDIRECTS, SECONDS, Page, PageUnavailable

HTTPS_PORT: Final = 443
IDLE_SECONDS: Final = 20.0
"""Longest silence in the middle of a streamed body."""
SLOWEST: Final = 4096
"""Bytes a second that a streamed body must bring on average, after the first `GRACE_SECONDS`."""
GRACE_SECONDS: Final = 20.0
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})


class Direct:
    """Requests to peers by server name; `open` makes it and closes it."""

    def __init__(self, resolver: Resolver, session: aiohttp.ClientSession) -> None:
        self._resolver = resolver
        self._session = session

    @classmethod
    @asynccontextmanager
    async def open(
        cls, dns: Dns, policy: AddressPolicy, tls: ssl.SSLContext, clock: Clock, chance: Callable[[], float],
        *, https_port: int = HTTPS_PORT,
    ) -> AsyncIterator[Direct]:
        """Open a transport. `chance` gives numbers in [0, 1); `https_port` is where `.well-known` is asked for."""
        async with AsyncExitStack() as stack:
            names = Remembered(dns, clock, chance)
            stack.push_async_callback(names.close)
            session = await stack.enter_async_context(dial.session(names, policy, tls))
            resolver = Resolver(names, WellKnownPages(session, https_port), clock, chance)
            stack.push_async_callback(resolver.close)
            yield cls(resolver, session)

    async def request(self, ask: Ask) -> Answer:
        """Send the request and return the whole answer, whatever its status; `Unreachable` when there is none."""
        try:
            async with asyncio.timeout(ask.seconds):
                response = await self._send(ask)
                try:
                    body = await _whole(ask, response)
                finally:
                    _let_go(response)
        except TimeoutError as error:
            raise Unreachable(ask.server, "did not answer in time") from error
        return Answer(response.status, response.headers, body)

    @asynccontextmanager
    async def stream(self, ask: Ask) -> AsyncIterator[Streamed]:
        """Send the request and give the answer as it arrives; `Unreachable` here or from its chunks."""
        try:
            async with asyncio.timeout(ask.seconds):
                response = await self._send(ask)
        except TimeoutError as error:
            raise Unreachable(ask.server, "did not answer in time") from error
        try:
            yield Streamed(response.status, response.headers, _chunks(ask, response))
        finally:
            _let_go(response)

    async def _send(self, ask: Ask) -> aiohttp.ClientResponse:
        """Try the endpoints in order until one can be connected to; what was sent once is not sent elsewhere."""
        destination = await self._resolver.find(ask.server)
        problem: Exception | None = None
        for endpoint in destination.endpoints:
            try:
                response = await self._session.request(
                    ask.method, _url(ask, endpoint), data=ask.body, headers=_headers(ask, destination),
                    server_hostname=destination.certificate_name, allow_redirects=False,
                )
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                problem = error
            except (aiohttp.ClientError, OSError, ValueError) as error:
                raise Unreachable(ask.server, _reason(error)) from error
            else:
                return response
        raise Unreachable(ask.server, _reason(problem)) from problem


class WellKnownPages:
    """Fetches `.well-known` pages with the same sockets, certificates and address policy as everything else."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._port = port

    async def fetch(self, host: str, path: str) -> Page:
        """Return the page after at most 5 redirects, all over HTTPS; raises `PageUnavailable`."""
        try:
            async with asyncio.timeout(SECONDS):
                url = URL.build(scheme="https", host=host, port=self._port, path=path)
                for _ in range(MOST_REDIRECTS + 1):
                    async with self._session.get(url, allow_redirects=False) as response:
                        if response.status not in _REDIRECTS:
                            return await _page(response)
                        url = _next(url, response.headers.get("Location"))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise PageUnavailable(_reason(error)) from error
        raise PageUnavailable("too many redirects")


def _next(url: URL, location: str | None) -> URL:
    if location is None:
        raise PageUnavailable("a redirect to nowhere")
    target = url.join(URL(location))
    if target.scheme != "https" or target.user is not None:
        raise PageUnavailable("a redirect away from HTTPS")
    return target


async def _page(response: aiohttp.ClientResponse) -> Page:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MOST_BYTES:
            raise PageUnavailable("too large")
    return Page(response.status, response.headers, bytes(body))


def _let_go(response: aiohttp.ClientResponse) -> None:
    """Give the connection back to the pool if the answer was read to its end; close it otherwise."""
    if response.content.is_eof():
        response.release()
    else:
        response.close()


def _url(ask: Ask, endpoint: Endpoint) -> URL:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return URL(f"https://{host}:{endpoint.port}{ask.target}", encoded=True)


def _headers(ask: Ask, destination: Destination) -> dict[str, str]:
    headers = {**ask.headers, "Host": destination.host_header}
    if ask.body is not None:
        headers.setdefault("Content-Type", "application/json")
    return headers


async def _whole(ask: Ask, response: aiohttp.ClientResponse) -> bytes:
    _check_head(ask, response)
    body = bytearray()
    try:
        async for chunk in response.content.iter_any():
            body += chunk
            if len(body) > ask.most_bytes:
                raise BadAnswer(ask.server, f"answered with more than {ask.most_bytes} bytes")
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        raise Unreachable(ask.server, _reason(error)) from error
    return bytes(body)


async def _chunks(ask: Ask, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Give the body piece by piece, as long as it comes and comes fast enough.

    Only time spent waiting for the peer counts: a slow reader on our side is not the peer's fault.
    """
    _check_head(ask, response)
    loop = asyncio.get_running_loop()
    received, waited = 0, 0.0
    while True:
        before = loop.time()
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await response.content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(ask.server, _reason(error)) from error
        if not chunk:
            return
        received += len(chunk)
        waited += loop.time() - before
        if received > ask.most_bytes:
            raise BadAnswer(ask.server, f"answered with more than {ask.most_bytes} bytes")
        if waited > GRACE_SECONDS and received < waited * SLOWEST:
            raise Unreachable(ask.server, "sent its answer too slowly")
        yield chunk


def _check_head(ask: Ask, response: aiohttp.ClientResponse) -> None:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise BadAnswer(ask.server, "compressed its answer without being asked to")
    if (response.content_length or 0) > ask.most_bytes:
        raise BadAnswer(ask.server, f"announced more than {ask.most_bytes} bytes")


def _reason(error: Exception | None) -> str:
    """Say in our own words what happened, for logs and conditions."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "shows a certificate that is not good for its name"
    if isinstance(error, aiohttp.ClientSSLError):
        return "could not agree on an encrypted connection"
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, dial.ForbiddenAddress):
            return "has an address that must not be connected to"
        return "could not be connected to"
    if isinstance(error, TimeoutError):
        return "did not answer in time"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return "hung up"
    return "did not speak proper HTTP"

"""The socket on the hospital's network: accepts, bounds what a connection may take, speaks JSON even when it hangs up.

aiohttp answers what is not HTTP with a plain text or, after an internal error, an HTML page; Matrix clients expect the
error object. A connection that does not bring a whole request head in time is closed.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from appliance.doors.web import error_response
from appliance.matrix.errors import MatrixError, TooLarge, Unknown

log = logging.getLogger(__name__)

HEAD_SECONDS = 30.0
HEAD_BYTES = 16 * 1024
HEADERS = 64
KEEPALIVE_SECONDS = 75.0
GOODBYE_SECONDS = 2.0
BACKLOG = 1024


class _Connection(web.RequestHandler):
    """One client's connection."""

    __slots__ = ("_deadline", "patient")

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            manager, loop=loop, keepalive_timeout=KEEPALIVE_SECONDS, access_log=None,  # type: ignore[arg-type]
            max_line_size=HEAD_BYTES, max_field_size=HEAD_BYTES, max_headers=HEADERS, lingering_time=5.0,
        )
        self._deadline: asyncio.TimerHandle | None = None
        self.patient: asyncio.Task[Any] | None = None
        """The request under way, while it only waits for news (`Call.patient`)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._check_head)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        if self.patient is not None:
            self.patient.cancel()
        super().connection_lost(exc)

    def _check_head(self) -> None:
        if self._request_count == 0:
            self.force_close()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Answer what never reached a route (not HTTP, too long a head) in the field's own form."""
        error: MatrixError
        if status >= 500:
            log.error("internal error before routing", exc_info=exc)
            error = Unknown("Internal server error", status=status)
        elif type(exc).__name__ == "LineTooLong":
            error = TooLarge(f"A line of the request head is longer than {HEAD_BYTES} bytes", status=431)
        else:
            error = Unknown("The request could not be understood", status=400)
        answer = error_response(error)
        answer.force_close()
        return answer


class Listener:
    """The client port. `async with Listener(app)`, then `start`."""

    def __init__(self, app: web.Application, closing: Callable[[], Awaitable[None]]) -> None:
        """`closing` is called before open requests are waited for, and lets the patient ones go."""
        app.on_shutdown.append(lambda _: closing())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=GOODBYE_SECONDS)
        self._sockets: asyncio.Server | None = None

    async def __aenter__(self) -> Listener:
        await self._runner.setup()
        return self

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None) -> tuple[str, int]:
        """Listen on `host` (a name or an address); return the address it got, port 0 resolved."""
        manager = self._runner.server
        if manager is None:
            raise RuntimeError("the listener was not set up")
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"ssl": tls, "backlog": BACKLOG, "reuse_address": True}
        if tls is not None:
            options["ssl_handshake_timeout"] = HEAD_SECONDS
        self._sockets = await loop.create_server(lambda: _Connection(manager, loop), host, port, **options)
        address = self._sockets.sockets[0].getsockname()
        return address[0], address[1]

    async def __aexit__(self, *_: object) -> None:
        if self._sockets is not None:
            self._sockets.close()
        await self._runner.cleanup()

"""One signed request to a peer over whatever transport the house has, and one of two errors when it fails.

Peers are reached through a `Transport`: directly (`link.direct`), later through the hospital's link. Here a request
gets its signature, an answer its status check and its first parsing. What a peer says in an error is not handed on; a
caller learns whether to wait (`Unreachable`), to ask somebody else (`BadAnswer`) or to stop (`RefusedByPeer`).

Source: server-server API, "API standards", "Request Authentication".
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import quote, urlencode

from appliance.federation.requests import authorization
from appliance.link.errors import BadAnswer, RefusedByPeer, Unreachable
from appliance.link.exchange import JSON_BYTES, Answer, Ask, Streamed
from appliance.matrix import canonical
from appliance.matrix.canonical import Json
from appliance.matrix.errors import MatrixError
from appliance.matrix.ids import ServerName
from appliance.matrix.signing import SigningKey

Query = Iterable[tuple[str, str | int]]

LONGEST_PAUSE_MS: Final = 24 * 3600 * 1000
"""Longest pause that a peer can impose on us."""
ERROR_BYTES: Final = 64 * 1024
_ERRCODE: Final = re.compile(r"[A-Z][A-Z0-9_.]{0,63}")
_VERSION: Final = re.compile(r"[A-Za-z0-9._-]{1,32}")


class Transport(Protocol):
    """The way to other homeservers. Both raise `Unreachable` and give every answer otherwise, whatever its status."""

    async def request(self, ask: Ask) -> Answer:
        """Send a request and return its whole answer, within the limits of the request."""
        ...

    def stream(self, ask: Ask) -> AbstractAsyncContextManager[Streamed]:
        """Send a request and give its answer as it arrives."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How long an answer may take (seconds, all of it) and how large it may be (bytes)."""

    seconds: float = 30.0
    most_bytes: int = JSON_BYTES


ORDINARY: Final = Limits()
LARGE: Final = Limits(120.0, 64 * 1024 * 1024)
"""For whole rooms: their state and its authorisation."""


def path(*segments: str) -> str:
    """Join segments to a path below `/_matrix`, each percent-encoded as a whole."""
    return "/_matrix/" + "/".join(quote(segment, safe="") for segment in segments)


class Wire:
    """Speaks for one server with its key."""

    def __init__(self, name: ServerName, key: SigningKey, transport: Transport) -> None:
        self.name = name
        self._key = key
        self._transport = transport

    async def get(
        self, peer: ServerName, where: str, query: Query = (), limits: Limits = ORDINARY, *, signed: bool = True
    ) -> dict[str, Json]:
        """Ask for a JSON object."""
        ask = self._ask(peer, "GET", where, query, None, limits, signed)
        return _object(peer, await self._transport.request(ask))

    async def give(
        self, method: str, peer: ServerName, where: str, content: Mapping[str, Json], query: Query = (),
        limits: Limits = ORDINARY, *, signed: bool = True,
    ) -> dict[str, Json]:
        """Send a JSON object (`PUT` or `POST`) and return the one that comes back."""
        ask = self._ask(peer, method, where, query, canonical.encode(content), limits, signed)
        return _object(peer, await self._transport.request(ask))

    @asynccontextmanager
    async def stream(self, peer: ServerName, where: str, query: Query, limits: Limits) -> AsyncIterator[Streamed]:
        """Ask for something large; the status is checked before anything is given out."""
        async with self._transport.stream(self._ask(peer, "GET", where, query, None, limits, True)) as answer:
            if answer.status != 200:
                body = bytearray()
                async for chunk in answer.chunks:
                    body += chunk
                    if len(body) > ERROR_BYTES:
                        break
                _check(peer, Answer(answer.status, answer.headers, bytes(body[:ERROR_BYTES])))
            yield answer

    def _ask(
        self, peer: ServerName, method: str, where: str, query: Query, content: bytes | None, limits: Limits,
        signed: bool,
    ) -> Ask:
        if peer == self.name:
            raise Unreachable(peer, "is this server itself")
        pairs = urlencode(list(query), quote_via=quote)
        target = f"{where}?{pairs}" if pairs else where
        headers = (
            {"Authorization": authorization(self._key, self.name, peer, method, target, content)} if signed else {}
        )
        return Ask(peer, method, target, content, headers, limits.seconds, limits.most_bytes)


def _object(peer: ServerName, answer: Answer) -> dict[str, Json]:
    _check(peer, answer)
    try:
        return canonical.decode_object(answer.body)
    except MatrixError as error:
        raise BadAnswer(peer, "answered with something that is not a JSON object") from error


def _check(peer: ServerName, answer: Answer) -> None:
    """Raise what the status means, unless it is 200."""
    if answer.status == 200:
        return
    try:
        body = canonical.decode_object(answer.body[:ERROR_BYTES])
    except MatrixError:
        body = {}
    if answer.status == 429:
        raise Unreachable(peer, "has had enough of us for now", retry_after_ms=_pause(answer, body))
    if not 400 <= answer.status < 500:
        raise Unreachable(peer, f"answered with status {answer.status}")
    errcode, version = body.get("errcode"), body.get("room_version")
    raise RefusedByPeer(
        peer, answer.status,
        errcode if isinstance(errcode, str) and _ERRCODE.fullmatch(errcode) else "M_UNKNOWN",
        room_version=version if isinstance(version, str) and _VERSION.fullmatch(version) else None,
    )


def _pause(answer: Answer, body: Mapping[str, Json]) -> int | None:
    """Return how long the peer wants to be left alone (milliseconds): `Retry-After`, or the older field."""
    text = answer.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(int(text) * 1000, LONGEST_PAUSE_MS)
    older = body.get("retry_after_ms")
    return min(older, LONGEST_PAUSE_MS) if isinstance(older, int) and older >= 0 else None

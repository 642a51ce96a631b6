"""`https://<host>/.well-known/matrix/server`: whether a host delegates its name to another one, and for how long.

The answer is remembered as the peer's cache headers say, within bounds of our own; a failure is remembered too, twice
as long each time it repeats, up to an hour. While a host that once delegated fails to answer, its last delegation stays
in force until it is 48 hours old: a web server in maintenance does not cut a hospital off.

Source: server-server API, "Resolving server names", step 3; RFC 9111 (Cache-Control).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

from appliance.link.expiring import Clock, Expiring
from appliance.link.flights import Flights
from appliance.matrix import canonical
from appliance.matrix.errors import MatrixError
from appliance.matrix.ids import ServerName, server_name

MOST_BYTES: Final = 50 * 1024
MOST_REDIRECTS: Final = 5
SECONDS: Final = 10.0
"""For the whole question, redirects included."""

MINUTE: Final = 60_000
DEFAULT_MS: Final = 24 * 60 * MINUTE
SHORTEST_MS: Final = 5 * MINUTE
LONGEST_MS: Final = 48 * 60 * MINUTE
FAILURE_MS: Final = 2 * MINUTE
LONGEST_FAILURE_MS: Final = 60 * MINUTE
MOST_HOSTS: Final = 10_000
MOST_AT_ONCE: Final = 32

_MAX_AGE: Final = re.compile(r'(?:^|[,\s])max-age\s*=\s*"?(\d{1,9})"?', re.IGNORECASE)
_NOT_KEPT: Final = re.compile(r"(?:^|[,\s])no-(?:store|cache)(?:$|[,=\s])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """What lay behind the address after all redirects. Header names are compared without regard to case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class PageUnavailable(Exception):
    """The page could not be fetched: network, TLS, time, size, too many redirects, or a redirect to nowhere good."""


class Web(Protocol):
    """Fetches one page over HTTPS with a good certificate, following redirects."""

    async def fetch(self, host: str, path: str) -> Page:
        """Return the page; raises `PageUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class _Known:
    delegate: ServerName | None
    failures: int
    until_ms: int
    """The end of the delegation's life when it cannot be renewed."""


class Delegations:
    """Remembers who delegates to whom."""

    def __init__(self, web: Web, clock: Clock, chance: Callable[[], float]) -> None:
        self._web = web
        self._clock = clock
        self._chance = chance
        self._known: Expiring[str, _Known] = Expiring(MOST_HOSTS, clock)
        self._flights: Flights[str, _Known] = Flights(MOST_AT_ONCE)

    async def of(self, host: str) -> ServerName | None:
        """Return the server name that the host delegates to, or None where it does not, or does not answer."""
        known = self._known.fresh(host)
        if known is None:
            known = await self._flights.join(host, lambda: self._ask(host))
        return known.delegate

    async def close(self) -> None:
        """Stop what is being asked."""
        await self._flights.close()

    async def _ask(self, host: str) -> _Known:
        now = self._clock()
        try:
            page = await self._web.fetch(host, "/.well-known/matrix/server")
            delegate = _delegate(page)
        except (PageUnavailable, MatrixError):
            return self._failed(host, now)
        lifetime = _lifetime(page.headers, now)
        known = _Known(delegate, 0, now + LONGEST_MS)
        self._known.put(host, known, self._blurred(lifetime))
        return known

    def _failed(self, host: str, now: int) -> _Known:
        before = self._known.last(host)
        failures = before.failures + 1 if before else 1
        held = before is not None and before.until_ms > now
        known = _Known(before.delegate if before and held else None, failures, before.until_ms if before else 0)
        pause = min(FAILURE_MS * 2 ** min(failures - 1, 10), LONGEST_FAILURE_MS)
        self._known.put(host, known, self._blurred(pause))
        return known

    def _blurred(self, milliseconds: int) -> float:
        """Shorten by up to a tenth, so that what was learned together is not forgotten together."""
        return milliseconds * (1 - self._chance() / 10)


def _delegate(page: Page) -> ServerName:
    """Read the answer; any `MatrixError` means that it is none."""
    if page.status != 200:
        raise PageUnavailable(f"status {page.status}")
    return server_name(canonical.decode_object(page.body).get("m.server"))


def _lifetime(headers: Mapping[str, str], now_ms: int) -> int:
    """Return for how many milliseconds the answer may be kept."""
    control = headers.get("Cache-Control", "")
    found = _MAX_AGE.search(control)
    if _NOT_KEPT.search(control):
        wanted = 0
    elif found is not None:
        wanted = int(found[1]) * 1000
    else:
        wanted = _until(headers.get("Expires"), now_ms)
    return max(SHORTEST_MS, min(wanted, LONGEST_MS))


def _until(expires: str | None, now_ms: int) -> int:
    if expires is None:
        return DEFAULT_MS
    try:
        return int(parsedate_to_datetime(expires).timestamp() * 1000) - now_ms
    except (ValueError, OverflowError):
        return 0  # RFC 9111: an invalid date, especially "0", lies in the past

"""Logging in through the browser: the way to a provider (card, directory) and back to the client.

The house remembers where a browser wanted to go. The provider gets an opaque `state` instead of the client's address,
and the browser keeps a second secret in a cookie; only both together, once and within ten minutes, lead back. So
nobody can put another address in the way, and nobody can make another person's browser end a log-in that they began.

Source: client-server API, "SSO client login", security considerations.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

from appliance.matrix.errors import Forbidden, InvalidParam, NotFound
from appliance.matrix.ids import UserId

LIFE_MS: Final = 600_000
JOURNEYS: Final = 5_000
UNSAFE_SCHEMES: Final = frozenset({"javascript", "data", "vbscript", "file", "blob", "about", "view-source"})


class SsoProvider(Protocol):
    """A way to prove in the browser who one is; it ends with `Sso.returning`."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def brand(self) -> str | None: ...
    async def begin(self, state: str) -> str:
        """Return the address where the browser goes first; `state` must come back with it."""
        ...


@dataclass(frozen=True, slots=True)
class Departure:
    """Where to send the browser, and the secret that it must bring back in its cookie."""

    location: str
    browser: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Journey:
    redirect_url: str
    browser: str = field(repr=False)
    expires: int


class Sso:
    """The browsers on their way. `token_for(user_id)` makes the log-in token that the client gets in the end."""

    def __init__(
        self, clock: Callable[[], int], token_for: Callable[[UserId], Awaitable[str]], providers: Sequence[SsoProvider]
    ) -> None:
        self._clock = clock
        self._token_for = token_for
        self._providers = {provider.id: provider for provider in providers}
        self._journeys: dict[str, _Journey] = {}

    def providers(self) -> list[dict[str, str]]:
        """Return what clients are told about the providers; empty where there is none."""
        return [
            {"id": provider.id, "name": provider.name} | ({"brand": provider.brand} if provider.brand else {})
            for provider in self._providers.values()
        ]

    async def redirect(self, provider_id: str | None, redirect_url: str) -> Departure:
        """Send a browser on its way (None: to the first provider); raises `InvalidParam` and `NotFound`."""
        checked_redirect(redirect_url)
        known = provider_id if provider_id is not None else next(iter(self._providers), "")
        provider = self._providers.get(known)
        if provider is None:
            raise NotFound("There is no such log-in provider")
        state, browser = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        self._remember(state, _Journey(redirect_url, browser, self._clock() + LIFE_MS))
        return Departure(await provider.begin(state), browser)

    def _remember(self, state: str, journey: _Journey) -> None:
        now = self._clock()
        while self._journeys:
            oldest = next(iter(self._journeys))
            if self._journeys[oldest].expires > now and len(self._journeys) < JOURNEYS:
                break
            del self._journeys[oldest]
        self._journeys[state] = journey

    async def returning(self, state: str, browser: str | None, user_id: UserId) -> str:
        """Return the client's address with a log-in token, for a provider that has recognised the user.

        Raises `Forbidden` for a state that is unknown, used, too old, or from another browser.
        """
        journey = self._journeys.pop(state, None)
        if journey is None or journey.expires <= self._clock():
            raise Forbidden("This log-in was not begun here, or too long ago")
        if not hmac.compare_digest(journey.browser.encode(), (browser or "").encode()):
            raise Forbidden("This log-in was begun in another browser")
        parts = checked_redirect(journey.redirect_url)
        query = [pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "loginToken"]
        query.append(("loginToken", await self._token_for(user_id)))
        return parts._replace(query=urlencode(query)).geturl()


def checked_redirect(url: str) -> SplitResult:
    """Return the parts of a client's address; `InvalidParam` for one that a browser would run or not find."""
    if any(ord(letter) <= 0x20 or ord(letter) == 0x7F for letter in url):
        raise InvalidParam("redirectUrl must not contain spaces or control characters")
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidParam("redirectUrl is not an address") from error
    if not parts.scheme or parts.scheme.lower() in UNSAFE_SCHEMES:
        raise InvalidParam("redirectUrl must be an absolute address")
    if parts.scheme.lower() in ("http", "https") and not parts.hostname:
        raise InvalidParam("redirectUrl names no host")
    return parts

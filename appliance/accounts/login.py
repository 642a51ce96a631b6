"""Logging in: with a password, with a log-in token, and through a provider in the browser.

A wrong password and an unknown user cost the same time and give the same answer; failures are counted per account.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from appliance.accounts.limits import Limits
from appliance.accounts.passwords import MAX_LENGTH, Passwords
from appliance.accounts.tokens import LoggedIn, Tokens, digest, user_locked
from appliance.accounts.uia import PASSWORD, Uia
from appliance.matrix.errors import Forbidden, InvalidParam, MatrixError, NotFound, UserDeactivated
from appliance.matrix.ids import ServerName, UserId
from appliance.matrix.requester import Requester
from appliance.store import accounts, tokens
from appliance.store.accounts import Account
from appliance.store.database import Store

LOGIN_TOKEN_MS: Final = 120_000


class SsoProvider(Protocol):
    """A way to prove in the browser who one is (card, directory); it ends with `LogIns.returning`."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def brand(self) -> str | None: ...
    async def begin(self, redirect_url: str) -> str:
        """Return the address where the browser goes first; `redirect_url` is where the client waits in the end."""
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """The device that logs in, as its client describes it."""

    device_id: str | None = None
    device_name: str | None = None
    refreshable: bool = False
    ip: str | None = None


@dataclass(frozen=True, slots=True)
class Secret:
    """A password on its way; it cannot be printed."""

    text: str = field(repr=False)


class LogIns:
    """All the ways in."""

    def __init__(
        self, store: Store, clock: Callable[[], int], server: ServerName, passwords: Passwords, tokens: Tokens,
        uia: Uia, limits: Limits, providers: Sequence[SsoProvider] = (), *, token_by_request: bool = True,
    ) -> None:
        self._store = store
        self._clock = clock
        self._server = server
        self._passwords = passwords
        self._tokens = tokens
        self._uia = uia
        self._limits = limits
        self._providers = {provider.id: provider for provider in providers}
        self.token_by_request = token_by_request

    def flows(self) -> list[dict[str, object]]:
        """Return the log-in types on offer; SSO only when there is a provider."""
        flows: list[dict[str, object]] = [{"type": "m.login.password"}]
        if self._providers:
            flows.append({"type": "m.login.sso", "identity_providers": [
                {"id": provider.id, "name": provider.name} | ({"brand": provider.brand} if provider.brand else {})
                for provider in self._providers.values()
            ]})
        if self._providers or self.token_by_request:
            flows.append({"type": "m.login.token", "get_login_token": self.token_by_request})
        return flows

    async def with_password(self, user: str, secret: Secret, visit: Visit) -> LoggedIn:
        """Log in by user name (or full id) and password; raises `Forbidden` for any mismatch."""
        user_id = self._local(user)
        self._limits.check("login_failed", user_id)
        account = await self._store.read(accounts.find, user_id)
        stored = account.password if account is not None else None
        right = len(secret.text) <= MAX_LENGTH and await self._passwords.verify(stored, secret.text)
        if account is not None and account.deactivated:
            raise UserDeactivated("The account has been deactivated")
        if account is None or not right:
            self._limits("login_failed", user_id)
            raise Forbidden("Invalid user name or password")
        return await self._enter(account, visit)

    def _local(self, user: str) -> UserId:
        """Return the id that a name means here; somebody else's id stays as it is and matches no account."""
        return UserId(user if user.startswith("@") else f"@{user}:{self._server}")

    async def with_token(self, token: str, visit: Visit) -> LoggedIn:
        """Log in with a log-in token, which is spent by that."""
        user_id = await self._store.write(tokens.take_login_token, digest(token), self._clock())
        account = await self._store.read(accounts.find, user_id) if user_id is not None else None
        if account is None:
            raise Forbidden("Invalid log-in token")
        if account.deactivated:
            raise UserDeactivated("The account has been deactivated")
        return await self._enter(account, visit)

    async def _enter(self, account: Account, visit: Visit) -> LoggedIn:
        if account.locked:
            raise user_locked()
        plan = self._tokens.plan(
            UserId(account.user_id), visit.device_id, visit.device_name, visit.ip, visit.refreshable
        )
        return await self._tokens.log_in(plan)

    # -- log-in tokens -------------------------------------------------------------------------------------------------

    async def token_for(self, user_id: UserId) -> str:
        """Return a fresh log-in token of a user who has proved who they are; good once, for two minutes."""
        token = f"sll_{secrets.token_urlsafe(24)}"
        await self._store.write(tokens.put_login_token, digest(token), user_id, self._clock() + LOGIN_TOKEN_MS)
        return token

    async def request_token(self, requester: Requester, auth: Mapping[str, Any] | None) -> str:
        """Return a log-in token for another device of the requester, after their password."""
        if not self.token_by_request:
            raise NotFound("Log-in tokens are not given out here", errcode="M_UNRECOGNIZED")
        await self._uia.confirm(auth, [[PASSWORD]], "login/get_token", requester.user_id)
        return await self.token_for(requester.user_id)

    # -- in the browser ------------------------------------------------------------------------------------------------

    async def redirect(self, provider_id: str | None, redirect_url: str) -> str:
        """Return where to send a browser that wants to log in; `NotFound` without such a provider."""
        checked_redirect(redirect_url)
        provider = next(iter(self._providers.values()), None) if provider_id is None else (
            self._providers.get(provider_id)
        )
        if provider is None:
            raise NotFound("There is no such log-in provider")
        return await provider.begin(redirect_url)

    async def returning(self, user_id: UserId, redirect_url: str) -> str:
        """Return the client's address with a log-in token, for a provider that has recognised the user."""
        parts = checked_redirect(redirect_url)
        query = [*parse_qsl(parts[3], keep_blank_values=True), ("loginToken", await self.token_for(user_id))]
        return urlunsplit((parts[0], parts[1], parts[2], urlencode(query), parts[4]))


def checked_redirect(url: str) -> tuple[str, str, str, str, str]:
    """Return the parts of a client's redirect address; `InvalidParam` for one that a browser would run or not find."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidParam("redirectUrl is not an address") from error
    if not parts.scheme or parts.scheme.lower() in ("javascript", "data", "vbscript", "file", "blob"):
        raise InvalidParam("redirectUrl must be an absolute address")
    return (parts.scheme, parts.netloc, parts.path, parts.query, parts.fragment)


def unknown_type() -> MatrixError:
    """Return the refusal for a log-in type that is not on offer."""
    return MatrixError("Unknown log-in type", errcode="M_UNKNOWN")

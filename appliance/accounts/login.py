"""Logging in: with a password, with a log-in token, and through a provider in the browser.

A wrong password and an unknown user cost the same time and give the same answer; failures are counted per account.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from appliance.accounts.limits import Limits
from appliance.accounts.passwords import MAX_LENGTH, Passwords
from appliance.accounts.sso import Sso, SsoProvider
from appliance.accounts.tokens import LoggedIn, LogInPlan, Tokens, digest, user_locked
from appliance.accounts.uia import PASSWORD, Uia, local_user
from appliance.matrix.errors import Forbidden, MatrixError, NotFound, UserDeactivated
from appliance.matrix.ids import ServerName, UserId
from appliance.matrix.requester import Requester
from appliance.store import accounts, tokens
from appliance.store.accounts import Account
from appliance.store.database import Store
from appliance.store.writer import Tx

LOGIN_TOKEN_MS: Final = 120_000


class Visit(msgspec.Struct, frozen=True):
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
        self.sso = Sso(clock, self.token_for, providers)
        self.token_by_request = token_by_request

    def flows(self) -> list[dict[str, object]]:
        """Return the log-in types on offer; SSO only when there is a provider."""
        flows: list[dict[str, object]] = [{"type": "m.login.password"}]
        providers = self.sso.providers()
        if providers:
            flows.append({"type": "m.login.sso", "identity_providers": providers})
        if providers or self.token_by_request:
            flows.append({"type": "m.login.token", "get_login_token": self.token_by_request})
        return flows

    async def with_password(self, user: str, secret: Secret, visit: Visit) -> LoggedIn:
        """Log in by user name (or full id) and password; raises `Forbidden` for any mismatch."""
        user_id = local_user(user, self._server)
        self._limits.check("login_failed", user_id)
        account = await self._store.read(accounts.find, user_id)
        stored = account.password if account is not None else None
        right = len(secret.text) <= MAX_LENGTH and await self._passwords.verify(stored, secret.text)
        if account is not None and account.deactivated:
            raise deactivated()
        if account is None or not right:
            self._limits("login_failed", user_id)
            raise wrong_password()
        return await self._enter(account, visit)

    async def with_token(self, token: str, visit: Visit) -> LoggedIn:
        """Log in with a log-in token, which is spent by that."""
        user_id = await self._store.write(tokens.take_login_token, digest(token), self._clock())
        account = await self._store.read(accounts.find, user_id) if user_id is not None else None
        if account is None:
            raise Forbidden("Invalid log-in token")
        return await self._enter(account, visit)

    async def _enter(self, account: Account, visit: Visit) -> LoggedIn:
        plan = self._tokens.plan(
            UserId(account.user_id), visit.device_id, visit.device_name, visit.ip, visit.refreshable
        )
        return await self._store.write(self._begin, plan, account.password)

    def _begin(self, tx: Tx, plan: LogInPlan, proved: str | None) -> LoggedIn:
        """Begin the log-in unless the account was closed, locked or given another password in the meantime."""
        account = accounts.find(tx, plan.user_id)
        if account is None or account.deactivated:
            raise deactivated()
        if account.locked:
            raise user_locked()
        if account.password != proved:
            raise wrong_password()
        return self._tokens.begin(tx, plan)

    # -- log-in tokens -------------------------------------------------------------------------------------------------

    async def token_for(self, user_id: UserId) -> str:
        """Return a fresh log-in token of a user who has proved who they are; good once, for two minutes."""
        token = f"sll_{secrets.token_urlsafe(24)}"
        now = self._clock()
        await self._store.write(tokens.put_login_token, digest(token), user_id, now + LOGIN_TOKEN_MS, now)
        return token

    async def request_token(self, requester: Requester, auth: Mapping[str, Any] | None) -> str:
        """Return a log-in token for another device of the requester, after their password."""
        if not self.token_by_request:
            raise NotFound("Log-in tokens are not given out here", errcode="M_UNRECOGNIZED")
        await self._uia.confirm(auth, [[PASSWORD]], "login/get_token", requester.user_id)
        return await self.token_for(requester.user_id)


def wrong_password() -> MatrixError:
    """Return the one refusal for whoever cannot show the right password."""
    return Forbidden("Invalid user name or password")


def deactivated() -> MatrixError:
    """Return the refusal for a closed account."""
    return UserDeactivated("The account has been deactivated")


def unknown_type() -> MatrixError:
    """Return the refusal for a log-in type that is not on offer."""
    return MatrixError("Unknown log-in type", errcode="M_UNKNOWN")

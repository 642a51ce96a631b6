"""New accounts: by the person (where the house allows it), or by a tool that knows the shared secret."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.accounts.passwords import MAX_LENGTH, Passwords
from appliance.accounts.tokens import LoggedIn, LogInPlan, Tokens, digest
from appliance.accounts.uia import DUMMY, REGISTRATION_TOKEN, Uia
from appliance.matrix import ids
from appliance.matrix.errors import Forbidden, InvalidParam, MatrixError, MissingParam
from appliance.matrix.ids import ServerName, UserId
from appliance.store import accounts, profiles
from appliance.store.database import Store
from appliance.store.profiles import Profile
from appliance.store.writer import Tx

NONCE_MS: Final = 60_000
NONCES: Final = 1_000


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may make an account. `secret` is the shared registration secret, None where there is no such door."""

    open: bool = False
    by_token: bool = True
    secret: str | None = field(default=None, repr=False)
    minimum_password: int = 1


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for; None where it leaves the choice to us."""

    username: str | None
    password: str | None = field(repr=False)
    device_id: str | None = None
    device_name: str | None = None
    inhibit_login: bool = False
    refreshable: bool = False
    ip: str | None = None


@dataclass(frozen=True, slots=True)
class _Plan:
    user_id: UserId
    hash: str | None = field(repr=False)
    admin: bool
    now: int
    display_name: str | None
    log_in: LogInPlan | None
    token: str | None = field(repr=False)


def user_in_use() -> MatrixError:
    """Return the refusal for a name that is taken."""
    return MatrixError("The user name is already taken", errcode="M_USER_IN_USE")


class Registration:
    """The one way an account comes into being."""

    def __init__(
        self, store: Store, clock: Callable[[], int], server: ServerName, rules: Rules,
        passwords: Passwords, tokens: Tokens, uia: Uia,
    ) -> None:
        self._store = store
        self._clock = clock
        self._server = server
        self._rules = rules
        self._passwords = passwords
        self._tokens = tokens
        self._uia = uia
        self._nonces: dict[str, int] = {}

    async def available(self, username: str) -> UserId:
        """Return the user id that the name would get; raises `M_INVALID_USERNAME` or `M_USER_IN_USE`."""
        user_id = ids.new_user_id(username, self._server)
        if await self._store.read(accounts.exists, user_id):
            raise user_in_use()
        return user_id

    def check_password(self, password: str) -> None:
        """Raise `M_WEAK_PASSWORD` or `InvalidParam` for a password that the house does not take."""
        if len(password) > MAX_LENGTH:
            raise InvalidParam(f"A password must not be longer than {MAX_LENGTH} characters")
        if len(password) < self._rules.minimum_password:
            raise MatrixError(
                f"A password needs at least {self._rules.minimum_password} characters", errcode="M_WEAK_PASSWORD"
            )

    async def register(self, wish: Wish, auth: Mapping[str, Any] | None) -> LoggedIn | UserId:
        """Make an account for whoever asks, after the stages the house demands; the log-in unless it is inhibited."""
        flows = ([[DUMMY]] if self._rules.open else []) + ([[REGISTRATION_TOKEN]] if self._rules.by_token else [])
        if not flows:
            raise Forbidden("Registration is not open here")
        username = wish.username if wish.username is not None else secrets.token_hex(6)
        user_id = await self.available(username)
        if wish.password is not None:
            self.check_password(wish.password)
        confirmed = await self._uia.confirm(auth, flows, "register")
        return await self._make(user_id, wish, token=confirmed.registration_token)

    async def create(self, user_id: UserId, password: str | None, *, admin: bool = False,
                     display_name: str | None = None) -> None:
        """Make an account without a log-in (provisioning); raises `M_USER_IN_USE`."""
        if password is not None:
            self.check_password(password)
        wish = Wish(ids.localpart(user_id), password, inhibit_login=True)
        await self._make(user_id, wish, admin=admin, display_name=display_name)

    async def _make(
        self, user_id: UserId, wish: Wish, *, admin: bool = False, display_name: str | None = None,
        token: str | None = None,
    ) -> LoggedIn | UserId:
        hash = await self._passwords.hash(wish.password) if wish.password is not None else None
        log_in = None
        if not wish.inhibit_login:
            log_in = self._tokens.plan(user_id, wish.device_id, wish.device_name, wish.ip, wish.refreshable)
        plan = _Plan(user_id, hash, admin, self._clock(), display_name, log_in, token)
        return await self._store.write(self._write, plan)

    def _write(self, tx: Tx, plan: _Plan) -> LoggedIn | UserId:
        if plan.token is not None and not accounts.use_registration_token(tx, digest(plan.token), plan.now):
            raise Forbidden("The registration token is used up")
        if not accounts.insert(tx, plan.user_id, plan.hash, plan.admin, plan.now):
            raise user_in_use()
        name = plan.display_name if plan.display_name is not None else ids.localpart(plan.user_id)
        profiles.put(tx, Profile(plan.user_id, name, None))
        return plan.user_id if plan.log_in is None else self._tokens.begin(tx, plan.log_in)

    # -- registration tokens -------------------------------------------------------------------------------------------

    async def token_valid(self, token: str) -> bool:
        """Tell whether a registration token would be accepted."""
        if not self._rules.by_token:
            raise Forbidden("Registration tokens are not in use here")
        return await self._store.read(accounts.registration_token_valid, digest(token), self._clock())

    async def add_token(self, token: str, uses: int | None, expires: int | None) -> None:
        """Allow `uses` registrations with a token until `expires` (milliseconds since the epoch)."""
        await self._store.write(accounts.add_registration_token, digest(token), uses, expires)

    # -- the shared secret ---------------------------------------------------------------------------------------------

    def nonce(self) -> str:
        """Return a nonce for `register_with_secret`, good for one minute and one use."""
        now = self._clock()
        while self._nonces and (len(self._nonces) >= NONCES or next(iter(self._nonces.values())) <= now):
            del self._nonces[next(iter(self._nonces))]
        nonce = secrets.token_hex(32)
        self._nonces[nonce] = now + NONCE_MS
        return nonce

    async def register_with_secret(
        self, nonce: str, wish: Wish, *, admin: bool, user_type: str | None, display_name: str | None, mac: str
    ) -> LoggedIn | UserId:
        """Make an account for a tool that proves with an HMAC-SHA1 that it knows the shared secret.

        SHA-1 because the ecosystem's tools speak it; as an HMAC key derivation it is not known to be broken.
        """
        secret = self._rules.secret
        if secret is None:
            raise Forbidden("There is no shared secret here")
        if self._nonces.pop(nonce, 0) <= self._clock():
            raise InvalidParam("The nonce is unknown or too old", errcode="M_UNKNOWN")
        if not wish.username or not wish.password:
            raise MissingParam("The shared-secret registration needs a username and a password")
        parts = [nonce, wish.username, wish.password, "admin" if admin else "notadmin"]
        if user_type:
            parts.append(user_type)
        if any("\0" in part for part in parts):  # it separates the parts: two requests must not have one proof
            raise InvalidParam("No part of the request may contain a zero byte")
        message = "\0".join(parts)
        wanted = hmac.new(secret.encode(), message.encode(), hashlib.sha1).hexdigest()
        if not hmac.compare_digest(wanted.encode(), mac.lower().encode()):
            raise Forbidden("The HMAC is wrong")
        user_id = await self.available(wish.username.lower())
        self.check_password(wish.password)
        return await self._make(user_id, wish, admin=admin, display_name=display_name)

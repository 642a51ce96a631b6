"""User-interactive authentication: a dangerous request is repeated until its proofs are there.

The caller names the flows it would accept; `confirm` returns when one of them is complete and otherwise raises the
challenge that the client answers. A session belongs to one operation of one user, lives in memory, and is spent when
it is complete.

Source: client-server API, "User-Interactive Authentication API".
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.accounts.limits import Limits
from appliance.accounts.passwords import MAX_LENGTH, Passwords
from appliance.accounts.tokens import digest
from appliance.matrix.errors import BadJson, MatrixError, MissingParam
from appliance.matrix.ids import ServerName, UserId
from appliance.store import accounts
from appliance.store.database import Store

PASSWORD: Final = "m.login.password"  # noqa: S105  (the name of a stage)
DUMMY: Final = "m.login.dummy"
REGISTRATION_TOKEN: Final = "m.login.registration_token"  # noqa: S105  (the name of a stage)

SESSIONS: Final = 10_000
LIFE_MS: Final = 900_000

Flows = Sequence[Sequence[str]]


class Challenge(MatrixError):
    """401 with the flows to choose from; an error code only when a proof was tried and failed."""

    status = 401

    def __init__(self, body: Mapping[str, object], reason: MatrixError | None) -> None:
        super().__init__(reason.message if reason else "Further authentication is needed")
        self._body = body
        self._reason = reason

    def body(self) -> dict[str, object]:
        """Return the challenge as it goes over the wire."""
        failed = {"errcode": self._reason.errcode, "error": self._reason.message} if self._reason else {}
        return {**self._body, **failed}


@dataclass(slots=True)
class _Session:
    id: str
    operation: str
    user_id: UserId | None
    begun: int
    completed: list[str] = field(default_factory=list)
    registration_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A completed session: which registration token was shown, if any."""

    registration_token: str | None = field(default=None, repr=False)


class Uia:
    """The sessions under way and the checks of each stage."""

    def __init__(
        self, store: Store, clock: Callable[[], int], server: ServerName, passwords: Passwords, limits: Limits
    ) -> None:
        self._store = store
        self._clock = clock
        self._server = server
        self._passwords = passwords
        self._limits = limits
        self._sessions: dict[str, _Session] = {}

    async def confirm(
        self, auth: Mapping[str, Any] | None, flows: Flows, operation: str, user_id: UserId | None = None
    ) -> Confirmed:
        """Return when one of the flows is complete for this operation; raises `Challenge` until then.

        `auth` is the `auth` object of the request, None when it has none. `operation` tells requests apart that must
        not share a session (method, path and target).
        """
        session = self._find(auth, operation, user_id)
        if session is None:
            session = self._begin(operation, user_id)
            if auth is None or "session" in auth:
                raise self._challenge(session, flows, None)
        if auth is not None and auth.get("type") is not None:
            await self._try(session, auth, flows)
        if not any(list(flow) == session.completed for flow in flows):
            raise self._challenge(session, flows, None)
        self._sessions.pop(session.id, None)
        return Confirmed(session.registration_token)

    def _find(self, auth: Mapping[str, Any] | None, operation: str, user_id: UserId | None) -> _Session | None:
        id = auth.get("session") if auth is not None else None
        session = self._sessions.get(id) if isinstance(id, str) else None
        if session is None or session.operation != operation or session.user_id != user_id:
            return None
        return session if session.begun + LIFE_MS > self._clock() else None

    def _begin(self, operation: str, user_id: UserId | None) -> _Session:
        now = self._clock()
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if oldest.begun + LIFE_MS > now and len(self._sessions) < SESSIONS:
                break
            del self._sessions[oldest.id]
        session = _Session(secrets.token_urlsafe(18), operation, user_id, now)
        self._sessions[session.id] = session
        return session

    def _challenge(self, session: _Session, flows: Flows, reason: MatrixError | None) -> Challenge:
        body = {
            "session": session.id,
            "flows": [{"stages": list(flow)} for flow in flows],
            "params": {},
            "completed": list(session.completed),
        }
        return Challenge(body, reason)

    async def _try(self, session: _Session, auth: Mapping[str, Any], flows: Flows) -> None:
        stage = auth["type"]
        if stage in session.completed:
            return
        if not any([*session.completed, stage] == list(flow[: len(session.completed) + 1]) for flow in flows):
            raise self._challenge(session, flows, MatrixError("This kind of authentication is not offered here",
                                                              errcode="M_UNRECOGNIZED"))
        try:
            if stage == PASSWORD:
                await self._check_password(session, auth)
            elif stage == REGISTRATION_TOKEN:
                await self._check_registration_token(session, auth)
        except _Wrong as wrong:
            raise self._challenge(session, flows, wrong) from wrong
        if stage not in session.completed:  # a second request of the session may have come first
            session.completed.append(stage)

    async def _check_password(self, session: _Session, auth: Mapping[str, Any]) -> None:
        password = auth.get("password")
        if password is None:
            raise MissingParam("Missing field password")
        if not isinstance(password, str):
            raise BadJson("password must be a string")
        user_id = session.user_id
        if user_id is None or not self._is(user_id, auth):
            raise _Wrong("The identifier is not that of the logged-in user")
        self._limits.check("login_failed", user_id)
        account = await self._store.read(accounts.find, user_id)
        stored = account.password if account is not None else None
        if len(password) > MAX_LENGTH or not await self._passwords.verify(stored, password):
            self._limits("login_failed", user_id)
            raise _Wrong("Invalid password")

    def _is(self, user_id: UserId, auth: Mapping[str, Any]) -> bool:
        """Tell whether the stage's identifier is the user who asks (older clients name the user at the top)."""
        identifier = auth.get("identifier")
        named = identifier.get("user") if isinstance(identifier, dict) else auth.get("user")
        if named is None:
            return not isinstance(identifier, dict)
        return isinstance(named, str) and local_user(named, self._server) == user_id

    async def _check_registration_token(self, session: _Session, auth: Mapping[str, Any]) -> None:
        token = auth.get("token")
        if token is None:
            raise MissingParam("Missing field token")
        if not isinstance(token, str):
            raise BadJson("token must be a string")
        if not await self._store.read(accounts.registration_token_valid, digest(token), self._clock()):
            raise _Wrong("Invalid registration token")
        session.registration_token = token


def local_user(name: str, server: ServerName) -> UserId:
    """Return the id that a name means here; somebody else's id stays as it is and matches no account.

    Our names have no capitals (`ids.new_user_id`), but keyboards of telephones begin with one.
    """
    if not name.startswith("@"):
        return UserId(f"@{name.lower()}:{server}")
    local, colon, domain = name.partition(":")
    return UserId(f"{local.lower()}{colon}{domain}")


class _Wrong(MatrixError):
    """A proof was tried and is wrong; the client may try again within the session."""

    status, errcode = 401, "M_FORBIDDEN"

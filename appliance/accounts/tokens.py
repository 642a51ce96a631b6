"""Access and refresh tokens: who is behind a request, and how a log-in begins and ends.

A token is 256 random bits; the store knows only its SHA-256. `authenticate` answers from memory: the cache is filled
from the store and told of every change in the same commit (`Tx.on_commit`), so a logged-out token is dead when the
log-out is acknowledged. An entry that was read while something was revoked is used once but not kept.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol

import msgspec

from appliance.matrix.errors import MatrixError, UnknownToken
from appliance.matrix.ids import DeviceId, UserId
from appliance.matrix.requester import Requester
from appliance.store import devices, tokens
from appliance.store.database import Store
from appliance.store.tokens import TokenRow
from appliance.store.writer import Tx

Clock = Callable[[], int]

CACHE: Final = 50_000
SEEN_EVERY_MS: Final = 600_000
"""How exactly a device's last activity is kept; finer would cost a write per request."""
ACCESS_LIFETIME_MS: Final = 3_600_000
"""Life of an access token that can be refreshed. Others live until log-out."""


class Access(Protocol):
    """The part of the doors' access kinds that matters here: `ACCOUNT` is open to locked accounts too."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Pair:
    """Fresh tokens before anything is stored; `expires` in milliseconds since the epoch, None for never."""

    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    expires: int | None


class LogInPlan(msgspec.Struct, frozen=True):
    """Everything a log-in writes, decided beforehand so that the writing function is repeatable."""

    user_id: UserId
    device_id: DeviceId
    device_name: str | None
    ip: str | None
    now: int
    pair: Pair


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """What the client gets; `expires_in_ms` None when the token does not expire by itself."""

    user_id: UserId
    device_id: DeviceId
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    expires_in_ms: int | None


@dataclass(slots=True)
class _Known:
    requester: Requester
    expires: int | None
    locked: bool
    seen: int


@lru_cache(maxsize=4096)
def digest(token: str) -> bytes:
    """Return what the store keeps of a token. (Remembered: every request of a device brings the same one.)"""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


def user_locked() -> MatrixError:
    """Return the refusal for a locked account (spec: "Account locking")."""
    return MatrixError("The account is locked", status=401, errcode="M_USER_LOCKED", extra={"soft_logout": True})


class Tokens:
    """All access tokens of the house, and the memory of those in use."""

    def __init__(self, store: Store, clock: Clock, access_lifetime_ms: int = ACCESS_LIFETIME_MS) -> None:
        self._store = store
        self._clock = clock
        self._lifetime = access_lifetime_ms
        self._cache: dict[bytes, _Known] = {}
        self._of_session: dict[int, set[bytes]] = {}
        self._revocations = 0

    async def authenticate(self, token: str, access: Access) -> Requester:
        """Return who is behind an access token; raises `UnknownToken` or the refusal of a locked account."""
        hash = digest(token)
        known = self._cache.get(hash)
        if known is None:
            known = await self._load(hash)
        now = self._clock()
        if known.expires is not None and known.expires <= now:
            raise UnknownToken("The access token has expired", soft_logout=True)
        if known.locked and access.name != "ACCOUNT":
            raise user_locked()
        if now - known.seen >= SEEN_EVERY_MS:
            known.seen = now
            await self._store.write(devices.seen, known.requester.session, now)
        return known.requester

    async def _load(self, hash: bytes) -> _Known:
        row, revocations = await self._look_up(hash)
        if row.parent is not None:
            await self._store.write(self._settle, row)
            row, revocations = await self._look_up(hash)
        known = _Known(_requester(row), row.expires, row.locked, row.seen)
        if revocations == self._revocations:
            self._keep(hash, known)
        return known

    async def _look_up(self, hash: bytes) -> tuple[TokenRow, int]:
        """Return the row, and how many revocations there had been when it was asked for."""
        revocations = self._revocations
        row = await self._store.read(tokens.by_access, hash)
        if row is None or row.deactivated:
            raise UnknownToken()
        return row, revocations

    def _keep(self, hash: bytes, known: _Known) -> None:
        if len(self._cache) >= CACHE:
            self._forget(next(iter(self._cache)))
        self._cache[hash] = known
        self._of_session.setdefault(known.requester.session, set()).add(hash)

    def _forget(self, hash: bytes) -> None:
        known = self._cache.pop(hash, None)
        if known is None:
            return
        hashes = self._of_session[known.requester.session]
        hashes.discard(hash)
        if not hashes:
            del self._of_session[known.requester.session]

    # -- beginning and renewing a log-in -------------------------------------------------------------------------------

    def plan(
        self, user_id: UserId, device_id: str | None, device_name: str | None, ip: str | None, refreshable: bool
    ) -> LogInPlan:
        """Decide the tokens (and, if the client named none, the device id) of a log-in."""
        device = DeviceId(device_id if device_id is not None else new_device_id())
        return LogInPlan(user_id, device, device_name, ip, self._clock(), self._pair(refreshable))

    def _pair(self, refreshable: bool) -> Pair:
        if not refreshable:
            return Pair(f"sla_{secrets.token_urlsafe(32)}", None, None)
        expires = self._clock() + self._lifetime
        return Pair(f"sla_{secrets.token_urlsafe(32)}", f"slr_{secrets.token_urlsafe(32)}", expires)

    def begin(self, tx: Tx, plan: LogInPlan) -> LoggedIn:
        """Write a log-in: the device, and its tokens instead of those it had."""
        session, new = devices.ensure(tx, plan.user_id, plan.device_id, plan.device_name, plan.now, plan.ip)
        if not new:
            tokens.drop_session(tx, session)
            self.revoked(tx, session)
        self._insert(tx, session, plan.pair, None)
        return LoggedIn(plan.user_id, plan.device_id, plan.pair.access, plan.pair.refresh, self._life(plan.pair))

    async def log_in(self, plan: LogInPlan) -> LoggedIn:
        """Carry out a log-in whose credentials were checked."""
        return await self._store.write(self.begin, plan)

    async def refresh(self, refresh_token: str) -> tuple[Pair, int | None]:
        """Exchange a refresh token: (new tokens, milliseconds the access token lives); raises `UnknownToken`."""
        pair = self._pair(True)
        await self._store.write(self._refresh, digest(refresh_token), pair)
        return pair, self._life(pair)

    def _refresh(self, tx: Tx, hash: bytes, pair: Pair) -> None:
        row = tokens.by_refresh(tx, hash)
        if row is None or row.deactivated:
            raise UnknownToken("Unknown refresh token")
        if row.locked:
            raise user_locked()
        self._settle(tx, row)
        tokens.drop_children(tx, row.id)
        self._insert(tx, row.session, pair, row.id)

    def _settle(self, tx: Tx, row: TokenRow) -> None:
        tokens.settle(tx, row.id)
        self.revoked(tx, row.session)

    def _insert(self, tx: Tx, session: int, pair: Pair, parent: int | None) -> None:
        refresh = digest(pair.refresh) if pair.refresh is not None else None
        tokens.insert(tx, session, digest(pair.access), pair.expires, refresh, parent)

    def _life(self, pair: Pair) -> int | None:
        return self._lifetime if pair.expires is not None else None

    # -- revoking ------------------------------------------------------------------------------------------------------

    def revoked(self, tx: Tx, session: int) -> None:
        """Inside a write that changes the tokens of a device: forget them as soon as it is committed."""
        tx.on_commit(lambda: self._drop_session(session))

    def changed(self, tx: Tx, user_id: str) -> None:
        """Inside a write that changes an account (locked, suspended, closed): read its tokens anew afterwards."""
        tx.on_commit(lambda: self._drop_user(user_id))

    def _drop_session(self, session: int) -> None:
        self._revocations += 1
        for hash in list(self._of_session.get(session, ())):
            self._forget(hash)

    def _drop_user(self, user_id: str) -> None:
        self._revocations += 1
        for hash in [hash for hash, known in self._cache.items() if known.requester.user_id == user_id]:
            self._forget(hash)


def _requester(row: TokenRow) -> Requester:
    return Requester(
        UserId(row.user_id), DeviceId(row.device_id), row.session, is_admin=row.admin, suspended=row.suspended
    )


def new_device_id() -> str:
    """Return a fresh device id: ten letters that can be read out."""
    return "".join(secrets.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(10))

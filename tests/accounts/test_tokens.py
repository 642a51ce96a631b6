"""The memory of access tokens: what was revoked is dead when that is acknowledged, whatever was being read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.accounts import tokens as tokens_module
from appliance.accounts.tokens import SEEN_EVERY_MS, LoggedIn, Tokens
from appliance.matrix.errors import MatrixError, UnknownToken
from appliance.matrix.ids import UserId
from appliance.matrix.requester import Requester
from appliance.store import accounts, devices
from appliance.store.database import Store
from tests.world.rooms import Clock

ANNA = UserId("@anna:test.example")
USER = SimpleNamespace(name="USER")
ACCOUNT = SimpleNamespace(name="ACCOUNT")


class Desk:
    """Tokens on a real store, and one account."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = Clock()
        self.tokens = Tokens(store, self.clock)

    async def log_in(self, device: str | None = None, refreshable: bool = False) -> LoggedIn:
        return await self.tokens.log_in(self.tokens.plan(ANNA, device, None, None, refreshable))

    async def who(self, token: str) -> Requester:
        return await self.tokens.authenticate(token, USER)

    async def log_out(self, device_id: str) -> None:
        def write(tx: object) -> None:
            for device in devices.delete(tx, ANNA, [device_id]):  # type: ignore[arg-type]
                self.tokens.revoked(tx, device.session)  # type: ignore[arg-type]

        await self.store.write(write)


@asynccontextmanager
async def desk(folder: Path) -> AsyncIterator[Desk]:
    store = await Store.open(folder / "schleuse.db")
    try:
        await store.write(accounts.insert, ANNA, None, False, 0)
        yield Desk(store)
    finally:
        await store.close()


async def test_the_session_of_a_device_is_the_same_after_refresh_and_another_log_in(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        first = await d.log_in("D", refreshable=True)
        session = (await d.who(first.access_token)).session
        assert first.refresh_token is not None
        pair, life = await d.tokens.refresh(first.refresh_token)
        assert (await d.who(pair.access)).session == session and life == tokens_module.ACCESS_LIFETIME_MS
        again = await d.log_in("D")
        assert (await d.who(again.access_token)).session == session
        other = await d.log_in("E")
        assert (await d.who(other.access_token)).session != session
        await d.log_out("D")
        reborn = await d.log_in("D")
        assert (await d.who(reborn.access_token)).session not in (session, (await d.who(other.access_token)).session)


async def test_a_token_is_answered_from_memory_until_it_is_revoked(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        device = await d.log_in("D")
        await d.who(device.access_token)
        reads = []
        read = d.store.read
        d.store.read = lambda *a: reads.append(a) or read(*a)  # type: ignore[method-assign,assignment,func-returns-value]
        for _ in range(5):
            await d.who(device.access_token)
        assert reads == []
        await d.log_out("D")
        with pytest.raises(UnknownToken):
            await d.who(device.access_token)
        assert not d.tokens._cache and not d.tokens._of_session


async def test_a_token_read_while_it_is_revoked_is_not_remembered(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        for round in range(30):
            device = await d.log_in(f"D{round}")
            results = await asyncio.gather(
                *(d.who(device.access_token) for _ in range(4)), d.log_out(f"D{round}"),
                *(d.who(device.access_token) for _ in range(4)), return_exceptions=True,
            )
            assert all(isinstance(r, Requester | UnknownToken | None) for r in results)
            with pytest.raises(UnknownToken):
                await d.who(device.access_token)
        assert not d.tokens._cache


async def test_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk(tmp_path) as d:
        monkeypatch.setattr(tokens_module, "CACHE", 5)
        found = [await d.log_in(f"D{n}") for n in range(12)]
        for device in found * 2:
            assert (await d.who(device.access_token)).device_id == device.device_id
        assert len(d.tokens._cache) <= 5 and sum(map(len, d.tokens._of_session.values())) <= 5


async def test_last_activity_is_noted_now_and_then(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        device = await d.log_in("D")
        made = (await d.store.read(devices.of_user, ANNA))[0].seen
        await d.who(device.access_token)
        assert (await d.store.read(devices.of_user, ANNA))[0].seen == made
        d.clock.now += SEEN_EVERY_MS
        await d.who(device.access_token)
        assert (await d.store.read(devices.of_user, ANNA))[0].seen >= made + SEEN_EVERY_MS


async def test_a_lock_takes_effect_on_tokens_in_use(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        device = await d.log_in("D")
        await d.who(device.access_token)

        def lock(tx: object, locked: bool) -> None:
            accounts.set_locked(tx, ANNA, locked)  # type: ignore[arg-type]
            d.tokens.changed(tx, ANNA)  # type: ignore[arg-type]

        await d.store.write(lock, True)
        with pytest.raises(MatrixError) as refused:
            await d.who(device.access_token)
        assert (refused.value.errcode, refused.value.extra) == ("M_USER_LOCKED", {"soft_logout": True})
        assert (await d.tokens.authenticate(device.access_token, ACCOUNT)).user_id == ANNA
        await d.store.write(lock, False)
        await d.who(device.access_token)


@pytest.mark.parametrize("token", ["", "x", "sla_" + "x" * 5000, "äöü", "\0", "\ud800"])
async def test_nonsense_is_no_token(tmp_path: Path, token: str) -> None:
    async with desk(tmp_path) as d:
        with pytest.raises(UnknownToken):
            await d.who(token)
        with pytest.raises(UnknownToken):
            await d.tokens.refresh(token)

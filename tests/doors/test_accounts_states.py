"""What may become of an account: another password, locked, suspended, closed; and the rate limits around it."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import pytest

from appliance.accounts import passwords
from appliance.accounts.limits import RATES, Limits, Rate
from appliance.accounts.passwords import Passwords
from appliance.matrix.errors import LimitExceeded
from appliance.matrix.ids import UserId
from tests.accounts.practice import PASSWORD, Device, Practice, opened, password_login, segment
from tests.world.rooms import Clock

NEW = "Neues-Passwort-9"
PUSHER = {"app_id": "app", "app_display_name": "App", "device_display_name": "Telefon", "kind": "http", "lang": "de",
          "data": {"url": "https://push.example.org/_matrix/push/v1/notify"}}


async def _set_pusher(device: Device, pushkey: str) -> None:
    await device.fine("POST", "/pushers/set", {**PUSHER, "pushkey": pushkey, "append": True})


async def test_a_new_password_logs_the_other_devices_out(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        here, there = await p.register("anna"), await p.login("anna")
        await _set_pusher(here, "k1")
        await _set_pusher(there, "k2")
        assert (await here.confirmed("POST", "/account/password", {"new_password": NEW}, "falsch")).status == 401
        assert (await here.confirmed("POST", "/account/password", {"new_password": NEW})).status == 200
        assert (await there.ask("GET", "/account/whoami")).errcode == "M_UNKNOWN_TOKEN"
        pushers = (await here.fine("GET", "/pushers"))["pushers"]
        assert [pusher["pushkey"] for pusher in pushers] == ["k1"]
        assert (await p.ask("POST", "/login", password_login("anna"))).status == 403
        third = await p.login("anna", NEW)
        body = {"new_password": PASSWORD, "logout_devices": False}
        assert (await here.confirmed("POST", "/account/password", body, NEW)).status == 200
        await third.fine("GET", "/account/whoami")


async def test_a_password_change_needs_a_device_a_field_and_some_strength(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        assert (await p.ask("POST", "/account/password", {"new_password": NEW})).errcode == "M_MISSING_TOKEN"
        assert (await anna.ask("POST", "/account/password", {})).errcode == "M_MISSING_PARAM"
        assert (await anna.ask("POST", "/account/password", {"new_password": ""})).errcode == "M_WEAK_PASSWORD"


async def test_a_log_in_that_was_under_way_when_the_password_changed_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        verify, verified, gate = p.people.passwords.verify, asyncio.Event(), asyncio.Event()

        async def slow(stored: str | None, password: str) -> bool:
            right = await verify(stored, password)
            verified.set()
            await gate.wait()
            return right

        p.people.passwords.verify = slow  # type: ignore[method-assign]
        late = asyncio.create_task(p.ask("POST", "/login", password_login("anna")))
        await asyncio.wait_for(verified.wait(), 10)
        p.people.passwords.verify = verify  # type: ignore[method-assign]
        assert (await anna.confirmed("POST", "/account/password", {"new_password": NEW})).status == 200
        gate.set()
        assert (await late).status == 403
        assert len((await anna.fine("GET", "/devices"))["devices"]) == 1


# -- closing -----------------------------------------------------------------------------------------------------------


async def _everything(device: Device) -> str:
    """Leave a trace in every table that a person can leave one in; returns a room."""
    room = await device.room()
    user = segment(device.user_id)
    text = {"msgtype": "m.text", "body": "x"}
    event = await device.fine("PUT", f"/rooms/{segment(room)}/send/m.room.message/t", text)
    await device.fine("POST", f"/rooms/{segment(room)}/receipt/m.read/{segment(event['event_id'])}", {})
    await device.fine("PUT", f"/user/{user}/account_data/org.example", {"a": 1})
    await device.fine("PUT", f"/user/{user}/rooms/{segment(room)}/tags/u.x", {})
    await device.fine("POST", f"/user/{user}/filter", {"room": {}})
    await device.fine("PUT", f"/profile/{user}/displayname", {"displayname": "Anna"})
    await device.fine("POST", "/room_keys/version", {"algorithm": "x", "auth_data": {}})
    await device.fine("POST", f"/user/{user}/openid/request_token", {})
    await _set_pusher(device, "k1")
    key = {"key": "x", "signatures": {}}
    await device.fine("POST", "/keys/upload", {"one_time_keys": {"signed_curve25519:A": key}})
    return room


@pytest.mark.parametrize("erase", [False, True])
async def test_a_closed_account_leaves_its_rooms_and_nothing_of_its_own(tmp_path: Path, erase: bool) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        other = await p.login("anna")
        room = await _everything(anna)
        await anna.fine("POST", f"/rooms/{segment(room)}/invite", {"user_id": bernd.user_id})
        await bernd.fine("POST", f"/join/{segment(room)}", {})
        invited = await bernd.room(anna.user_id)
        assert (await anna.confirmed("POST", "/account/deactivate", {"erase": erase}, "falsch")).status == 401
        got = await anna.confirmed("POST", "/account/deactivate", {"erase": erase})
        assert (got.status, got.body) == (200, {"id_server_unbind_result": "no-support"})
        for device in (anna, other):
            assert (await device.ask("GET", "/account/whoami")).errcode == "M_UNKNOWN_TOKEN"
        got = await p.ask("POST", "/login", password_login("anna"))
        assert (got.status, got.errcode) == (403, "M_USER_DEACTIVATED")
        got = await p.ask("POST", "/register", {"username": "anna", "password": PASSWORD})
        assert (got.status, got.errcode) == (400, "M_USER_IN_USE")
        for place in (room, invited):
            member = await bernd.fine("GET", f"/rooms/{segment(place)}/state/m.room.member/{segment(anna.user_id)}")
            assert member["membership"] == "leave"
        assert (await p.fine("GET", f"/profile/{segment(anna.user_id)}")) == {}
        found = (await bernd.fine("POST", "/user_directory/search", {"search_term": "anna"}))["results"]
        assert anna.user_id not in [result["user_id"] for result in found]
        kept = {"receipt", "account_data"} if not erase else set()
        public = {"account", "profile", "membership", "stripped", "device_list_change"}
        assert await _tables_with(p, anna.user_id) - kept <= public


async def _tables_with(p: Practice, user_id: str) -> set[str]:
    """Return the tables with a column `user_id` in which somebody still has a row."""
    tables = await p.column("SELECT name FROM sqlite_schema WHERE type='table' AND sql LIKE '%user_id TEXT%'")
    return {table for table in tables
            if await p.column(f"SELECT 1 FROM {table} WHERE user_id=? LIMIT 1", user_id)}  # noqa: S608


async def test_what_was_left_undone_when_the_house_stopped_is_done_after_the_next_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        room = await anna.room(bernd.user_id)
        await bernd.fine("POST", f"/join/{segment(room)}", {})
        await p.store.write(p.people.accounts._close, anna.user_id, False)  # the power fails here
    async with opened(tmp_path) as p:
        bernd = await p.login("bernd")
        await p.people.accounts.finish()
        member = await bernd.fine("GET", f"/rooms/{segment(room)}/state/m.room.member/{segment(anna.user_id)}")
        assert member["membership"] == "leave"


# -- locked and suspended ----------------------------------------------------------------------------------------------


async def test_a_locked_account_may_log_out_and_nothing_else(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, second = await p.register("anna", refresh_token=True), await p.login("anna")
        await second.fine("GET", "/account/whoami")
        await p.people.accounts.lock(UserId(anna.user_id), True)
        for method, path, body in (
            ("GET", "/account/whoami", None), ("GET", "/sync", None), ("GET", "/devices", None),
            ("POST", "/keys/upload", {}), ("GET", f"/profile/{segment(anna.user_id)}", None),
            ("POST", "/account/deactivate", {}),
        ):
            got = await anna.ask(method, path, body)
            assert (got.status, got.errcode, got.body["soft_logout"]) == (401, "M_USER_LOCKED", True), path
        assert (await p.ask("POST", "/login", password_login("anna"))).errcode == "M_USER_LOCKED"
        assert (await p.ask("POST", "/refresh", {"refresh_token": anna.refresh})).errcode == "M_USER_LOCKED"
        await second.fine("POST", "/logout")
        await p.people.accounts.lock(UserId(anna.user_id), False)
        await anna.fine("GET", "/account/whoami")
        assert (await second.ask("GET", "/account/whoami")).errcode == "M_UNKNOWN_TOKEN"


async def test_a_suspended_account_may_read_and_leave_but_not_act(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        room, other = await anna.room(bernd.user_id), await bernd.room(anna.user_id)
        await bernd.fine("POST", f"/join/{segment(room)}", {})
        text = {"msgtype": "m.text", "body": "x"}
        path = f"/rooms/{segment(room)}/send/m.room.message/s"
        hers, his = [(await device.fine("PUT", path, text))["event_id"] for device in (anna, bernd)]
        await anna.sync()
        await p.people.accounts.suspend(UserId(anna.user_id), True)
        me, here = segment(anna.user_id), f"/rooms/{segment(room)}"
        for method, path, body in (
            ("PUT", f"{here}/send/m.room.message/t", {"msgtype": "m.text", "body": "x"}),
            ("PUT", f"{here}/state/m.room.name/", {"name": "x"}),
            ("POST", f"/join/{segment(other)}", {}),
            ("POST", f"{here}/invite", {"user_id": bernd.user_id}),
            ("POST", "/createRoom", {}),
            ("PUT", f"{here}/redact/{segment(his)}/r1", {}),
            ("PUT", f"/profile/{me}/displayname", {"displayname": "x"}),
            ("PUT", f"/profile/{me}/org.example", {"org.example": 1}),
        ):
            got = await anna.ask(method, path, body)
            assert (got.status, got.errcode) == (403, "M_USER_SUSPENDED"), path
        await anna.sync()
        await anna.fine("PUT", f"{here}/redact/{segment(hers)}/r2", {})
        await anna.fine("POST", f"/rooms/{segment(other)}/leave", {})
        await anna.fine("POST", "/keys/upload", {})
        await anna.fine("POST", "/room_keys/version", {"algorithm": "x", "auth_data": {}})
        more = await p.login("anna")
        assert (await more.ask("POST", "/createRoom", {})).errcode == "M_USER_SUSPENDED"
        await p.people.accounts.suspend(UserId(anna.user_id), False)
        await anna.fine("PUT", f"{here}/send/m.room.message/t", {"msgtype": "m.text", "body": "x"})


# -- limits ------------------------------------------------------------------------------------------------------------


async def test_too_many_wrong_passwords_are_told_when_to_come_back(tmp_path: Path) -> None:
    async with opened(tmp_path, rate_limits=True) as p:
        await p.register("anna")
        await p.register("bernd")
        for _ in range(RATES["login_failed"].burst):
            assert (await p.ask("POST", "/login", password_login("anna", "falsch"))).status == 403
        got = await p.ask("POST", "/login", password_login("anna"))
        assert (got.status, got.errcode) == (429, "M_LIMIT_EXCEEDED")
        wait = got.body["retry_after_ms"]
        assert 0 < wait <= 10_000 and int(got.headers["Retry-After"]) == -(-wait // 1000)
        await p.login("bernd")
        p.clock.now += wait
        await p.login("anna")


async def test_the_same_bucket_guards_the_password_stage(tmp_path: Path) -> None:
    async with opened(tmp_path, rate_limits=True) as p:
        anna = await p.register("anna")
        session = (await anna.ask("POST", "/account/deactivate", {})).body["session"]
        for _ in range(RATES["login_failed"].burst):
            got = await anna.ask("POST", "/account/deactivate", {"auth": anna.proof(session, "falsch")})
            assert (got.status, got.errcode) == (401, "M_FORBIDDEN")
        got = await anna.ask("POST", "/account/deactivate", {"auth": anna.proof(session)})
        assert (got.status, got.errcode) == (429, "M_LIMIT_EXCEEDED")


async def test_limits_can_be_switched_off(tmp_path: Path) -> None:
    async with opened(tmp_path, rate_limits=False) as p:
        await p.register("anna")
        for _ in range(RATES["login"].burst + 5):
            assert (await p.ask("POST", "/login", password_login("anna", "falsch"))).status == 403


def test_a_bucket_fills_up_again_and_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    limits = Limits(clock, {"default": Rate(1, 3)})
    for _ in range(3):
        limits("unheard-of", "anna")
    with pytest.raises(LimitExceeded) as refused:
        limits("default", "anna")
    clock.now += refused.value.retry_after_ms
    limits("default", "anna")
    monkeypatch.setattr("appliance.accounts.limits.BUCKETS", 100)
    for number in range(500):
        limits("default", str(number))
    assert len(limits._buckets) <= 100


# -- the cost of a password --------------------------------------------------------------------------------------------


async def test_hashing_happens_off_the_loop_on_two_threads_and_the_queue_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    threads: set[str] = set()
    running, most, lock = 0, 0, threading.Lock()
    release = threading.Event()

    def work(password: bytes, stored: str | None, cost: tuple[int, int]) -> str:
        nonlocal running, most
        with lock:
            threads.add(threading.current_thread().name)
            running += 1
            most = max(most, running)
        release.wait(10)
        with lock:
            running -= 1
        return "x"

    monkeypatch.setattr(passwords, "_work", work)
    pool = Passwords()
    jobs = [asyncio.create_task(pool.hash("x")) for _ in range(passwords.QUEUE)]
    await asyncio.sleep(0)
    begin = time.perf_counter()
    with pytest.raises(LimitExceeded):
        await pool.hash("one too many")
    assert time.perf_counter() - begin < 1, "refused at once"
    release.set()
    await asyncio.gather(*jobs)
    pool.close()
    assert most <= passwords.THREADS and all(name.startswith("passwords") for name in threads)


async def test_a_real_hash_is_argon2id_and_verifies() -> None:
    pool = Passwords()
    stored = await pool.hash(PASSWORD)
    assert stored.startswith("$argon2id$v=19$m=19456,t=3,p=1$")
    assert await pool.verify(stored, PASSWORD) and not await pool.verify(stored, "falsch")
    assert not await pool.verify(None, PASSWORD)
    pool.close()

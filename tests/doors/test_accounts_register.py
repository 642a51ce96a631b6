"""New accounts over HTTP: by the person, with a registration token, and with the shared secret of a laboratory."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest

from appliance.accounts import uia
from appliance.accounts.registration import NONCE_MS, NONCES, Rules
from tests.accounts.practice import PASSWORD, Got, Practice, opened

DUMMY = {"type": "m.login.dummy"}
VALIDITY = "/_matrix/client/v1/register/m.login.registration_token/validity"
SECRET_DOOR = "/_synapse/admin/v1/register"
SECRET = "Labor-Geheimnis"


async def test_an_open_house_asks_for_a_dummy_stage_and_logs_in(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        body = {"username": "anna", "password": PASSWORD, "device_id": "D", "initial_device_display_name": "Tablet"}
        asked = await p.ask("POST", "/register", body)
        assert asked.status == 401 and ["m.login.dummy"] in [flow["stages"] for flow in asked.body["flows"]]
        assert "errcode" not in asked.body
        got = await p.fine("POST", "/register", {**body, "auth": {**DUMMY, "session": asked.body["session"]}})
        assert got["user_id"] == "@anna:test.example" and got["device_id"] == "D" and "refresh_token" not in got
        device = (await p.fine("GET", "/devices/D", token=got["access_token"]))["display_name"]
        profile = await p.fine("GET", "/profile/@anna:test.example")
        assert (device, profile) == ("Tablet", {"displayname": "anna"})


async def test_an_account_without_a_log_in_and_one_without_a_name(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        quiet = await p.fine("POST", "/register", {
            "username": "quiet", "password": PASSWORD, "inhibit_login": True, "auth": DUMMY})
        assert quiet["user_id"] == "@quiet:test.example" and not {"access_token", "device_id"} & quiet.keys()
        assert await p.column("SELECT count(*) FROM device") == [0]
        await p.login("quiet")
        nameless = await p.fine("POST", "/register", {"password": PASSWORD, "auth": DUMMY})
        assert nameless["user_id"].endswith(":test.example")


@pytest.mark.parametrize("name", ["Anna", "an na", "änna", "an:na", "@anna", "", "x" * 250, "an\0na"])
async def test_names_outside_the_grammar_are_refused(tmp_path: Path, name: str) -> None:
    async with opened(tmp_path) as p:
        got = await p.ask("POST", "/register", {"username": name, "password": PASSWORD, "auth": DUMMY})
        assert (got.status, got.errcode) == (400, "M_INVALID_USERNAME")
        got = await p.ask("GET", "/register/available", username=name)
        assert (got.status, got.errcode) == (400, "M_INVALID_USERNAME")


async def test_a_name_is_given_once_also_in_parallel(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        assert await p.fine("GET", "/register/available", username="anna") == {"available": True}
        body = {"username": "anna", "password": PASSWORD, "auth": DUMMY}
        answers = await asyncio.gather(*(p.ask("POST", "/register", body) for _ in range(8)))
        assert sorted(got.status for got in answers) == [200] + [400] * 7
        assert {got.errcode for got in answers if got.status == 400} == {"M_USER_IN_USE"}
        got = await p.ask("POST", "/register", {"username": "anna", "password": PASSWORD})
        assert (got.status, got.errcode) == (400, "M_USER_IN_USE"), "said before any stage"
        assert (await p.ask("GET", "/register/available", username="anna")).errcode == "M_USER_IN_USE"


async def test_a_weak_password_guests_and_unheard_of_kinds_are_refused(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        got = await p.ask("POST", "/register", {"username": "anna", "password": "", "auth": DUMMY})
        assert (got.status, got.errcode) == (400, "M_WEAK_PASSWORD")
        got = await p.ask("POST", "/register", {"username": "anna", "password": "x" * 600, "auth": DUMMY})
        assert (got.status, got.errcode) == (400, "M_INVALID_PARAM")
        got = await p.ask("POST", "/register", {}, kind="guest")
        assert (got.status, got.errcode) == (403, "M_GUEST_ACCESS_FORBIDDEN")
        got = await p.ask("POST", "/register", {}, kind="ghost")
        assert (got.status, got.errcode) == (400, "M_INVALID_PARAM")
        assert await p.column("SELECT count(*) FROM account") == [0]


async def test_a_closed_house_registers_nobody_without_a_token(tmp_path: Path) -> None:
    async with opened(tmp_path, open_registration=False) as p:
        body = {"username": "anna", "password": PASSWORD}
        asked = await p.ask("POST", "/register", body)
        assert [flow["stages"] for flow in asked.body["flows"]] == [["m.login.registration_token"]]
        got = await p.ask("POST", "/register", {**body, "auth": {**DUMMY, "session": asked.body["session"]}})
        assert (got.status, got.errcode) == (401, "M_UNRECOGNIZED")
        p.people.registration._rules = Rules(open=False, by_token=False)
        got = await p.ask("POST", "/register", body)
        assert (got.status, got.errcode) == (403, "M_FORBIDDEN")
        assert (await p.ask("GET", VALIDITY + "?token=x")).errcode == "M_FORBIDDEN"


async def test_the_product_never_opens_the_laboratorys_doors(tmp_path: Path) -> None:
    async with opened(tmp_path, "tim-pro", open_registration=True, registration_secret=SECRET) as p:
        assert (await p.ask("GET", SECRET_DOOR)).status == 404
        asked = await p.ask("POST", "/register", {"username": "anna", "password": PASSWORD})
        assert [flow["stages"] for flow in asked.body["flows"]] == [["m.login.registration_token"]]


async def test_the_product_wants_longer_passwords(tmp_path: Path) -> None:
    async with opened(tmp_path, "tim-pro") as p:
        got = await p.ask("POST", "/register", {"username": "anna", "password": "sieben7"})
        assert (got.status, got.errcode) == (400, "M_WEAK_PASSWORD")
        assert (await p.ask("POST", "/register", {"username": "anna", "password": "achtacht"})).status == 401


async def test_an_empty_secret_is_no_secret(tmp_path: Path) -> None:
    async with opened(tmp_path, registration_secret="") as p:
        assert (await p.ask("GET", SECRET_DOOR)).status == 404


# -- registration tokens -----------------------------------------------------------------------------------------------


async def _valid(p: Practice, token: str) -> bool:
    got = await p.ask("GET", VALIDITY + f"?token={token}")
    assert got.status == 200
    return bool(got.body["valid"])


async def _with_token(p: Practice, name: str, token: Any) -> Got:
    body = {"username": name, "password": PASSWORD}
    session = (await p.ask("POST", "/register", body)).body["session"]
    auth = {"type": "m.login.registration_token", "token": token, "session": session}
    return await p.ask("POST", "/register", {**body, "auth": auth})


async def test_a_registration_token_counts_its_uses_and_runs_out(tmp_path: Path) -> None:
    async with opened(tmp_path, open_registration=False) as p:
        await p.people.registration.add_token("neu", 2, p.clock.now + 60_000)
        assert await _valid(p, "neu") and not await _valid(p, "alt")
        assert (await _with_token(p, "anna", "alt")).errcode == "M_FORBIDDEN"
        assert (await _with_token(p, "anna", 5)).errcode == "M_BAD_JSON"
        assert (await _with_token(p, "anna", None)).errcode == "M_MISSING_PARAM"
        assert (await _with_token(p, "anna", "neu")).status == 200
        answers = await asyncio.gather(*(_with_token(p, f"b{n}", "neu") for n in range(5)))
        assert sorted(got.status == 200 for got in answers) == [False] * 4 + [True]
        assert not await _valid(p, "neu")
        await p.people.registration.add_token("bald", None, p.clock.now + 60_000)
        assert await _valid(p, "bald")
        p.clock.now += 60_000
        assert not await _valid(p, "bald")


# -- interactive sessions ----------------------------------------------------------------------------------------------


async def test_sessions_are_bounded_run_out_and_belong_to_one_operation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path, open_registration=False) as p:
        monkeypatch.setattr(uia, "SESSIONS", 20)
        await p.people.registration.add_token("neu", None, None)
        for _ in range(30):
            await p.ask("POST", "/register", {"username": "anna", "password": PASSWORD})
        assert len(p.people.uia._sessions) == 20
        p.clock.now += uia.LIFE_MS
        await p.ask("POST", "/register", {"username": "anna", "password": PASSWORD})
        assert len(p.people.uia._sessions) == 1
        (session,) = p.people.uia._sessions
        p.clock.now += uia.LIFE_MS
        auth = {"type": "m.login.registration_token", "token": "neu", "session": session}
        got = await p.ask("POST", "/register", {"username": "anna", "password": PASSWORD, "auth": auth})
        assert got.status == 401 and got.body["session"] != session and got.body["completed"] == []


async def test_a_session_of_somebody_or_something_else_proves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        second = await p.login("anna")
        foreign = (await bernd.ask("DELETE", f"/devices/{second.device_id}")).body["session"]
        other = (await anna.ask("POST", "/account/deactivate", {})).body["session"]
        for session in (foreign, other, "made-up"):
            got = await anna.ask("DELETE", f"/devices/{second.device_id}", {"auth": anna.proof(session)})
            assert got.status == 401 and got.body["session"] != session
        await second.fine("GET", "/account/whoami")
        mine = (await anna.ask("DELETE", f"/devices/{second.device_id}")).body["session"]
        got = await anna.ask("DELETE", f"/devices/{second.device_id}", {"auth": {**bernd.proof(mine)}})
        assert (got.status, got.errcode, got.body["session"]) == (401, "M_FORBIDDEN", mine)
        assert (await anna.ask("DELETE", f"/devices/{second.device_id}", {"auth": anna.proof(mine)})).status == 200
        again = await anna.ask("DELETE", f"/devices/{anna.device_id}", {"auth": {"session": mine}})
        assert again.status == 401, "a finished session opens nothing else"


# -- the shared secret -------------------------------------------------------------------------------------------------


def _mac(*parts: str, secret: str = SECRET) -> str:
    """Return the proof as the ecosystem's registration tools make it."""
    mac = hmac.new(key=secret.encode(), digestmod=hashlib.sha1)
    mac.update(b"\x00".join(part.encode() for part in parts))
    return mac.hexdigest()


async def _nonce(p: Practice) -> str:
    return str((await p.fine("GET", SECRET_DOOR))["nonce"])


@pytest.mark.parametrize(("admin", "user_type"), [(False, None), (True, None), (False, "bot"), (True, "support")])
async def test_a_tool_that_knows_the_secret_makes_accounts(
    tmp_path: Path, admin: bool, user_type: str | None
) -> None:
    async with opened(tmp_path, open_registration=False, registration_secret=SECRET) as p:
        nonce = await _nonce(p)
        parts = [nonce, "anna", PASSWORD, "admin" if admin else "notadmin", *([user_type] if user_type else [])]
        body = {"nonce": nonce, "username": "anna", "password": PASSWORD, "admin": admin, "user_type": user_type,
                "mac": _mac(*parts)}
        got = await p.fine("POST", SECRET_DOOR, body)
        assert got["user_id"] == "@anna:test.example" and got["home_server"] == "test.example"
        requester = await p.people.tokens.authenticate(got["access_token"], p.people.routes()[0].access)
        assert requester.is_admin is admin
        again = await p.ask("POST", SECRET_DOOR, {**body, "username": "berta"})
        assert (again.status, again.errcode) == (400, "M_UNKNOWN"), "a nonce is good once"


async def test_without_the_right_proof_there_is_no_account(tmp_path: Path) -> None:
    async with opened(tmp_path, registration_secret=SECRET) as p:
        def body(nonce: str, **changed: Any) -> dict[str, Any]:
            mac = _mac(nonce, "anna", PASSWORD, "notadmin")
            return {"nonce": nonce, "username": "anna", "password": PASSWORD, "admin": False, "mac": mac, **changed}

        for changed in ({"admin": True}, {"user_type": "bot"}, {"username": "berta"}, {"password": "x"},
                        {"mac": "0" * 40}, {"mac": "ä"}):
            got = await p.ask("POST", SECRET_DOOR, body(await _nonce(p), **changed))
            assert (got.status, got.errcode) == (403, "M_FORBIDDEN"), changed
        other = await _nonce(p)
        wrong = _mac(other, "anna", PASSWORD, "notadmin", secret="another")
        assert (await p.ask("POST", SECRET_DOOR, body(other, mac=wrong))).status == 403
        for field in ("nonce", "username", "password", "mac"):
            got = await p.ask("POST", SECRET_DOOR, {**body(await _nonce(p)), field: None})
            assert (got.status, got.errcode) == (400, "M_MISSING_PARAM"), field
        nonce = await _nonce(p)
        glued = {"password": f"{PASSWORD}\0admin", "mac": _mac(nonce, "anna", PASSWORD, "admin", "notadmin")}
        assert (await p.ask("POST", SECRET_DOOR, body(nonce, **glued))).errcode == "M_INVALID_PARAM"
        assert await p.column("SELECT count(*) FROM account") == [0]


async def test_nonces_run_out_and_are_bounded(tmp_path: Path) -> None:
    async with opened(tmp_path, registration_secret=SECRET) as p:
        nonce = await _nonce(p)
        p.clock.now += NONCE_MS
        mac = _mac(nonce, "anna", PASSWORD, "notadmin")
        got = await p.ask("POST", SECRET_DOOR, {"nonce": nonce, "username": "anna", "password": PASSWORD, "mac": mac})
        assert (got.status, got.errcode) == (400, "M_UNKNOWN")
        for _ in range(NONCES + 50):
            p.people.registration.nonce()
        assert len(p.people.registration._nonces) == NONCES

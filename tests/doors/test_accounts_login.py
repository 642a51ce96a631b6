"""Logging in and out over HTTP: passwords, log-in tokens, refresh tokens, and the way through the browser."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from appliance.accounts.sso import LIFE_MS, Sso
from appliance.accounts.tokens import ACCESS_LIFETIME_MS
from appliance.matrix.errors import Forbidden
from appliance.matrix.ids import UserId
from tests.accounts.practice import PASSWORD, V3, opened, password_login

HOUR = 3_600_000


@pytest.mark.parametrize("form", ["anna", "@anna:test.example", "Anna", "@Anna:test.example"])
async def test_a_name_may_be_short_or_whole_and_begin_with_a_capital(tmp_path: Path, form: str) -> None:
    async with opened(tmp_path) as p:
        await p.register("anna")
        device = await p.login(form, device_id="TELEFON", initial_device_display_name="Telefon")
        assert (device.user_id, device.device_id) == ("@anna:test.example", "TELEFON")
        who = await device.fine("GET", "/account/whoami")
        assert who == {"user_id": "@anna:test.example", "device_id": "TELEFON", "is_guest": False}


async def test_the_old_form_with_the_user_at_the_top_is_understood(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        await p.register("anna")
        await p.fine("POST", "/login", {"type": "m.login.password", "user": "anna", "password": PASSWORD})


async def test_whoever_cannot_show_the_password_gets_one_and_the_same_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        await p.register("anna")
        wrong = [
            await p.ask("POST", "/login", password_login("anna", "falsch")),
            await p.ask("POST", "/login", password_login("niemand")),
            await p.ask("POST", "/login", password_login("@anna:elsewhere.example")),
            await p.ask("POST", "/login", password_login("anna", "x" * 600)),
        ]
        assert {(got.status, got.errcode, got.body["error"]) for got in wrong} == {
            (403, "M_FORBIDDEN", "Invalid user name or password")
        }


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"type": "m.login.unheard-of"}, "M_UNKNOWN"),
        ({"type": 5}, "M_BAD_JSON"),
        ({"type": "m.login.password"}, "M_MISSING_PARAM"),
        ({**password_login("anna"), "password": ["x"]}, "M_BAD_JSON"),
        ({**password_login("anna"), "identifier": "anna"}, "M_BAD_JSON"),
        ({**password_login("anna"), "identifier": {"type": "m.id.thirdparty", "medium": "email"}}, "M_UNKNOWN"),
        ({**password_login("anna"), "identifier": {"type": "m.id.user"}}, "M_MISSING_PARAM"),
        ({**password_login("anna"), "device_id": ""}, "M_INVALID_PARAM"),
        ({**password_login("anna"), "device_id": "x" * 256}, "M_INVALID_PARAM"),
        ({"type": "m.login.token"}, "M_MISSING_PARAM"),
    ],
)
async def test_a_log_in_that_makes_no_sense_is_refused_in_words(tmp_path: Path, body: object, errcode: str) -> None:
    async with opened(tmp_path) as p:
        got = await p.ask("POST", "/login", body)
        assert (got.status, got.errcode) == (400, errcode)


async def test_an_unknown_user_costs_as_much_work_as_a_known_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        await p.register("anna")
        worked: list[str | None] = []
        run = p.people.passwords._run

        async def counted(password: str, stored: str | None) -> str:
            worked.append(stored)
            return await run(password, stored)

        p.people.passwords._run = counted  # type: ignore[method-assign]
        await p.ask("POST", "/login", password_login("anna", "falsch"))
        await p.ask("POST", "/login", password_login("niemand", "falsch"))
        assert [stored is None for stored in worked] == [False, True]


async def test_logging_in_again_as_the_same_device_ends_its_old_tokens_and_keeps_its_session(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        first = await p.register("anna", device_id="D")
        room = await first.room()
        sent = await first.fine("PUT", f"/rooms/{room}/send/m.room.message/t1", {"msgtype": "m.text", "body": "1"})
        again = await p.login("anna", device_id="D", refresh_token=True)
        got = await first.ask("GET", "/account/whoami")
        assert (got.status, got.errcode) == (401, "M_UNKNOWN_TOKEN") and "soft_logout" not in got.body
        message = {"msgtype": "m.text", "body": "1"}
        assert await again.fine("PUT", f"/rooms/{room}/send/m.room.message/t1", message) == sent
        fresh = await p.fine("POST", "/refresh", {"refresh_token": again.refresh})
        path = f"/rooms/{room}/send/m.room.message/t1"
        assert await p.fine("PUT", path, message, token=fresh["access_token"]) == sent


# -- refresh tokens ----------------------------------------------------------------------------------------------------


async def test_tokens_are_renewed_and_the_old_ones_live_until_the_new_are_used(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        device = await p.register("anna", refresh_token=True)
        lost = await p.fine("POST", "/refresh", {"refresh_token": device.refresh})
        assert lost["expires_in_ms"] == ACCESS_LIFETIME_MS and lost["refresh_token"] != device.refresh
        await device.fine("GET", "/account/whoami")
        kept = await p.fine("POST", "/refresh", {"refresh_token": device.refresh})  # the first answer was lost
        assert (await p.ask("GET", "/account/whoami", token=lost["access_token"])).status == 401
        await p.fine("GET", "/account/whoami", token=kept["access_token"])
        assert (await device.ask("GET", "/account/whoami")).errcode == "M_UNKNOWN_TOKEN"
        spent = await p.ask("POST", "/refresh", {"refresh_token": device.refresh})
        assert (spent.status, spent.errcode) == (401, "M_UNKNOWN_TOKEN") and "soft_logout" not in spent.body
        await p.fine("GET", "/account/whoami", token=kept["access_token"])


async def test_using_the_new_refresh_token_ends_the_old_one_too(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        device = await p.register("anna", refresh_token=True)
        second = await p.fine("POST", "/refresh", {"refresh_token": device.refresh})
        third = await p.fine("POST", "/refresh", {"refresh_token": second["refresh_token"]})
        assert (await p.ask("POST", "/refresh", {"refresh_token": device.refresh})).status == 401
        await p.fine("GET", "/account/whoami", token=third["access_token"])


async def test_parallel_refreshes_leave_one_living_pair(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        device = await p.register("anna", refresh_token=True)
        pairs = await asyncio.gather(*(p.fine("POST", "/refresh", {"refresh_token": device.refresh}) for _ in range(8)))
        tokens = [pair["access_token"] for pair in pairs]
        statuses = [(await p.ask("GET", "/account/whoami", token=token)).status for token in tokens]
        assert sorted(statuses) == [200] + [401] * 7


async def test_an_access_token_runs_out_softly(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        device, lasting = await p.register("anna", refresh_token=True), await p.login("anna")
        p.clock.now += ACCESS_LIFETIME_MS - 60_000
        await device.fine("GET", "/account/whoami")
        p.clock.now += 60_001
        got = await device.ask("GET", "/account/whoami")
        assert (got.status, got.errcode, got.body["soft_logout"]) == (401, "M_UNKNOWN_TOKEN", True)
        await lasting.fine("GET", "/account/whoami")
        fresh = await p.fine("POST", "/refresh", {"refresh_token": device.refresh})
        await p.fine("GET", "/account/whoami", token=fresh["access_token"])


# -- logging out -------------------------------------------------------------------------------------------------------


async def test_logging_out_removes_the_device_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        stays, goes = await p.register("anna", refresh_token=True), await p.login("anna", refresh_token=True)
        await goes.fine("POST", "/logout")
        assert (await goes.ask("GET", "/account/whoami")).errcode == "M_UNKNOWN_TOKEN"
        assert (await p.ask("POST", "/refresh", {"refresh_token": goes.refresh})).status == 401
        found = await stays.fine("GET", "/devices")
        assert [device["device_id"] for device in found["devices"]] == [stays.device_id]
        await p.login("anna")
        await stays.fine("POST", "/logout/all", {})
        assert (await stays.ask("GET", "/account/whoami")).status == 401
        assert await p.column("SELECT count(*) FROM token") == [0]


async def test_no_token_or_password_stands_in_the_database(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        device = await p.register("anna", refresh_token=True)
        login = (await device.confirmed("POST", "/_matrix/client/v1/login/get_token", {})).body["login_token"]
        openid = await device.fine("POST", f"/user/{device.user_id}/openid/request_token", {})
        await p.people.registration.add_token("Station-3-Neuzugang", 5, None)
        secrets = [device.token, device.refresh or "", login, openid["access_token"], PASSWORD, "Station-3-Neuzugang"]
        stored = _on_disk(tmp_path)
        assert b"@anna:test.example" in stored, "the search is not blind"
        assert not [secret for secret in secrets if secret.encode() in stored]
    stored = _on_disk(tmp_path)
    assert not [secret for secret in secrets if secret.encode() in stored]


def _on_disk(folder: Path) -> bytes:
    """Return the database with its log, as it lies there at this moment."""
    return b"".join(file.read_bytes() for file in sorted(folder.glob("schleuse.db*")))


# -- log-in tokens and the browser -------------------------------------------------------------------------------------


async def test_a_log_in_token_wants_the_password_and_works_once(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        flows = (await p.fine("GET", "/login"))["flows"]
        assert {"type": "m.login.token", "get_login_token": True} in flows
        assert "m.login.sso" not in {flow["type"] for flow in flows}
        refused = await anna.confirmed("POST", "/_matrix/client/v1/login/get_token", {}, "falsch")
        assert (refused.status, refused.errcode) == (401, "M_FORBIDDEN")
        got = (await anna.confirmed("POST", "/_matrix/client/v1/login/get_token", {})).body
        assert got["expires_in_ms"] == 120_000
        body = {"type": "m.login.token", "token": got["login_token"]}
        answers = await asyncio.gather(*(p.ask("POST", "/login", body) for _ in range(5)))
        assert sorted(answer.status for answer in answers) == [200, 403, 403, 403, 403]
        late = (await anna.confirmed("POST", "/_matrix/client/v1/login/get_token", {})).body["login_token"]
        p.clock.now += 120_001
        assert (await p.ask("POST", "/login", {"type": "m.login.token", "token": late})).status == 403


class Card:
    """A provider as the card log-in will be."""

    id, name, brand = "smcb", "Institutionskarte", None

    def __init__(self) -> None:
        self.states: list[str] = []

    async def begin(self, state: str) -> str:
        self.states.append(state)
        return f"https://klinik.example/anmelden/karte?state={state}"


async def test_without_a_provider_there_is_no_way_through_the_browser(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        got = await p.ask("GET", "/login/sso/redirect", redirectUrl="https://app.example/")
        assert (got.status, got.errcode) == (404, "M_NOT_FOUND")


async def test_a_browser_goes_to_the_provider_and_comes_back_with_a_token(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        await p.register("anna")
        card = Card()
        p.people.log_ins.sso = Sso(p.clock, p.people.log_ins.token_for, [card])
        flows = (await p.fine("GET", "/login"))["flows"]
        assert {"type": "m.login.sso", "identity_providers": [{"id": "smcb", "name": "Institutionskarte"}]} in flows
        target = "https://app.example/back?id=7&loginToken=forged#top"
        for path in ("/login/sso/redirect", "/login/sso/redirect/smcb"):
            got = await p.ask("GET", path, redirectUrl=target)
            assert got.status == 302 and "app.example" not in got.headers["Location"]
            assert got.headers["Location"] == f"https://klinik.example/anmelden/karte?state={card.states[-1]}"
            assert "HttpOnly" in got.headers["Set-Cookie"] and "SameSite=Lax" in got.headers["Set-Cookie"]
        cookie = re.match(r"schleuse_sso=([^;]+)", got.headers["Set-Cookie"])
        assert cookie is not None
        back = await p.people.log_ins.sso.returning(card.states[-1], cookie[1], UserId("@anna:test.example"))
        parts = urlsplit(back)
        query = parse_qs(parts.query)
        assert (parts.netloc, parts.path, parts.fragment, query["id"]) == ("app.example", "/back", "top", ["7"])
        assert len(query["loginToken"]) == 1 and query["loginToken"] != ["forged"]
        got = await p.ask("POST", "/login", {"type": "m.login.token", "token": query["loginToken"][0]})
        assert got.body["user_id"] == "@anna:test.example"
        with pytest.raises(Forbidden):
            await p.people.log_ins.sso.returning(card.states[-1], cookie[1], UserId("@anna:test.example"))


async def test_a_state_of_another_browser_or_an_old_one_leads_nowhere(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, card = UserId("@anna:test.example"), Card()
        sso = Sso(p.clock, p.people.log_ins.token_for, [card])
        for browser in ("somebody else's", "", None):
            departure = await sso.redirect("smcb", "https://app.example/")
            assert departure.browser not in repr(departure) and departure.browser not in departure.location
            with pytest.raises(Forbidden):
                await sso.returning(card.states[-1], browser, anna)
            with pytest.raises(Forbidden):  # and a failed attempt spends the state
                await sso.returning(card.states[-1], departure.browser, anna)
        departure = await sso.redirect(None, "https://app.example/")
        p.clock.now += LIFE_MS
        with pytest.raises(Forbidden):
            await sso.returning(card.states[-1], departure.browser, anna)


@pytest.mark.parametrize(
    "target",
    ["", "javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,x", "app.example/back", "https:///nowhere",
     "https://app.example/\r\nSet-Cookie: x=y", "java\tscript:alert(1)", "https://[::1/", "https://a/" + "x" * 2050],
)
async def test_a_browser_is_not_sent_to_an_address_that_does_harm(tmp_path: Path, target: str) -> None:
    async with opened(tmp_path) as p:
        p.people.log_ins.sso = Sso(p.clock, p.people.log_ins.token_for, [Card()])
        got = await p.ask("GET", "/login/sso/redirect", redirectUrl=target)
        assert (got.status, got.errcode) == (400, "M_INVALID_PARAM")
        assert (await p.ask("GET", V3 + "/login/sso/redirect")).errcode == "M_MISSING_PARAM"

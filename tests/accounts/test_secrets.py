"""What opens something is never printed: not by repr, not in a log, not in a traceback."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from appliance.accounts.login import Secret
from appliance.accounts.registration import Rules, Wish
from appliance.accounts.sso import Departure
from appliance.accounts.tokens import LoggedIn, LogInPlan, Pair
from appliance.accounts.uia import Confirmed, _Session
from appliance.matrix.ids import DeviceId, UserId
from appliance.store import accounts
from appliance.store.accounts import Account
from tests.accounts.practice import PASSWORD, opened, password_login

TOP = "streng-geheim"
PAIR = Pair(TOP, TOP, None)
ANNA, TABLET = UserId("@anna:test.example"), DeviceId("D")


@pytest.mark.parametrize(
    "value",
    [
        Secret(TOP),
        Wish("anna", TOP),
        Rules(secret=TOP),
        PAIR,
        LogInPlan(ANNA, TABLET, None, None, 0, PAIR),
        LoggedIn(ANNA, TABLET, TOP, TOP, None),
        Confirmed(TOP),
        _Session("id", "register", None, 0, [], TOP),
        Departure("https://klinik.example/", TOP),
        Account(ANNA, TOP, False, 0, False, False, False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_holds_a_secret_does_not_show_it(value: Any) -> None:
    assert TOP not in repr(value) and TOP not in str(value) and TOP not in f"{value}"


async def test_an_internal_error_logs_neither_password_nor_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as p:
        device = await p.register("anna", refresh_token=True)
        caplog.set_level(logging.DEBUG)

        def broken(*args: Any) -> None:
            raise RuntimeError("the writing function broke")

        monkeypatch.setattr(accounts, "find", broken)
        monkeypatch.setattr(p.people.devices, "of", broken)
        headers = {"Authorization": f"Bearer {device.token}"}
        base = f"http://{p.server.host}:{p.server.port}/_matrix/client/v3"
        for method, path, body in (
            ("POST", "/login", password_login("anna")),
            ("GET", f"/devices?access_token={device.token}", None),
        ):
            async with p.http.request(method, base + path, json=body, headers=headers) as answer:
                assert answer.status == 500
                assert await answer.json() == {"errcode": "M_UNKNOWN", "error": "Internal server error"}
        assert "the writing function broke" in caplog.text
        for secret in (PASSWORD, device.token, device.refresh):
            assert secret is not None and secret not in caplog.text

"""Logging in and out, and refreshing a log-in."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from appliance.accounts.devices import Devices
from appliance.accounts.login import LOGIN_TOKEN_MS, LogIns, Secret, Visit, unknown_type
from appliance.accounts.sso import LIFE_MS
from appliance.accounts.tokens import Tokens
from appliance.doors import fields
from appliance.doors.client.register import rendered
from appliance.doors.web import Access, Call, Route
from appliance.matrix import ids
from appliance.matrix.errors import MissingParam

CLIENT = "/_matrix/client/v3"
PASSWORD_LIMIT = 1024
URL_LIMIT = 2048
SSO_COOKIE = "schleuse_sso"
"""What a browser on its way to a provider carries, so that the log-in ends where it began (see `accounts.sso`)."""


def routes(log_ins: LogIns, tokens: Tokens, devices: Devices) -> list[Route]:
    """Return the operations around a log-in."""

    async def get_login(call: Call) -> dict[str, Any]:
        return {"flows": log_ins.flows()}

    async def post_login(call: Call) -> dict[str, Any]:
        body = await call.json()
        kind, visit = fields.string(body, "type"), _visit(body, call)
        if kind == "m.login.password":
            secret = Secret(fields.string(body, "password", maximum=PASSWORD_LIMIT))
            return rendered(await log_ins.with_password(_user(body), secret, visit))
        if kind == "m.login.token":
            return rendered(await log_ins.with_token(fields.string(body, "token"), visit))
        raise unknown_type()

    async def post_refresh(call: Call) -> dict[str, Any]:
        pair, life = await tokens.refresh(fields.string(await call.json(), "refresh_token"))
        answer: dict[str, Any] = {"access_token": pair.access, "refresh_token": pair.refresh}
        return answer if life is None else {**answer, "expires_in_ms": life}

    async def post_logout(call: Call) -> dict[str, Any]:
        await devices.log_out(call.requester)
        return {}

    async def post_logout_all(call: Call) -> dict[str, Any]:
        await devices.log_out_everywhere(call.requester.user_id)
        return {}

    return [
        Route("GET", CLIENT + "/login", get_login, access=Access.NONE),
        Route("POST", CLIENT + "/login", post_login, access=Access.NONE, rate="login"),
        Route("POST", CLIENT + "/refresh", post_refresh, access=Access.NONE, rate="login"),
        Route("POST", CLIENT + "/logout", post_logout, access=Access.ACCOUNT),
        Route("POST", CLIENT + "/logout/all", post_logout_all, access=Access.ACCOUNT),
        *_token_routes(log_ins),
    ]


def _token_routes(log_ins: LogIns) -> list[Route]:
    """The ways to a log-in token: from another device, and through a browser."""

    async def post_token(call: Call) -> dict[str, Any]:
        auth = fields.optional_mapping(await call.json(optional=True), "auth")
        token = await log_ins.request_token(call.requester, auth)
        return {"login_token": token, "expires_in_ms": LOGIN_TOKEN_MS}

    async def get_redirect(call: Call) -> web.StreamResponse:
        target = fields.string({"redirectUrl": call.query("redirectUrl")}, "redirectUrl", maximum=URL_LIMIT)
        provider = call.request.match_info.get("provider")
        departure = await log_ins.sso.redirect(provider, target)
        answer = web.Response(status=302, headers={"Location": departure.location, "Cache-Control": "no-store"})
        answer.set_cookie(
            SSO_COOKIE, departure.browser, max_age=LIFE_MS // 1000, path="/", httponly=True, samesite="Lax",
            secure=call.request.secure,
        )
        return answer

    return [
        Route("POST", "/_matrix/client/v1/login/get_token", post_token, rate="login"),
        Route("GET", CLIENT + "/login/sso/redirect", get_redirect, access=Access.NONE),
        Route("GET", CLIENT + "/login/sso/redirect/{provider}", get_redirect, access=Access.NONE),
    ]


def _user(body: dict[str, Any]) -> str:
    identifier = fields.optional_mapping(body, "identifier")
    if identifier is None:
        return fields.string(body, "user")
    if fields.string(identifier, "type") != "m.id.user":
        raise unknown_type()
    if "user" not in identifier:
        raise MissingParam("Missing user in identifier")
    return fields.string(identifier, "user")


def _visit(body: dict[str, Any], call: Call) -> Visit:
    device_id = fields.optional_string(body, "device_id")
    return Visit(
        device_id=ids.device_id(device_id) if device_id is not None else None,
        device_name=fields.optional_string(body, "initial_device_display_name"),
        refreshable=fields.boolean(body, "refresh_token", False),
        ip=call.request.remote,
    )

"""Making accounts: by the person, or by a laboratory's tool that knows the shared secret."""

from __future__ import annotations

from typing import Any

from appliance.accounts.registration import Registration, Wish
from appliance.accounts.tokens import LoggedIn
from appliance.doors import fields
from appliance.doors.web import Access, Call, Route
from appliance.matrix import ids
from appliance.matrix.errors import InvalidParam
from appliance.matrix.ids import UserId

CLIENT = "/_matrix/client"
PASSWORD_LIMIT = 1024


def routes(registration: Registration, shared_secret: bool) -> list[Route]:
    """Return the operations that make accounts; `shared_secret` adds the laboratory's door."""

    async def post_register(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        if call.query_choice("kind", ("user", "guest"), "user") == "guest":
            raise InvalidParam("Guests are not admitted here", status=403, errcode="M_GUEST_ACCESS_FORBIDDEN")
        auth = fields.optional_mapping(body, "auth")
        return rendered(await registration.register(_wish(body, call), auth))

    async def get_available(call: Call) -> dict[str, Any]:
        await registration.available(fields.string({"username": call.query("username")}, "username"))
        return {"available": True}

    async def get_validity(call: Call) -> dict[str, Any]:
        token = fields.string({"token": call.query("token")}, "token")
        return {"valid": await registration.token_valid(token)}

    return [
        Route("POST", CLIENT + "/v3/register", post_register, access=Access.NONE, rate="register"),
        Route("GET", CLIENT + "/v3/register/available", get_available, access=Access.NONE, rate="name_check"),
        Route("GET", CLIENT + "/v1/register/m.login.registration_token/validity", get_validity, access=Access.NONE,
              rate="name_check"),
        *(_secret_routes(registration) if shared_secret else []),
    ]


def _secret_routes(registration: Registration) -> list[Route]:
    async def get_nonce(call: Call) -> dict[str, Any]:
        return {"nonce": registration.nonce()}

    async def post_secret(call: Call) -> dict[str, Any]:
        body = await call.json()
        wish = _wish(body, call)
        return rendered(await registration.register_with_secret(
            fields.string(body, "nonce"), wish, admin=fields.boolean(body, "admin", False),
            user_type=fields.optional_string(body, "user_type"), mac=fields.string(body, "mac"),
            display_name=fields.optional_string(body, "displayname"),
        ))

    laboratory = "/_synapse/admin/v1/register"
    return [
        Route("GET", laboratory, get_nonce, access=Access.NONE, rate="provision"),
        Route("POST", laboratory, post_secret, access=Access.NONE, rate="provision"),
    ]


def _wish(body: dict[str, Any], call: Call) -> Wish:
    device_id = fields.optional_string(body, "device_id")
    return Wish(
        fields.optional_string(body, "username"),
        fields.optional_string(body, "password", maximum=PASSWORD_LIMIT),
        device_id=ids.device_id(device_id) if device_id is not None else None,
        device_name=fields.optional_string(body, "initial_device_display_name"),
        inhibit_login=fields.boolean(body, "inhibit_login", False),
        refreshable=fields.boolean(body, "refresh_token", False),
        ip=call.request.remote,
    )


def rendered(result: LoggedIn | UserId) -> dict[str, Any]:
    """Return a log-in as clients get it; only the user id of an account made without one."""
    if isinstance(result, str):
        return {"user_id": result, "home_server": ids.server_of(result)}
    answer: dict[str, Any] = {
        "user_id": result.user_id,
        "home_server": ids.server_of(result.user_id),
        "access_token": result.access_token,
        "device_id": result.device_id,
    }
    if result.refresh_token is not None:
        answer["refresh_token"] = result.refresh_token
    if result.expires_in_ms is not None:
        answer["expires_in_ms"] = result.expires_in_ms
    return answer

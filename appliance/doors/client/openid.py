"""Tokens that tell a third party who a user is, and open nothing."""

from __future__ import annotations

from typing import Any

from appliance.accounts.devices import require_own
from appliance.accounts.openid import OpenId
from appliance.doors.web import Call, Route
from appliance.matrix.ids import ServerName

SECONDS = 3600


def routes(openid: OpenId, server: ServerName) -> list[Route]:
    """Return the one operation."""

    async def post(call: Call) -> dict[str, Any]:
        await call.json(optional=True)
        require_own(call.requester, call.path("user_id"))
        token = await openid.issue(call.requester.user_id)
        return {"access_token": token, "expires_in": SECONDS, "matrix_server_name": server, "token_type": "Bearer"}

    return [Route("POST", "/_matrix/client/v3/user/{user_id}/openid/request_token", post)]

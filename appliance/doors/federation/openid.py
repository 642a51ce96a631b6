"""Whose OpenID token this is, for third parties that somebody proves their identity to.

Source: server-server API, "OpenID".
"""

from __future__ import annotations

from typing import Any

from appliance.accounts.openid import OpenId
from appliance.doors.web import Access, Call, Route
from appliance.matrix.errors import MissingToken

TOKEN_LENGTH = 255


def routes(openid: OpenId) -> list[Route]:
    """List the one operation; it needs no signature: the token is the proof."""

    async def userinfo(call: Call) -> dict[str, Any]:
        token = call.query("access_token")
        if not token:
            raise MissingToken("Missing access token")
        return {"sub": await openid.user(token[:TOKEN_LENGTH])}

    return [Route("GET", "/_matrix/federation/v1/openid/userinfo", userinfo, Access.NONE, rate="keys")]

"""The account as a whole: who am I, password, closing; and what this server can do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.accounts.account import Accounts
from appliance.doors import fields
from appliance.doors.web import Access, Call, Route

CLIENT = "/_matrix/client/v3"
PASSWORD_LIMIT = 1024


def routes(accounts: Accounts, creatable: Sequence[str], default_version: str) -> list[Route]:
    """Return the operations on one's own account; the room versions are told as capabilities."""
    async def get_whoami(call: Call) -> dict[str, Any]:
        requester = call.requester
        return {"user_id": requester.user_id, "device_id": requester.device_id, "is_guest": requester.is_guest}

    async def post_password(call: Call) -> dict[str, Any]:
        body = await call.json()
        new = fields.string(body, "new_password", maximum=PASSWORD_LIMIT)
        others = fields.boolean(body, "logout_devices", True)
        await accounts.change_password(call.visitor, new, others, fields.optional_mapping(body, "auth"))
        return {}

    async def post_deactivate(call: Call) -> dict[str, Any]:
        body = await call.json(optional=True)
        erase = fields.boolean(body, "erase", False)
        await accounts.deactivate(call.visitor, erase, fields.optional_mapping(body, "auth"))
        return {"id_server_unbind_result": "no-support"}

    return [
        Route("GET", CLIENT + "/account/whoami", get_whoami),
        Route("POST", CLIENT + "/account/password", post_password, access=Access.OPTIONAL, rate="login"),
        Route("POST", CLIENT + "/account/deactivate", post_deactivate, access=Access.OPTIONAL, rate="login"),
        *_facts(creatable, default_version),
    ]


def _facts(creatable: Sequence[str], default_version: str) -> list[Route]:
    """What is the same for everybody."""
    capabilities = {
        "m.change_password": {"enabled": True},
        "m.room_versions": {"default": default_version, "available": dict.fromkeys(creatable, "stable")},
        "m.set_displayname": {"enabled": True},
        "m.set_avatar_url": {"enabled": True},
        "m.3pid_changes": {"enabled": False},
        "m.get_login_token": {"enabled": True},
        "m.profile_fields": {"enabled": True},
    }

    async def get_capabilities(call: Call) -> dict[str, Any]:
        return {"capabilities": capabilities}

    async def get_threepids(call: Call) -> dict[str, Any]:
        return {"threepids": []}

    async def get_turn_server(call: Call) -> dict[str, Any]:
        # No relay is installed: a well-formed answer that names none. Calls work where devices reach each other.
        return {"username": "", "password": "", "uris": [], "ttl": 86_400}

    return [
        Route("GET", CLIENT + "/capabilities", get_capabilities),
        Route("GET", CLIENT + "/account/3pid", get_threepids),
        Route("GET", CLIENT + "/voip/turnServer", get_turn_server),
    ]

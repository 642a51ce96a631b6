"""Creating and upgrading rooms."""

from __future__ import annotations

from typing import Any

from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.matrix import ids
from appliance.matrix.errors import BadJson, InvalidParam, MissingParam
from appliance.matrix.ids import ServerName
from appliance.rooms import create, upgrade
from appliance.rooms.author import Author
from appliance.rooms.create import PRESETS, Founding, Wish

INVITES = 100
INITIAL_STATE = 200


def routes(author: Author, founding: Founding) -> list[Route]:
    """Return the operations that bring rooms into being."""

    async def post_create(call: Call) -> dict[str, Any]:
        wish = _wish(await call.json(optional=True), author.server)
        return {"room_id": await create.create(author, founding, call.requester, wish)}

    async def post_upgrade(call: Call) -> dict[str, Any]:
        version = fields.string(await call.json(), "new_version")
        room_id = ids.room_id(call.path("room_id"))
        return {"replacement_room": await upgrade.upgrade(author, founding, call.requester, room_id, version)}

    return [
        Route("POST", "/_matrix/client/v3/createRoom", post_create, rate="create_room"),
        Route("POST", "/_matrix/client/v3/rooms/{room_id}/upgrade", post_upgrade, rate="create_room"),
    ]


def _wish(body: dict[str, Any], server: ServerName) -> Wish:
    if body.get("invite_3pid"):
        raise InvalidParam("Invitations by e-mail or telephone are not offered here")
    public = fields.choice(body, "visibility", ("public", "private"), "private") == "public"
    preset = fields.choice(body, "preset", tuple(PRESETS), "public_chat" if public else "private_chat")
    invite = fields.optional_strings(body, "invite", maximum=INVITES) or ()
    return Wish(
        PRESETS[preset],
        version=fields.optional_string(body, "room_version"),
        alias=_alias(body, server),
        name=fields.optional_string(body, "name", maximum=10_000),
        topic=fields.optional_string(body, "topic", maximum=30_000),
        invite=tuple(dict.fromkeys(ids.user_id(user) for user in invite)),
        is_direct=fields.boolean(body, "is_direct", False),
        public=public,
        creation_content=fields.optional_mapping(body, "creation_content") or {},
        initial_state=_initial_state(body),
        power_levels=fields.optional_mapping(body, "power_level_content_override") or {},
    )


def _alias(body: dict[str, Any], server: ServerName) -> str | None:
    localpart = fields.optional_string(body, "room_alias_name")
    if localpart is None:
        return None
    if ":" in localpart or "\0" in localpart or not localpart:
        raise InvalidParam("room_alias_name must be the part between # and :")
    return ids.room_alias(f"#{localpart}:{server}")


def _initial_state(body: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    if body.get("initial_state") is None:
        return []
    entries = []
    for entry in fields.array(body, "initial_state", maximum=INITIAL_STATE):
        if not isinstance(entry, dict):
            raise BadJson("initial_state must be a list of objects")
        if "content" not in entry:
            raise MissingParam("Missing content in initial_state")
        state_key = fields.optional_string(entry, "state_key") or ""
        entries.append((fields.string(entry, "type"), state_key, fields.mapping(entry, "content")))
    return entries

"""The form of a PDU: which fields it needs, of which kind, and how large it may be.

Sources: room versions, "Event format"; client-server API, "Size limits".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from appliance.matrix.canonical import Json
from appliance.matrix.errors import BadJson, MatrixError
from appliance.matrix.ids import fits, is_room_id, is_user_id
from appliance.matrix.versions import RoomVersion

MAX_EVENT_BYTES: Final = 65536
"""Largest event in canonical form, signatures included."""
MAX_PREV_EVENTS: Final = 20
MAX_AUTH_EVENTS: Final = 10


class BadEvent(BadJson):
    """A PDU that does not have the form its room version prescribes; it is dropped."""


def check_lengths(pdu: Mapping[str, Json], error: type[MatrixError]) -> None:
    """Raise the given error unless all fields with a size limit keep it; the lists of parents must be there."""
    for name in ("type", "state_key", "sender", "room_id", "redacts"):
        value = pdu.get(name)
        if isinstance(value, str) and not fits(value):
            raise error(f"{name} is longer than 255 bytes")
    for name, most in (("prev_events", MAX_PREV_EVENTS), ("auth_events", MAX_AUTH_EVENTS)):
        if len(cast("list[str]", pdu[name])) > most:
            raise error(f"more than {most} {name}")


def check_format(pdu: Mapping[str, Json], version: RoomVersion) -> None:
    """Raise `BadEvent` unless every field has the type and grammar of the room version's PDU schema."""
    if not isinstance(pdu.get("type"), str) or not is_user_id(pdu.get("sender")):
        raise BadEvent("The event has no type or no valid sender")
    if "state_key" in pdu and not isinstance(pdu["state_key"], str):
        raise BadEvent("state_key is not a string")
    if not (version.room_id_is_hash and pdu["type"] == "m.room.create") and not is_room_id(pdu.get("room_id")):
        raise BadEvent("The event has no valid room_id")
    for name in ("content", "hashes", "signatures"):
        if not isinstance(pdu.get(name), dict):
            raise BadEvent(f"{name} is not an object")
    if "unsigned" in pdu and not isinstance(pdu["unsigned"], dict):
        raise BadEvent("unsigned is not an object")
    for name in ("origin_server_ts", "depth"):
        if type(pdu.get(name)) is not int:
            raise BadEvent(f"{name} is not an integer")
    if cast("int", pdu["depth"]) < 0:
        raise BadEvent("depth is negative")
    for name in ("prev_events", "auth_events"):
        entries = pdu.get(name)
        if not isinstance(entries, list) or not all(isinstance(entry, str) and fits(entry) for entry in entries):
            raise BadEvent(f"{name} is not a list of event ids")
    if not isinstance(cast("Mapping[str, Json]", pdu["hashes"]).get("sha256"), str):
        raise BadEvent("The event has no sha256 hash")

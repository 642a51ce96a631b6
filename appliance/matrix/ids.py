"""Matrix identifiers: parse once at the door, trust inside.

The grammar accepts what the specification tells servers to accept from others (historical user ids, room ids with and
without a domain, opaque event ids). What we hand out ourselves is stricter: see `new_user_id`.

Source: appendices, "Identifier Grammar".
"""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Final, NewType

from appliance.matrix.errors import InvalidParam

ServerName = NewType("ServerName", str)
UserId = NewType("UserId", str)
RoomId = NewType("RoomId", str)
RoomAlias = NewType("RoomAlias", str)
EventId = NewType("EventId", str)
DeviceId = NewType("DeviceId", str)

MAX_BYTES: Final = 255
"""Longest identifier, sigil and domain included, in bytes of UTF-8."""

_SERVER: Final = r"(?:\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z.-]{1,255})(?::[0-9]{1,5})?"
_OPAQUE: Final = "[^:\x00\ud800-\udfff]"
_SERVER_NAME: Final = re.compile(_SERVER)
_USER_ID: Final = re.compile(f"@{_OPAQUE}*:{_SERVER}")
_ROOM_ID: Final = re.compile(f"!(?:{_OPAQUE}+:{_SERVER}|[0-9A-Za-z_-]{{43}})")
_ROOM_ALIAS: Final = re.compile(f"#{_OPAQUE}*:{_SERVER}")
_EVENT_ID: Final = re.compile("\\$[^\x00\ud800-\udfff]+")
_DEVICE_ID: Final = re.compile("[^\x00\ud800-\udfff]+")
_NEW_LOCALPART: Final = re.compile(r"[a-z0-9._=/+-]+")
_IPV4_SHAPE: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")


def fits(text: str) -> bool:
    """Tell whether the text is at most 255 bytes of UTF-8 (lone surrogates never fit)."""
    if text.isascii():
        return len(text) <= MAX_BYTES
    try:
        return len(text.encode()) <= MAX_BYTES
    except UnicodeEncodeError:
        return False


def is_user_id(text: object) -> bool:
    """Tell whether the value is a user id as events may carry it: historical localparts included."""
    return isinstance(text, str) and _USER_ID.fullmatch(text) is not None and fits(text)


def is_room_id(text: object) -> bool:
    """Tell whether the value is a room id of any room version."""
    return isinstance(text, str) and _ROOM_ID.fullmatch(text) is not None and fits(text)


def _parsed(text: object, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(text, str) or pattern.fullmatch(text) is None or not fits(text):
        raise InvalidParam(f"Not a valid {what}")
    return text


def user_id(text: object) -> UserId:
    """Return the value as a user id; `InvalidParam` when it is none."""
    return UserId(_parsed(text, _USER_ID, "user id"))


def room_id(text: object) -> RoomId:
    """Return the value as a room id (with a domain, or the bare hash of room version 12); `InvalidParam` otherwise."""
    return RoomId(_parsed(text, _ROOM_ID, "room id"))


def room_alias(text: object) -> RoomAlias:
    """Return the value as a room alias; `InvalidParam` when it is none."""
    return RoomAlias(_parsed(text, _ROOM_ALIAS, "room alias"))


def event_id(text: object) -> EventId:
    """Return the value as an event id (opaque after its sigil); `InvalidParam` when it is none."""
    return EventId(_parsed(text, _EVENT_ID, "event id"))


def device_id(text: object) -> DeviceId:
    """Return the value as a device id (opaque, not empty); `InvalidParam` when it is none."""
    return DeviceId(_parsed(text, _DEVICE_ID, "device id"))


def server_name(text: object) -> ServerName:
    """Return the value as a server name one could connect to; `InvalidParam` when it is none.

    Stricter than the pure grammar inside ids of others: octets up to 255, a real IPv6 literal, ports up to 65535.
    """
    name = _parsed(text, _SERVER_NAME, "server name")
    if not _addressable(name):
        raise InvalidParam("Not a valid server name")
    return ServerName(name)


@lru_cache(maxsize=4096)
def _addressable(name: str) -> bool:
    host, port = split_port(name)
    if port is not None and port > 65535:
        return False
    try:
        if host.startswith("["):
            ipaddress.IPv6Address(host[1:-1])
        elif _IPV4_SHAPE.fullmatch(host):
            return all(int(octet) <= 255 for octet in host.split("."))
    except ValueError:
        return False
    return True


def split_port(name: str) -> tuple[str, int | None]:
    """Split a server name into host (brackets of an IPv6 literal kept) and port, None where no port is given."""
    host, colon, port = name.rpartition(":")
    if not colon or not host or host.startswith("[") != host.endswith("]"):
        return name, None
    return host, int(port)


def new_user_id(localpart: str, server: ServerName) -> UserId:
    """Return the id of a new local account; `InvalidParam` unless it obeys the current, narrow grammar."""
    if _NEW_LOCALPART.fullmatch(localpart) is None:
        raise InvalidParam("User names may contain only a-z, 0-9 and ._=-/+", errcode="M_INVALID_USERNAME")
    text = f"@{localpart}:{server}"
    if not fits(text):
        raise InvalidParam("The user name is too long", errcode="M_INVALID_USERNAME")
    return UserId(text)


def server_of(identifier: str) -> ServerName:
    """Return the server part of a user id, room id or alias; `InvalidParam` for an id that has none."""
    _, colon, server = identifier.partition(":")
    if not colon:
        raise InvalidParam("The identifier names no server")
    return ServerName(server)


def localpart(identifier: str) -> str:
    """Return what stands between the sigil and the first colon."""
    return identifier[1:].partition(":")[0]

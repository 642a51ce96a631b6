"""Aliases and the public directory.

A local alias can be made by anybody in the room, and removed by who made it, by whoever may change the room's
canonical alias, or by an administrator. Publishing a room needs the power to change the canonical alias. Whether
there may be public rooms at all is a value of the profile.

Source: client-server API, "Room aliases", "Published room directory".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from appliance.matrix import versions
from appliance.matrix.errors import Forbidden, InvalidParam, NotFound, Unknown
from appliance.matrix.power import Power
from appliance.matrix.requester import Requester, require_active
from appliance.rooms.access import require_member, require_room
from appliance.rooms.summary import Facts, facts, listing
from appliance.store import directory, events, rooms
from appliance.store.readers import Rx
from appliance.store.rooms import RoomRow
from appliance.store.writer import Tx

DEFAULT_LIMIT: Final = 100
MAX_LIMIT: Final = 500
MAX_SCAN: Final = 5_000
"""Published rooms that one filtered page looks at."""
MAX_SERVERS: Final = 20
MAX_ALIASES_PER_ROOM: Final = 200

_SINCE: Final = re.compile(r"d(\d{1,9})", re.ASCII)
_CANONICAL: Final = "m.room.canonical_alias"


def resolve(rx: Rx, alias: str, server: str) -> dict[str, Any]:
    """Return the room behind a local alias and servers that know it, our own first; raises `NotFound`."""
    room = rooms.alias_target(rx, alias)
    if room is None:
        raise NotFound(f"Room alias {alias} not found")
    others = [name for name in directory.servers_of(rx, room.rid, MAX_SERVERS) if name != server]
    return {"room_id": room.room_id, "servers": [server, *others]}


def add(tx: Tx, requester: Requester, alias: str, room_id: str, now: int) -> None:
    """Let a new alias point to a room the requester is in; raises `Forbidden`, 409 for a taken one."""
    require_active(requester)
    room = require_member(tx, requester.user_id, room_id)
    if len(directory.aliases_of(tx, room.rid)) >= MAX_ALIASES_PER_ROOM:
        raise Forbidden("The room has too many aliases")
    if not rooms.add_alias(tx, alias, room.rid, requester.user_id, now):
        raise Unknown(f"Room alias {alias} already exists", status=409)


def remove(tx: Tx, requester: Requester, alias: str) -> None:
    """Free an alias; raises `NotFound`, `Forbidden`. The canonical alias event is left to the room's people."""
    require_active(requester)
    found = directory.alias(tx, alias)
    if found is None:
        raise NotFound(f"Room alias {alias} not found")
    if found.creator != requester.user_id and not requester.is_admin:
        room = rooms.alias_target(tx, alias)
        if room is None or not _manages(tx, requester, room):
            raise Forbidden("You may not remove this alias")
    directory.remove_alias(tx, alias)


def _manages(rx: Rx | Tx, requester: Requester, room: RoomRow) -> bool:
    """Tell whether somebody is joined and may change the canonical alias."""
    standing = rooms.membership(rx, requester.user_id, room.rid)
    if standing is None or standing.membership != "join":
        return False
    keys = [("m.room.create", ""), ("m.room.power_levels", "")]
    state = {row.event.type: row.event for row in events.current_events(rx, room.rid, keys)}
    power = Power(versions.get(room.version), state.get(keys[0][0]), state.get(keys[1][0]))
    return power.of(requester.user_id) >= power.event_level(_CANONICAL, True)


def visibility(rx: Rx, room_id: str) -> dict[str, Any]:
    """Return whether a room is published; raises `NotFound`."""
    room = require_room(rx, room_id)
    return {"visibility": "public" if directory.is_published(rx, room.rid) else "private"}


def set_visibility(tx: Tx, requester: Requester, room_id: str, public: bool) -> None:
    """Publish a room or withdraw it; raises `NotFound`, `Forbidden`."""
    require_active(requester)
    room = require_room(tx, room_id)
    if not requester.is_admin and not _manages(tx, requester, room):
        raise Forbidden("You may not change whether this room is published")
    if public:
        rooms.publish(tx, room.rid)
    else:
        directory.withdraw(tx, room.rid)


# -- the public directory --------------------------------------------------------------------------------------------


class Listing(msgspec.Struct, frozen=True):
    """A request for a part of the directory. `room_types` None means all; a None inside it means rooms without a
    type.
    """

    limit: int = DEFAULT_LIMIT
    since: str | None = None
    term: str = ""
    room_types: Sequence[str | None] | None = None


def published(rx: Rx, wanted: Listing) -> dict[str, Any]:
    """Return a page of the directory, the largest rooms first; raises `InvalidParam` for a strange token."""
    start = _start(wanted.since)
    everything = directory.published(rx)
    result: dict[str, Any] = {"chunk": [], "total_room_count_estimate": len(everything)}
    for index, found in _matching(rx, everything, start, wanted):
        if len(result["chunk"]) == wanted.limit:
            result["next_batch"] = f"d{index}"
            break
        result["chunk"].append(listing(found))
    if start > 0:
        result["prev_batch"] = f"d{max(0, start - wanted.limit)}"
    return result


def _start(since: str | None) -> int:
    if since is None:
        return 0
    match = _SINCE.fullmatch(since)
    if match is None:
        raise InvalidParam("Unknown pagination token")
    return int(match[1])


def _matching(
    rx: Rx, everything: Sequence[tuple[int, int]], start: int, wanted: Listing
) -> Iterator[tuple[int, Facts]]:
    known = rooms.by_rid(rx, [rid for rid, _ in everything[start : start + MAX_SCAN]])
    term = wanted.term.casefold()
    for index, (rid, joined) in enumerate(everything[start : start + MAX_SCAN], start):
        room = known.get(rid)
        if room is None or room.sid is None:
            continue
        found = facts(rx, room, joined)
        if wanted.room_types is not None and found.text("m.room.create", "type") not in wanted.room_types:
            continue
        if term and not any(term in text for text in _texts(found)):
            continue
        yield index, found


def _texts(found: Facts) -> Iterator[str]:
    entry = listing(found)
    for name in ("name", "topic", "canonical_alias", "room_id"):
        yield str(entry.get(name, "")).casefold()

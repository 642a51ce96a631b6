"""Walking a space: the rooms below it, depth first.

The walk is repeated for every page and skips what was already given; it is bounded by `MAX_ROOMS`, so a page deep
inside costs no more than the whole walk, and the token needs no memory on this side: it holds how many rooms were
given and the parameters, which must not change between pages. Each room appears once, which also breaks loops.

Source: client-server API, "Spaces", `GET /rooms/{roomId}/hierarchy`, "Ordering of children within a space".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from appliance.matrix.errors import Forbidden, InvalidParam
from appliance.matrix.ids import is_room_id
from appliance.rooms import summary
from appliance.rooms.summary import Facts
from appliance.store import rooms, timeline
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.rooms import Membership

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 50
MAX_DEPTH: Final = 10
MAX_ROOMS: Final = 1_000
"""Rooms visited in one walk, those the requester may not know included."""
MAX_CHILDREN: Final = 500
"""Children of one space that are shown."""

_TOKEN: Final = re.compile(r"h(\d{1,6})_(\d{1,4})_([01])", re.ASCII)
_ORDER: Final = re.compile(r"[\x20-\x7e]{1,50}")


class Walk(msgspec.Struct, frozen=True):
    """A request for a part of the tree; `skip` rooms were given before."""

    limit: int = DEFAULT_LIMIT
    max_depth: int = MAX_DEPTH
    suggested_only: bool = False
    skip: int = 0

    def token(self, given: int) -> str:
        """Return the token to go on after `given` rooms."""
        return f"h{given}_{self.max_depth}_{int(self.suggested_only)}"


def resume(walk: Walk, token: str | None) -> Walk:
    """Return the walk from where `token` says; raises `InvalidParam` for other parameters than those of the first
    page.
    """
    if token is None:
        return walk
    match = _TOKEN.fullmatch(token)
    if match is None:
        raise InvalidParam("Unknown pagination token")
    if (int(match[2]), match[3] == "1") != (walk.max_depth, walk.suggested_only):
        raise InvalidParam("suggested_only and max_depth cannot change on paginated requests")
    return Walk(walk.limit, walk.max_depth, walk.suggested_only, min(int(match[1]), MAX_ROOMS))


def hierarchy(rx: Rx, user_id: str, room_id: str, walk: Walk) -> dict[str, Any]:
    """Return a page of the tree below a space; raises `Forbidden` if the user may not know the space itself."""
    tree = _Tree(rx, user_id, walk)
    if tree.known(room_id) is None:
        raise Forbidden("You are not allowed to view this room")
    found: list[dict[str, Any]] = []
    for number, entry in enumerate(tree.below(room_id)):
        if number < walk.skip:
            continue
        if len(found) == walk.limit:
            return {"rooms": found, "next_batch": walk.token(number)}
        found.append(entry())
    return {"rooms": found}


class _Entry:
    """One room of the answer, put into words only if it is on the page."""

    __slots__ = ("_children", "_facts")

    def __init__(self, facts: Facts, children: list[Row]) -> None:
        self._facts = facts
        self._children = children

    def __call__(self) -> dict[str, Any]:
        return {**summary.summary(self._facts), "children_state": [_child_state(row) for row in self._children]}


def _child_state(row: Row) -> dict[str, Any]:
    event = row.event
    return {
        "type": event.type,
        "state_key": event.state_key,
        "content": event.content,
        "sender": event.sender,
        "origin_server_ts": event.origin_server_ts,
    }


class _Tree:
    def __init__(self, rx: Rx, user_id: str, walk: Walk) -> None:
        self._rx = rx
        self._walk = walk
        self._mine: Mapping[str, Membership] = {m.room_id: m for m in rooms.memberships(rx, user_id)}
        self._joined = [room_id for room_id, m in self._mine.items() if m.membership == "join"]

    def known(self, room_id: str) -> Facts | None:
        """Return a room if this server has its state and the user may know of it."""
        room = rooms.find(self._rx, room_id)
        if room is None or room.sid is None:
            return None
        facts = summary.facts(self._rx, room)
        return facts if summary.may_know(self._rx, facts, self._mine.get(room.room_id), self._joined) else None

    def below(self, root: str) -> Iterator[_Entry]:
        """Yield the tree, parents before their children, every room once."""
        stack: list[tuple[str, int]] = [(root, 0)]
        seen: set[str] = set()
        while stack and len(seen) < MAX_ROOMS:
            room_id, depth = stack.pop()
            if room_id in seen:
                continue
            seen.add(room_id)
            facts = self.known(room_id)
            if facts is None:
                continue
            children = self._children(facts) if facts.is_space else []
            if depth < self._walk.max_depth:
                stack += [(str(row.event.state_key), depth + 1) for row in reversed(children)]
            yield _Entry(facts, children)

    def _children(self, facts: Facts) -> list[Row]:
        rows = timeline.state_of_type(self._rx, facts.room.rid, "m.space.child", MAX_CHILDREN)
        valid = [row for row in rows if _is_child(row, self._walk.suggested_only)]
        return sorted(valid, key=_place)


def _is_child(row: Row, suggested_only: bool) -> bool:
    content = row.event.content
    if not isinstance(content.get("via"), list) or not is_room_id(row.event.state_key):
        return False
    return not suggested_only or content.get("suggested") is True


def _place(row: Row) -> tuple[bool, str, int, str]:
    order = row.event.content.get("order")
    valid = isinstance(order, str) and _ORDER.fullmatch(order) is not None
    return not valid, str(order) if valid else "", row.event.origin_server_ts, str(row.event.state_key)

"""Who may see which event: history visibility.

The rule looks at the room's state *at the event*: the visibility that held, and whether the viewer was invited or
joined. A room's messages mostly share one state, and in most rooms nothing stricter than `shared` was ever set; then
somebody who is joined sees everything and no state is read at all. `Sight` is one person's view of one room during
one read and remembers what it looked up.

    visibility at the event    viewer at the event    viewer later      sees it
    world_readable             any                    any               yes
    any                        join                   any               yes
    shared                     any                    joins             yes
    invited                    invite                 joins             yes
    otherwise                                                           no

Events that change the visibility count with the value before or after them, a person's own membership events with the
membership before or after.

Source: client-server API, "Room History Visibility", server behaviour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import orjson

from appliance.store import account_data, events, rooms, timeline
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.rooms import Membership
from appliance.store.writer import Tx

WORLD_READABLE: Final = "world_readable"
SHARED: Final = "shared"
INVITED: Final = "invited"
JOINED: Final = "joined"

_KNOWN: Final = frozenset({WORLD_READABLE, SHARED, INVITED, JOINED})
_OPEN: Final = frozenset({WORLD_READABLE, SHARED})
_FOR_EVER: Final = 2**62
_CHAIN: Final = 100
"""Membership events of one person that are walked back to find when they were last joined."""
_MAX_IGNORED: Final = 10_000


class Moment(msgspec.Struct, frozen=True):
    """What the state at an event says about a viewer: the history visibility and the viewer's membership."""

    visibility: str
    membership: str


def understood(value: object) -> str:
    """Return a history visibility as it counts: what is missing or unknown means `shared`."""
    return value if isinstance(value, str) and value in _KNOWN else SHARED


def visible(rx: Rx | Tx, rows: Sequence[Row], user_id: str | None, rid: int) -> list[Row]:
    """Return those of the events of one room that the user may see, in the given order. None: somebody anonymous."""
    return Sight(rx, rid, user_id).only(rows)


def ignored(rx: Rx | Tx, user_id: str) -> frozenset[str]:
    """Return whom the user ignores (`m.ignored_user_list`); the user themself cannot be ignored."""
    raw = account_data.get(rx, user_id, account_data.GLOBAL, "m.ignored_user_list")
    users = orjson.loads(raw).get("ignored_users") if raw else None
    return frozenset(list(users)[:_MAX_IGNORED]) - {user_id} if isinstance(users, dict) else frozenset()


def last_joined(rx: Rx | Tx, membership: Membership | None) -> Row | None:
    """Return the event that ended the user's last time in the room (a leave, kick or ban); None if never joined.

    Only for somebody who is not joined now. The chain of replaced membership events is followed backwards.
    """
    if membership is None or membership.forgotten:
        return None
    ended, eid = None, membership.eid
    for _ in range(_CHAIN):
        row = events.by_eids(rx, [eid]).get(eid)
        if row is None:
            return None
        if row.event.content.get("membership") == "join":
            return ended
        ended = row
        if row.replaces is None:
            return None
        eid = row.replaces
    return None


class Sight:
    """One person's view of one room, for the length of one read."""

    def __init__(self, rx: Rx | Tx, rid: int, user_id: str | None) -> None:
        self._rx = rx
        self._rid = rid
        self._user_id = user_id
        self.standing = rooms.membership(rx, user_id, rid) if user_id is not None else None
        values = frozenset(understood(value) for value in timeline.history_visibilities(rx, rid))
        self._values = values
        self.joined = self.standing is not None and self.standing.membership == "join"
        self.everything = self.joined and values <= _OPEN
        """Joined, and the room was never stricter than `shared`: nothing is hidden."""
        self._until: int | None = None
        self._keys: list[int | None] | None = None
        self._found: dict[int, tuple[int | None, int | None]] = {}
        self._moments: dict[int, Moment] = {}

    @property
    def ends(self) -> int:
        """Position after which nothing can be visible: where a departed person left, unless the room was ever open to
        all.
        """
        return _FOR_EVER if WORLD_READABLE in self._values else self.until

    @property
    def until(self) -> int:
        """Last position at which the viewer is known to have been joined; far away if still joined, low if never."""
        if self._until is None:
            if self.joined:
                self._until = _FOR_EVER
            else:
                left = last_joined(self._rx, self.standing)
                self._until = -_FOR_EVER if left is None or left.pos is None else left.pos
        return self._until

    def only(self, rows: Sequence[Row]) -> list[Row]:
        """Return the events the viewer may see."""
        if self.everything:
            return [row for row in rows if row.flags == 0 and row.pos is not None]
        return [row for row in rows if self.sees(row)]

    def sees(self, row: Row) -> bool:
        """Tell whether the viewer may see the event; rejected ones and outliers nobody sees."""
        if row.flags or row.pos is None or row.sid is None:
            return False
        if self.everything:
            return True
        moment = self.at(row.sid)
        if self._allows(moment, row.pos):
            return True
        event = row.event
        if event.state_key is None:
            return False
        if event.type == "m.room.history_visibility" and event.state_key == "":
            return self._allows(Moment(understood(self._before(row, "history_visibility")), moment.membership), row.pos)
        if event.type == "m.room.member" and event.state_key == self._user_id:
            before = self._before(row, "membership")
            return self._allows(Moment(moment.visibility, before if isinstance(before, str) else "leave"), row.pos)
        return False

    def _allows(self, moment: Moment, pos: int) -> bool:
        if moment.visibility == WORLD_READABLE or moment.membership == "join":
            return True
        if moment.visibility == SHARED or (moment.visibility == INVITED and moment.membership == "invite"):
            return pos < self.until
        return False

    def _before(self, row: Row, field: str) -> object:
        """Return a field of the state event that this one replaced."""
        if row.replaces is None:
            return None
        replaced = events.by_eids(self._rx, [row.replaces]).get(row.replaces)
        return None if replaced is None else replaced.event.content.get(field)

    # -- the state at an event -------------------------------------------------------------------------------------

    def membership(self, row: Row) -> str | None:
        """Return the viewer's membership at the event, its own effect included (`unsigned.membership`)."""
        standing = self.standing
        if standing is not None and row.pos is not None and standing.pos <= row.pos:
            return standing.membership
        if self._user_id is None or row.sid is None:
            return None
        return self.at(row.sid).membership

    def at(self, sid: int) -> Moment:
        """Return what the state snapshot says about the viewer."""
        moment = self._moments.get(sid)
        if moment is None:
            moment = self._moments[sid] = self._moment(*self._lookup(sid))
        return moment

    def _moment(self, visibility_eid: int | None, member_eid: int | None) -> Moment:
        rows = events.by_eids(self._rx, [eid for eid in (visibility_eid, member_eid) if eid is not None])
        visibility, membership = None, "leave"
        if visibility_eid in rows:
            visibility = rows[visibility_eid].event.content.get("history_visibility")
        if member_eid in rows:
            value = rows[member_eid].event.content.get("membership")
            membership = value if isinstance(value, str) else "leave"
        return Moment(understood(visibility), membership)

    def _lookup(self, sid: int) -> tuple[int | None, int | None]:
        """Find the two events of interest in a snapshot by walking its chain of changes, remembering every step."""
        visibility_sk, member_sk = self._sks()
        path: list[tuple[int, dict[int, int]]] = []
        step: int | None = sid
        known: tuple[int | None, int | None] = (None, None)
        while step is not None:
            if step in self._found:
                known = self._found[step]
                break
            parent, changes = timeline.snapshot_step(self._rx, step)
            path.append((step, changes))
            step = parent
        for step, changes in reversed(path):
            known = (_applied(known[0], changes, visibility_sk), _applied(known[1], changes, member_sk))
            self._found[step] = known
        return known

    def _sks(self) -> tuple[int | None, int | None]:
        if self._keys is None:
            self._keys = timeline.key_ids(
                self._rx, [("m.room.history_visibility", ""), ("m.room.member", self._user_id or "")]
            )
        return self._keys[0], self._keys[1]


def _applied(eid: int | None, changes: dict[int, int], sk: int | None) -> int | None:
    """Return the eid of a state key after a change; 0 in a change takes the key away."""
    if sk is None or sk not in changes:
        return eid
    return changes[sk] or None

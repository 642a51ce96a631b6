"""What a pusher still owes its gateway: events of its person's rooms beyond the cursor, invitations included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from appliance.matrix.ids import RoomId
from appliance.push.unread import Recent
from appliance.store import events
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.rooms import Membership

BATCH = 200
"""Events of one room that are taken in one round."""


class Memberships(Protocol):
    """Where a person is (`rooms.members.Members`)."""

    async def rooms_of(self, user_id: str) -> Mapping[RoomId, Membership]:
        """Return every room in which the user has or had a membership."""


class Debt(msgspec.Struct, frozen=True):
    """Whose debt is looked for: in `rooms` (None: all), with new invitations or without, after < position <= upto."""

    user_id: str
    rooms: frozenset[str] | None
    invitations: bool
    after: int
    upto: int


class Due(msgspec.Struct, frozen=True):
    """Events that may be owed, in order, complete up to the position `reached`."""

    rows: Sequence[Row]
    reached: int


async def find(store: Store, members: Memberships, live: Recent, debt: Debt) -> Due:
    """Collect the events of a debt, from memory where it reaches back far enough."""
    memberships = await members.rooms_of(debt.user_id)
    asked = memberships.keys() if debt.rooms is None else debt.rooms & memberships.keys()
    rows: list[Row] = []
    distant: list[int] = []
    for room_id in asked:
        membership = memberships[RoomId(room_id)]
        if membership.membership != "join":
            continue
        recent = live.since(membership.rid, debt.after, debt.upto)
        if recent is None:
            distant.append(membership.rid)
        else:
            rows += recent
    invitations = [m.eid for m in memberships.values()
                   if debt.invitations and m.membership == "invite" and debt.after < m.pos <= debt.upto]
    reached = debt.upto
    if distant or invitations:
        older, reached = await store.read(_older, distant, invitations, debt.after, debt.upto)
        rows += older
    due = [row for row in rows if (row.pos or 0) <= reached]
    return Due(sorted(due, key=lambda row: row.pos or 0), reached)


def _older(rx: Rx, rids: list[int], invitations: list[int], after: int, upto: int) -> tuple[list[Row], int]:
    rows, reached = list(events.by_eids(rx, invitations).values()), upto
    for rid in rids:
        found = events.timeline(rx, rid, after=after, upto=upto, limit=BATCH, backwards=False)
        if len(found) == BATCH:
            reached = min(reached, found[-1].pos or 0)
        rows += found
    return rows, reached

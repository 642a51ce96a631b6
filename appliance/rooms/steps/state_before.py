"""Step 7 and 8: the state before an event, and whether the event may stand in it.

The state before an event is what the states after its predecessors resolve to. Where a predecessor could not be had, a
peer's word for the state takes its place; it is resolved with what we know ourselves, so that nobody can undo a ban by
forgetting it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.matrix import auth
from appliance.matrix.auth import CREATE, Rejected
from appliance.matrix.event import Event
from appliance.matrix.versions import RoomVersion
from appliance.rooms.steps.resolve import resolved
from appliance.store import events, state
from appliance.store.readers import Rx
from appliance.store.state import Key


def state_before(
    rx: Rx, version: RoomVersion, event: Event, sids: Sequence[int], borrowed: Mapping[Key, int] | None
) -> tuple[int | None, dict[Key, int]]:
    """Return (snapshot, state) before an event; the snapshot is None where the state is a new one.

    `sids` are the states after those predecessors that we have, `borrowed` a peer's word for what the others add.
    """
    distinct = list(dict.fromkeys(sids))
    if len(distinct) == 1 and borrowed is None:
        return distinct[0], state.snapshot(rx, distinct[0])
    states: list[Mapping[Key, int]] = [state.snapshot(rx, sid) for sid in distinct]
    if borrowed is not None:
        states.append(borrowed)
    return None, resolved(rx, version, states, event) if states else {}


def refusal(rx: Rx, event: Event, before: Mapping[Key, int]) -> str | None:
    """Return why the event may not stand in a state, None if it may."""
    keys = auth.auth_keys(event.version, event.type, event.sender, event.state_key, event.content)
    wanted = [before[key] for key in {*keys, CREATE} if key in before]
    rows = events.by_eids(rx, wanted).values()
    try:
        auth.check(event, {row.event.key: row.event for row in rows})
    except Rejected as error:
        return str(error)
    return None

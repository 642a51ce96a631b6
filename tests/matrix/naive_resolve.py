"""State resolution a second time: the specification's sentences one by one, slow and without a single shortcut.

Nothing here is shared with `appliance.matrix.resolve` but the event and the authorisation rules; sets are computed by
their definitions, orders by choosing the smallest candidate again and again. Only for rooms of a few dozen events.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.matrix import auth
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId
from appliance.matrix.power import creators_of
from appliance.matrix.versions import RoomVersion

StateMap = dict[tuple[str, str], EventId]
Events = Mapping[EventId, Event]


def auth_chain(events: Events, event_id: EventId) -> set[EventId]:
    """All of the event's auth events, all of their auth events, and so on."""
    chain = set(events[event_id].auth_events)
    while True:
        longer = chain | {parent for x in chain for parent in events[x].auth_events}
        if longer == chain:
            return chain
        chain = longer


def power_of_sender(version: RoomVersion, events: Events, event_id: EventId) -> int:
    """Power level of the event's sender, "when looking at their respective auth_events"."""
    event = events[event_id]
    levels = create = None
    for parent in event.auth_events:
        if events[parent].type == "m.room.power_levels":
            levels = events[parent]
        if events[parent].type == "m.room.create":
            create = events[parent]
    if version.privileged_creators:
        create = events[EventId("$" + event.room_id[1:])]
        if event.sender in creators_of(create):
            return 10**30
    if levels is None:
        return 100 if create is not None and event.sender in creators_of(create) else 0
    users = levels.content.get("users", {})
    assert isinstance(users, dict)
    level = users.get(event.sender, levels.content.get("users_default", 0))
    assert isinstance(level, int | str)
    return int(level)


def is_power_event(event: Event) -> bool:
    """A state event that might remove someone's ability to do something in the room."""
    if event.type in ("m.room.power_levels", "m.room.join_rules"):
        return True
    return (
        event.type == "m.room.member"
        and event.content["membership"] in ("leave", "ban")
        and event.sender != event.state_key
    )


def iterative_auth_checks(
    version: RoomVersion, events: Events, rejected: set[EventId], start: StateMap, order: Sequence[EventId]
) -> StateMap:
    """Apply each event if the rules allow it; a missing slot is taken from the event's own auth events."""
    state = dict(start)
    for event_id in order:
        event = events[event_id]
        view: dict[tuple[str, str], Event] = {}
        for parent in event.auth_events:
            if parent not in rejected:
                view[events[parent].key] = events[parent]
        if version.room_id_is_hash:
            create = events[EventId("$" + event.room_id[1:])]
            view[create.key] = create
        for key in state:
            view[key] = events[state[key]]
        try:
            auth.check(event, view)
        except auth.Rejected:
            continue
        state[event.key] = event_id
    return state


def smallest_topological_order(version: RoomVersion, events: Events, chosen: set[EventId]) -> list[EventId]:
    """Reverse topological power ordering: again and again the smallest event that depends on nothing left."""
    below = {x: auth_chain(events, x) for x in chosen}
    rank = {x: (-power_of_sender(version, events, x), events[x].origin_server_ts, x) for x in chosen}
    left = set(chosen)
    order: list[EventId] = []
    while left:
        smallest = min((x for x in left if not below[x] & left), key=rank.__getitem__)
        order.append(smallest)
        left.remove(smallest)
    return order


def levels_chain(events: Events, event_id: EventId) -> list[EventId]:
    """The power levels events found by following `auth_events`, without the event itself."""
    for parent in events[event_id].auth_events:
        if events[parent].type == "m.room.power_levels":
            return [parent, *levels_chain(events, parent)]
    return []


def mainline_order(events: Events, rest: set[EventId], levels: EventId | None) -> list[EventId]:
    """Mainline ordering based on the power levels event."""
    mainline = [] if levels is None else [levels, *levels_chain(events, levels)]

    def position(event_id: EventId) -> float:
        for step in levels_chain(events, event_id):
            if step in mainline:
                return mainline.index(step)
        return float("inf")

    return sorted(rest, key=lambda x: (-position(x), events[x].origin_server_ts, x))


def conflicted_subgraph(events: Events, conflicted: set[EventId]) -> set[EventId]:
    """Every event on a path of auth events that begins and ends in the conflicted state set."""
    below = {x: auth_chain(events, x) for x in events}
    return conflicted | {
        x
        for x in events
        if any(x in below[top] for top in conflicted) and any(bottom in below[x] for bottom in conflicted)
    }


def resolve(
    version: RoomVersion,
    state_sets: Sequence[Mapping[tuple[str, str], EventId]],
    events: Events,
    *,
    rejected: set[EventId] | None = None,
) -> StateMap:
    """The algorithm, steps 1 to 5."""
    refused = rejected or set()
    unconflicted: StateMap = {}
    conflicted: set[EventId] = set()
    for key in {key for state in state_sets for key in state}:
        values = {state.get(key) for state in state_sets}
        if len(values) == 1:
            unconflicted[key] = state_sets[0][key]
        else:
            conflicted |= {value for value in values if value is not None}
    chains = [set().union(*(auth_chain(events, x) for x in state.values())) for state in state_sets]
    full = conflicted | {x for chain in chains for x in chain if not all(x in other for other in chains)}
    if version.resolution_2_1:
        full |= conflicted_subgraph(events, conflicted)
    # 1
    power_events = {x for x in full if is_power_event(events[x])}
    chosen = power_events | {y for x in power_events for y in auth_chain(events, x) if y in full}
    first = smallest_topological_order(version, events, chosen)
    # 2
    partial = iterative_auth_checks(version, events, refused, {} if version.resolution_2_1 else unconflicted, first)
    # 3
    second = mainline_order(events, full - chosen, partial.get(("m.room.power_levels", "")))
    # 4
    result = iterative_auth_checks(version, events, refused, partial, second)
    # 5
    result.update(unconflicted)
    return result

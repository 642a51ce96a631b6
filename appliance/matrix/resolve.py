"""State resolution: several states of a room become one, and every server finds the same one.

When the graph of a room forks, each branch has a state of its own. The event that joins the branches needs *one* state
before it, and all servers must compute it alike from the same events, whatever order they arrived in. So everything
here is sets and total orders; nothing may depend on the order of a dict or of the arguments.

The idea: what all branches agree on (the *unconflicted* map) stands. What they disagree on is replayed as if it had
happened one after the other, and each event must pass the authorisation rules against what was replayed before it. The
order is what makes this safe: first the events that can take somebody's rights away (*power events*: power levels,
join rules, kicks and bans), later everything else. A ban on one branch thereby beats what the banned user did on the
other.

The steps of `resolve`, with the words of the specification:

* `_split`: unconflicted state map, conflicted state set. Equal maps end here.
* `_full_conflicted_set`: to replay an event, what once allowed it may have to be replayed as well. The *auth
  difference* holds the events that are in some, but not all, of the branches' auth chains. An event below something
  unconflicted is in all of them, so only the chains of conflicted events are compared, and the rest of the state is
  searched only for the candidates that remain. Algorithm 2.1 adds the *conflicted state subgraph*: whatever lies on a
  path of auth events between two conflicted events.
* `_power_order`: the power events with whatever of the full conflicted set they depend on, sorted so that an event
  follows those that allow it; among the free ones the more powerful sender comes first, then the earlier, then the
  smaller id (Kahn's algorithm with a heap). A dependency may run through events that are not to be sorted: those are
  *bridges*, which take part in the count of open dependencies but never wait in the heap.
* `_replay`, the iterative auth checks. Algorithm 2 starts from the unconflicted map, 2.1 from nothing: that is what
  keeps an old event, dragged in by the auth difference, from being judged by a newer state it cannot know, and so from
  dropping out and taking the state built on it along (the "state reset").
* `_mainline_order`: the rest, sorted by which power levels event they were authorised under. The *mainline* is the
  chain of power levels events behind the one just resolved; events hanging on an older one come first.
* `_replay` again, and the unconflicted map is laid over the result.

Rooms with years of history have auth chains thousands deep: nothing here recurses.

Source: room versions 2 and 12, "State resolution".
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final, TypeAlias

from appliance.matrix.auth import CREATE, POWER_LEVELS, Key, Rejected, auth_keys, check
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId
from appliance.matrix.power import Power
from appliance.matrix.versions import RoomVersion

StateMap: TypeAlias = Mapping[Key, EventId]
Events: TypeAlias = Mapping[EventId, Event] | Callable[[EventId], Event]

_OFF_MAINLINE: Final = 1 << 62
"""Mainline position of an event whose power levels never were on the mainline: larger than any real one."""


def resolve(
    version: RoomVersion,
    state_sets: Sequence[StateMap],
    events: Events,
    *,
    rejected: Container[EventId] = frozenset(),
) -> dict[Key, EventId]:
    """Return the one state that the given states resolve to.

    `events` gives every event of the states and of their auth chains (in room version 12 the create event, too) and
    raises `KeyError` for one it does not have; `rejected` answers which of them were rejected.
    """
    unconflicted, conflicted = _split(state_sets)
    if not conflicted:
        return unconflicted
    room = _Room(version, events, rejected)
    full = _full_conflicted_set(room, state_sets, unconflicted, conflicted)
    first = _power_order(room, full)
    state = {} if version.resolution_2_1 else dict(unconflicted)
    _replay(room, state, first)
    _replay(room, state, _mainline_order(room, full.difference(first), state.get(POWER_LEVELS)))
    state.update(unconflicted)
    return state


class _Room:
    """The events of the room with what is asked of them again and again."""

    __slots__ = ("_find", "_found", "rejected", "version")

    def __init__(self, version: RoomVersion, events: Events, rejected: Container[EventId]) -> None:
        self.version = version
        self.rejected = rejected
        self._found: dict[EventId, Event] = {}
        self._find = events if callable(events) else events.__getitem__

    def event(self, event_id: EventId) -> Event:
        event = self._found.get(event_id)
        if event is None:
            event = self._found[event_id] = self._find(event_id)
        return event

    def chain(self, starts: Iterable[EventId]) -> set[EventId]:
        """Return the union of the auth chains: what can be reached from the events by at least one step."""
        reached: set[EventId] = set()
        stack = list(starts)
        while stack:
            for parent in self.event(stack.pop()).auth_events:
                if parent not in reached:
                    reached.add(parent)
                    stack.append(parent)
        return reached

    def cited(self, event: Event, key: Key) -> Event | None:
        """Return the auth event of an event in the given slot, even a rejected one."""
        for parent_id in event.auth_events:
            parent = self.event(parent_id)
            if parent.type == key[0] and parent.state_key == key[1]:
                return parent
        return None

    def create_of(self, event: Event) -> Event | None:
        """Return the create event an event stands on: cited, or implied by the room id."""
        if self.version.room_id_is_hash:
            return self.event(EventId("$" + event.room_id[1:]))
        return self.cited(event, CREATE)

    def dependents(self, nodes: Iterable[EventId], within: set[EventId]) -> dict[EventId, list[EventId]]:
        """Return for the auth events of `nodes` that lie in `within` which of the nodes cite them."""
        above: dict[EventId, list[EventId]] = {}
        for node in nodes:
            for parent in set(self.event(node).auth_events):
                if parent in within:
                    above.setdefault(parent, []).append(node)
        return above


def _split(state_sets: Sequence[StateMap]) -> tuple[dict[Key, EventId], set[EventId]]:
    """Return the unconflicted state map and the conflicted state set."""
    if not state_sets:
        return {}, set()
    agreed = set(state_sets[0].items()).intersection(*(state.items() for state in state_sets[1:]))
    if all(len(state) == len(agreed) for state in state_sets):
        return dict(agreed), set()
    claimed = {item for state in state_sets for item in state.items()}
    return dict(agreed), {event_id for _, event_id in claimed - agreed}


def _full_conflicted_set(
    room: _Room, state_sets: Sequence[StateMap], unconflicted: StateMap, conflicted: set[EventId]
) -> set[EventId]:
    chains = [room.chain(conflicted.intersection(state.values())) for state in state_sets]
    reachable = set().union(*chains)
    difference = reachable.difference(chains[0].intersection(*chains[1:]))
    full = conflicted | _not_below(room, unconflicted.values(), difference)
    if room.version.resolution_2_1:
        full |= _subgraph(room, conflicted, conflicted | reachable)
    return {event_id for event_id in full if room.event(event_id).is_state}


def _not_below(room: _Room, tops: Iterable[EventId], candidates: set[EventId]) -> set[EventId]:
    """Return the candidates that are in no auth chain of the given events; stops as soon as none is left."""
    left = set(candidates)
    reached: set[EventId] = set()
    stack = list(tops)
    while stack and left:
        for parent in room.event(stack.pop()).auth_events:
            if parent not in reached:
                reached.add(parent)
                left.discard(parent)
                stack.append(parent)
    return left


def _subgraph(room: _Room, conflicted: set[EventId], below: set[EventId]) -> set[EventId]:
    """Return the conflicted state subgraph; `below` are the conflicted events with everything they stand on."""
    return _climb(conflicted, room.dependents(below, within=below))


def _climb(starts: Iterable[EventId], above: Mapping[EventId, list[EventId]]) -> set[EventId]:
    """Return the start events and all that depend on them, directly or not."""
    seen = set(starts)
    stack = list(seen)
    while stack:
        for dependent in above.get(stack.pop(), ()):
            if dependent not in seen:
                seen.add(dependent)
                stack.append(dependent)
    return seen


def _is_power_event(event: Event) -> bool:
    if event.type == "m.room.member":
        return event.content.get("membership") in ("leave", "ban") and event.sender != event.state_key
    return event.type in ("m.room.power_levels", "m.room.join_rules")


def _power_order(room: _Room, full: set[EventId]) -> list[EventId]:
    """Return the power events and their dependencies from the full set in reverse topological power ordering."""
    power_events = {event_id for event_id in full if _is_power_event(room.event(event_id))}
    chain = room.chain(power_events)
    chosen = power_events | (chain & full)
    nodes = power_events | chain
    above = room.dependents(nodes, within=nodes)
    waiting = dict.fromkeys(_climb(chosen, above), 0)
    for node in waiting:
        for dependent in above.get(node, ()):
            waiting[dependent] += 1
    heap: list[tuple[int, int, EventId]] = []
    free = [node for node, open_count in waiting.items() if open_count == 0]
    order: list[EventId] = []
    while free or heap:
        if free:
            node = free.pop()
            if node in chosen:
                event = room.event(node)
                heappush(heap, (-_sender_power(room, event), event.origin_server_ts, node))
                continue
        else:
            node = heappop(heap)[2]
            order.append(node)
        for dependent in above.get(node, ()):
            waiting[dependent] -= 1
            if waiting[dependent] == 0:
                free.append(dependent)
    return order


def _sender_power(room: _Room, event: Event) -> int:
    """Return the power of an event's sender by the event's own auth events."""
    return Power(room.version, room.create_of(event), room.cited(event, POWER_LEVELS)).of(event.sender)


def _mainline_order(room: _Room, rest: Iterable[EventId], levels: EventId | None) -> list[EventId]:
    """Return the events in mainline ordering, based on the power levels event `levels`."""
    position: dict[EventId, int] = {}
    current = levels
    while current is not None:
        position[current] = len(position)
        current = _levels_behind(room, current)

    def key(event_id: EventId) -> tuple[int, int, EventId]:
        walked: list[EventId] = []
        step = _levels_behind(room, event_id)
        while step is not None and step not in position:
            walked.append(step)
            step = _levels_behind(room, step)
        found = _OFF_MAINLINE if step is None else position[step]
        position.update(dict.fromkeys(walked, found))
        return -found, room.event(event_id).origin_server_ts, event_id

    return sorted(rest, key=key)


def _levels_behind(room: _Room, event_id: EventId) -> EventId | None:
    """Return the power levels event in the auth events of an event."""
    levels = room.cited(room.event(event_id), POWER_LEVELS)
    return None if levels is None else levels.event_id


def _replay(room: _Room, state: dict[Key, EventId], order: Iterable[EventId]) -> None:
    """Apply the events in order to the state, each only where the authorisation rules allow it."""
    for event_id in order:
        event = room.event(event_id)
        try:
            check(event, _state_for(room, state, event))
        except Rejected:
            continue
        state[event.key] = event_id


def _state_for(room: _Room, state: StateMap, event: Event) -> dict[Key, Event]:
    """Return what the rules will look at: from the state, else from the event's own auth events unless rejected."""
    keys = auth_keys(room.version, event.type, event.sender, event.state_key, event.content)
    found: dict[Key, Event] = {}
    for key in keys:
        event_id = state.get(key)
        if event_id is not None:
            found[key] = room.event(event_id)
            continue
        cited = room.cited(event, key)
        if cited is not None and cited.event_id not in room.rejected:
            found[key] = cited
    if room.version.room_id_is_hash and event.type != "m.room.create":
        found[CREATE] = room.event(EventId("$" + event.room_id[1:]))
    return found

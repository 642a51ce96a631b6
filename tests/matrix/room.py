"""A room written as a table: events made in one line each, with parents, auth events and state worked out.

`Graph` is deliberately plain: the state before an event is resolved with whichever resolver the test hands in, and
what the rules reject is left out, as on a real server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from appliance.matrix import auth, signing, versions
from appliance.matrix.auth import Key
from appliance.matrix.event import Event, build
from appliance.matrix.ids import EventId, RoomId, ServerName, UserId, server_of

StateMap = Mapping[Key, EventId]
Resolver = Callable[[versions.RoomVersion, Sequence[StateMap], Mapping[EventId, Event]], dict[Key, EventId]]

KEY = signing.generate("test", b"sixteen and sixteen bytes: a key")
ALICE = UserId("@alice:a.example")
BOB = UserId("@bob:b.example")
CAROL = UserId("@carol:a.example")
DAVE = UserId("@dave:d.example")


def make(
    version: versions.RoomVersion,
    type: str,
    sender: str,
    content: Mapping[str, Any],
    state_key: str | None = None,
    *,
    room: str | None = "!room:a.example",
    ts: int = 1,
    depth: int = 1,
    prev: Sequence[str] = ("$before",),
    auth_events: Sequence[str] = (),
    signed_by: str | None = None,
) -> Event:
    """Build one event without asking whether it is allowed."""
    return build(
        version,
        room_id=None if room is None else RoomId(room),
        type=type,
        sender=UserId(sender),
        state_key=state_key,
        content=content,
        origin_server_ts=ts,
        depth=depth,
        prev_events=[EventId(event_id) for event_id in prev],
        auth_events=[EventId(event_id) for event_id in auth_events],
        signer=KEY,
        server=ServerName(signed_by or server_of(sender)),
    )


class Graph:
    """A growing room with forks. Every added event is checked against its auth events' and its own state before."""

    def __init__(self, version: versions.RoomVersion, resolver: Resolver) -> None:
        self.version = version
        self.resolver = resolver
        self.events: dict[EventId, Event] = {}
        self.after: dict[EventId, dict[Key, EventId]] = {}
        self.depth: dict[EventId, int] = {}
        self.rejected: list[Event] = []
        self.clock = 0
        creator = {"creator": ALICE} if not version.creator_from_sender else {}
        create = make(
            version,
            "m.room.create",
            ALICE,
            {"room_version": version.name, **creator},
            "",
            room=None if version.room_id_is_hash else "!room:a.example",
            prev=(),
            ts=0,
        )
        self.room_id = create.room_id
        self.create = create.event_id
        self._keep(create, {create.key: create.event_id}, 1)

    def _keep(self, event: Event, after: dict[Key, EventId], depth: int) -> None:
        self.events[event.event_id] = event
        self.after[event.event_id] = after
        self.depth[event.event_id] = depth

    def state_before(self, parents: Sequence[EventId]) -> dict[Key, EventId]:
        """Resolve the states after the parents."""
        return self.resolver(self.version, [self.after[parent] for parent in parents], self.events)

    def add(
        self,
        parents: Sequence[EventId],
        type: str,
        sender: str,
        content: Mapping[str, Any],
        state_key: str | None = None,
        ts: int | None = None,
    ) -> EventId | None:
        """Append an event; None when the rules reject it there."""
        self.clock += 1
        before = self.state_before(parents)
        keys = auth.auth_keys(self.version, type, sender, state_key, content)
        depth = max(self.depth[parent] for parent in parents) + 1
        event = make(
            self.version,
            type,
            sender,
            content,
            state_key,
            room=self.room_id,
            ts=self.clock if ts is None else ts,
            depth=depth,
            prev=parents,
            auth_events=[before[key] for key in keys if key in before],
        )
        try:
            auth.check(event, {key: self.events[event_id] for key, event_id in before.items()})
        except auth.Rejected:
            self.rejected.append(event)
            return None
        after = dict(before)
        if event.is_state:
            after[event.key] = event.event_id
        self._keep(event, after, depth)
        return event.event_id

    def must(
        self,
        parents: Sequence[EventId],
        type: str,
        sender: str,
        content: Mapping[str, Any],
        state_key: str | None = None,
        ts: int | None = None,
    ) -> EventId:
        """Append an event that has to be allowed."""
        event_id = self.add(parents, type, sender, content, state_key, ts)
        assert event_id is not None, f"rejected: {type} by {sender}"
        return event_id

    def member(self, parents: Sequence[EventId], sender: str, membership: str, target: str | None = None) -> EventId:
        """Append a membership event that has to be allowed."""
        return self.must(parents, "m.room.member", sender, {"membership": membership}, target or sender)

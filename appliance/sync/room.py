"""One room's section of a sync, read from the store.

The state a client ends up with is what it had, overlaid with the `state` section and then with the state events of the
timeline, in order. The section is therefore made of two parts. For keys that no event of the timeline sets: what the
room's current snapshot sets differently from the snapshot at `since`; this covers gaps and also what a resolved fork
changed without an event of its own. For keys that the timeline does set: what the first such event replaced, if that
is news to the client. With `state_after` the difference of the two snapshots is the answer.

Source: client-server API, "Syncing" and "Lazy-loading room members"; MSC4222.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from appliance.matrix import client_event
from appliance.matrix.event import Event
from appliance.rooms.live import Live
from appliance.rooms.render import Renderer
from appliance.store import events, receipts, rooms, state, sync
from appliance.store.changes import Changes
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.rooms import Membership
from appliance.store.state import Key
from appliance.sync import stretch as stretches
from appliance.sync.ask import Ask
from appliance.sync.filters import SyncFilter, pick
from appliance.sync.known import Known, KnownEvents
from appliance.sync.lazy import Marks
from appliance.sync.own_data import Defaults, no_defaults
from appliance.sync.stretch import Pass, Stretch

Json = Any
MEMBER: Final = "m.room.member"
JOINED: Final = b'"membership":"join"'
NAMES: Final = (("m.room.name", ""), ("m.room.canonical_alias", ""))


@dataclass(slots=True)
class Part:
    """What a sync says about one room. `shown` are the members that go out with it."""

    room_id: str
    rid: int
    fresh: bool
    """Whether the client gets the room from scratch."""
    stretch: Stretch
    timeline: list[Json] = field(default_factory=list)
    state: list[Json] = field(default_factory=list)
    summary: dict[str, Json] = field(default_factory=dict)
    ephemeral: list[Json] = field(default_factory=list)
    account_data: list[Json] = field(default_factory=list)
    shown: set[str] = field(default_factory=set)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (
            self.fresh or self.timeline or self.stretch.limited or self.state or self.ephemeral or self.account_data
        )


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a read needs beside the store: shared caches, how far these follow the commits, the time (milliseconds).

    Made on the event loop before the read begins, see `KnownEvents.load`.
    """

    known: KnownEvents
    marks: Marks
    live: Live
    changes: Changes
    now: int
    defaults: Defaults = no_defaults
    generation: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "generation", self.known.generation)


class RoomReader:
    """Reads room sections for one request, within one read of the store that sees the stream up to `upto`."""

    def __init__(self, rx: Rx, ask: Ask, upto: int, shelf: Shelf) -> None:
        self._rx = rx
        self._ask = ask
        self._upto = upto
        self._shelf = shelf
        self._since = ask.since.stream if ask.since is not None else None
        self.renderer = Renderer(rx, ask.requester, shelf.now, room_id=False)

    def joined(self, member: Membership) -> Part:
        """Return the section of a room to which the user is joined."""
        since = self._since
        fresh = since is None or (member.pos > since and not self.was_joined(member.rid, since))
        part = self._part(member, None if fresh else since, self._upto, fresh or self._ask.full_state)
        part.ephemeral = self._receipts(member.room_id, member.rid, 0 if fresh else since or 0)
        return part

    def left(self, member: Membership) -> Part | None:
        """Return the section of a room that the user left, was banned from, or was never let into; None: nothing."""
        since, sight = self._since, self.renderer.sight(member.rid)
        was_joined = since is not None and self.was_joined(member.rid, since)
        if not was_joined and sight.until < 0:
            return self._turned_away(member)
        return self._part(member, since if was_joined else None, member.pos, not was_joined)

    def was_joined(self, rid: int, pos: int) -> bool:
        """Tell whether the user was joined at a stream position."""
        sid = state.sid_at(self._rx, rid, pos)
        eid = state.entry(self._rx, sid, (MEMBER, self._ask.requester.user_id)) if sid is not None else None
        row = events.by_eids(self._rx, [eid]).get(eid) if eid is not None else None
        return row is not None and row.event.content.get("membership") == "join"

    def _turned_away(self, member: Membership) -> Part | None:
        """Somebody who was never joined learns of the end of the invitation or knock, and nothing else."""
        row = events.by_eids(self._rx, [member.eid]).get(member.eid)
        if row is None:
            return None
        part = Part(member.room_id, member.rid, True, Stretch((row,), False, (row.pos or member.pos) - 1))
        part.timeline = [client_event.render(row.event, room_id=False)]
        return part

    def _part(self, member: Membership, after: int | None, upto: int, whole: bool) -> Part:
        """Put timeline, state and summary together for a stretch of the stream."""
        found = self.stretch(member, after, upto)
        part = Part(member.room_id, member.rid, after is None, found)
        changed = self.changed(member, None if whole else after, upto)
        part.timeline = self.timeline(member, found.rows)
        if part.fresh or any(kind == MEMBER for kind, _ in changed):
            part.summary = self._summary(member.rid)
        section = dict(changed) if self._ask.state_after else self._section(changed, found, whole, after)
        wanted = self._lazily(part, section, whole) if self._filter.lazy else section
        part.state = self._state(part, wanted)
        return part

    @property
    def _filter(self) -> SyncFilter:
        return self._ask.filter

    # -- timeline --------------------------------------------------------------------------------------------------

    def stretch(self, member: Membership, after: int | None, upto: int, limit: int | None = None) -> Stretch:
        """Return the newest events of a stretch of the room that the user may and wants to see."""
        if not self._filter.timeline.wants_room(member.room_id):
            return Stretch((), False, upto)
        most = self._filter.limit if limit is None else limit
        keep = self._keeper(member, after)
        found = None
        if self._shelf.changes.position >= upto:  # else this read has seen a commit of which memory does not know yet
            found = stretches.from_memory(*self._shelf.live.recent(member.rid), after, upto, most, keep)
        return found if found is not None else stretches.read(self._rx, member.rid, after, upto, most, keep)

    def _keeper(self, member: Membership, after: int | None) -> Pass:
        """Return what takes out of the timeline the events the client may not or does not want to see."""
        wanted, ignored = self._filter.timeline, self.renderer.ignored()
        # Whoever was joined all the time sees everything that happened since.
        always = after is not None and member.membership == "join" and member.pos <= after

        def keep(rows: Sequence[Row]) -> Sequence[Row]:
            if not always:
                rows = self._visible(member, rows)
            if ignored:
                rows = [row for row in rows if row.event.is_state or row.event.sender not in ignored]
            return rows if wanted.passes_all else [row for row in rows if wanted.wants(row.event)]

        return keep

    def _visible(self, member: Membership, rows: Sequence[Row]) -> Sequence[Row]:
        sight = self.renderer.sight(member.rid)
        return [row for row in rows if row.eid == member.eid or sight.sees(row)]

    def timeline(self, member: Membership, rows: Sequence[Row]) -> list[Json]:
        """Return a timeline; what looks the same to everybody goes out in the bytes that all readers share."""
        if not self._filter.plain or member.membership != "join":
            return self.events(rows)
        session, live, now = self._ask.requester.session, self._shelf.live, self._shelf.now
        shared = [(row.pos or 0) > member.pos and plain(row, live) for row in rows]
        others = iter(self.events([row for row, same in zip(rows, shared, strict=True) if not same]))
        return [
            live.encoded(row).fragment(now, unsigned(row, session)) if same else next(others)
            for row, same in zip(rows, shared, strict=True)
        ]

    def events(self, rows: Sequence[Row]) -> list[Json]:
        """Return events in the form the client asked for."""
        if self._filter.federation_format:
            return [self._shaped(dict(row.event.pdu)) for row in rows]
        return [self._shaped(event) for event in self.renderer.render(rows)]

    def _shaped(self, event: dict[str, Json]) -> dict[str, Json]:
        fields = self._filter.fields
        return event if fields is None else pick(event, fields)

    # -- state -----------------------------------------------------------------------------------------------------

    def changed(self, member: Membership, after: int | None, upto: int) -> Mapping[Key, int]:
        """Return what the state at `upto` sets differently from that at `after` (all of it for None)."""
        present = member.membership == "join"
        if after is None and present:
            return state.current(self._rx, member.rid)
        newer = state.sid_at(self._rx, member.rid, upto)
        if newer is None:
            return {}
        if after is None:
            return state.snapshot(self._rx, newer)
        return state.difference(self._rx, state.sid_at(self._rx, member.rid, after), newer)

    def _section(self, changed: Mapping[Key, int], found: Stretch, whole: bool, after: int | None) -> dict[Key, int]:
        """Return the state section: the changes, rewound to the start of the timeline."""
        replaced: dict[Key, int | None] = {}
        for row in found.rows:
            if row.event.is_state:
                replaced.setdefault(row.event.key, row.replaces)
        section = {key: eid for key, eid in changed.items() if key not in replaced}
        before = {key: eid for key, eid in replaced.items() if eid is not None} if whole or found.limited else {}
        if before and not whole:
            news = self.known(list(before.values()))
            before = {key: eid for key, eid in before.items() if eid in news and (news[eid].pos or 0) > (after or 0)}
        return section | before

    def _lazily(self, part: Part, section: Mapping[Key, int], whole: bool) -> dict[Key, int]:
        """Reduce the members to those the client needs, and add those it lacks."""
        me = self._ask.requester.user_id
        needed = {row.event.sender for row in part.stretch.rows} | set(part.summary.get("m.heroes", ()))
        if whole:
            needed.add(me)
        in_timeline = {row.event.state_key for row in part.stretch.rows if row.event.type == MEMBER}
        kept = {key: eid for key, eid in section.items() if not whole or key[0] != MEMBER or key[1] in needed}
        there = in_timeline if not self._ask.state_after else set()
        missing = [user for user in needed - there if (MEMBER, user) not in kept and not self._has(part, user)]
        if missing and not whole:
            kept.update(((MEMBER, user), eid) for user, eid in sync.member_eids(self._rx, part.rid, missing).items())
        part.shown = {key[1] for key in kept if key[0] == MEMBER} | {user for user in in_timeline if user}
        return kept

    def _has(self, part: Part, user_id: str) -> bool:
        """Tell whether the client holds a member already."""
        if self._since is None or part.fresh or self._filter.redundant:
            return False
        return self._shelf.marks.knows(part.rid, user_id, self._since)

    def known(self, eids: Collection[int]) -> dict[int, Known]:
        """Return state events ready to be sent."""
        return self._shelf.known.load(self._rx, eids, self._shelf.generation)

    def _state(self, part: Part, section: Mapping[Key, int]) -> list[Json]:
        wanted = self._filter.state
        if not section or not wanted.wants_room(part.room_id):
            return []
        if not self._filter.plain:
            return self._unusual(section)
        found = self.known(section.values())
        return [
            event.encoded.fragment(self._shelf.now)
            for event in found.values()
            if wanted.passes_all or _passes(event, wanted.contains_url, wanted.wants_kind(event.type, event.sender))
        ]

    def _unusual(self, section: Mapping[Key, int]) -> list[Json]:
        wanted = self._filter.state
        rows = events.by_eids(self._rx, section.values()).values()
        return self.events([row for row in rows if wanted.wants(row.event)])

    # -- the rest --------------------------------------------------------------------------------------------------

    def _summary(self, rid: int) -> dict[str, Json]:
        joined, invited = sync.member_counts(self._rx, rid)
        summary: dict[str, Json] = {"m.joined_member_count": joined, "m.invited_member_count": invited}
        if not any(_text(row.event) for row in events.current_events(self._rx, rid, NAMES)):
            people = sync.heroes(self._rx, rid, self._ask.requester.user_id)
            summary["m.heroes"] = [user_id for user_id, _ in people]
        return summary

    def _receipts(self, room_id: str, rid: int, after: int) -> list[Json]:
        wanted = self._filter.ephemeral
        if not wanted.wants_kind("m.receipt") or not wanted.wants_room(room_id):
            return []
        content = receipt_content(receipts.changed(self._rx, rid, after, self._upto), self._ask.requester.user_id)
        return [{"type": "m.receipt", "content": content}] if content else []

    def stripped(self, member: Membership) -> list[dict[str, object]]:
        """Return what an invited or knocking user may know of the room."""
        return rooms.stripped(self._rx, member.user_id, member.rid)


def plain(row: Row, live: Live) -> bool:
    """Tell whether an event looks the same to everybody who is joined: nothing of it depends on other events."""
    event = row.event
    if event.state_key is not None or row.redacted_by is not None or event.redacts is not None:
        return False
    return not live.related(row.rid, row.pos, event.event_id)


def unsigned(row: Row, session: int) -> bytes:
    """Return the members of `unsigned` of a plain event for somebody joined (see `Encoded.fragment`)."""
    if row.txn is None or row.session != session:
        return JOINED
    return b'%b,"transaction_id":%b' % (JOINED, orjson.dumps(row.txn))


def _passes(event: Known, contains_url: bool | None, kind: bool) -> bool:
    return kind and (contains_url is None or event.has_url == contains_url)


def _text(event: Event) -> bool:
    """Tell whether a name or alias event says something."""
    value = event.content.get("name" if event.type == "m.room.name" else "alias")
    return isinstance(value, str) and bool(value)


def receipt_content(rows: Iterable[receipts.ReceiptRow], user_id: str) -> dict[str, Json]:
    """Return the content of `m.receipt` as one user may see it: private receipts only the owner's."""
    content: dict[str, Json] = {}
    for row in rows:
        if row.kind == receipts.PRIVATE and row.user_id != user_id:
            continue
        about: dict[str, Json] = {"ts": row.ts}
        if row.thread_id:
            about["thread_id"] = row.thread_id
        content.setdefault(row.event_id, {}).setdefault(row.kind, {})[row.user_id] = about
    return content


def account_event(kind: str, content: bytes) -> dict[str, Json]:
    """Return one entry of account data as an event."""
    return {"type": kind, "content": orjson.Fragment(content)}

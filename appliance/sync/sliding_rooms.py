"""One room's section of a sliding sync, read from the store (MSC4186, `RoomResult`).

A room goes out whole (`initial`) when the client does not have it or when its user's standing changed from the outside
to the inside; otherwise only what happened since it was told. `required_state` is state at the end of the timeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from appliance.matrix import client_event
from appliance.matrix.tokens import timeline_token
from appliance.store import events, sync
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.rooms import Membership
from appliance.store.state import Key
from appliance.sync.room import RoomReader, Shelf
from appliance.sync.sliding_ask import MEMBER, RoomConfig
from appliance.sync.sliding_connections import Sent, State
from appliance.sync.stretch import Stretch

Json = Any
INSIDE: Final = "join"
_ALWAYS: Final = frozenset({"membership", "timeline", "required_state", "prev_batch", "limited", "num_live"})
BUMPS: Final = frozenset({
    "m.room.create", "m.room.message", "m.room.encrypted", "m.sticker", "m.call.invite", "m.poll.start",
    "org.matrix.msc3381.poll.start", "m.beacon_info",
})  # fmt: skip
"""Events that move a room up in the client's list."""
LOOK_BACK: Final = 200
"""How many events are looked through for the latest of those; a room in which it lies further back stays put."""
SHOWN: Final = 2000
"""Members remembered as sent per room; beyond it all are sent again when needed."""


@dataclass(slots=True)
class Found:
    """A room's section, and what the client holds of the room once it has it."""

    room_id: str
    rid: int
    section: dict[str, Json]
    sent: Sent
    rows: tuple[Row, ...] = ()

    @property
    def silent(self) -> bool:
        """Whether there is nothing to tell after all (somebody ignored spoke)."""
        section = self.section
        if section.keys() - _ALWAYS or "initial" in section:
            return False
        return not (section["timeline"] or section["required_state"] or section["limited"])


class _Plan(msgspec.Struct, frozen=True):
    """What of a room is to be sent: since when (None: whole), up to where, and what the client holds of it."""

    member: Membership
    config: RoomConfig
    sent: Sent | None
    after: int | None
    upto: int

    @property
    def wider(self) -> bool:
        """Whether the client now wants more of the past than it has."""
        return self.sent is not None and self.after is not None and self.config.limit > self.sent.limit


class SlidingRooms:
    """Reads sections for one request, within one read of the store that sees the stream up to `upto`."""

    def __init__(self, rx: Rx, reader: RoomReader, held: State, upto: int, shelf: Shelf) -> None:
        self._rx = rx
        self._reader = reader
        self._held = held
        self._upto = upto
        self._shelf = shelf

    def room(self, member: Membership, config: RoomConfig, activity: int, dm: bool) -> Found | None:
        """Return the section of a room, or None if the client is up to date. `activity`: position of its last event."""
        sent = self._held.rooms.get(member.room_id)
        told = self._held.told(member.room_id)
        if sent is not None and activity <= told and not sent.lacks(config) and dm == sent.dm:
            return None
        if member.membership in ("invite", "knock"):
            found = self._outside(member, config) if sent is None or activity > told else None
        else:
            found = self._inside(member, config, sent, told)
        if found is not None:
            self._direct(found, sent, dm)
        return found

    def _direct(self, found: Found, sent: Sent | None, dm: bool) -> None:
        if dm or (sent is not None and sent.dm):
            found.section["is_dm"] = dm
        old = found.sent
        found.sent = Sent(old.upto, old.kind, old.limit, old.required, old.shown, dm)

    # -- rooms in which the user is not (yet) ------------------------------------------------------------------------

    def _outside(self, member: Membership, config: RoomConfig) -> Found:
        section: dict[str, Json] = {
            "initial": True, "membership": member.membership, "bump_stamp": member.pos,
            "invite_state": self._reader.stripped(member),
        }
        return Found(member.room_id, member.rid, section, Sent(member.pos, member.membership, 0, config.required))

    def _turned_away(self, member: Membership, config: RoomConfig) -> Found | None:
        """Somebody who was never in learns of the end of the invitation or knock, and nothing else."""
        row = events.by_eids(self._rx, [member.eid]).get(member.eid)
        if row is None:
            return None
        event = client_event.render(row.event, room_id=False)
        section = {
            "initial": True, "membership": member.membership, "bump_stamp": member.pos, "timeline": [event],
            "required_state": [event], "limited": False, "num_live": 1, "prev_batch": timeline_token(member.pos - 1),
        }
        sent = Sent(member.pos, member.membership, 0, config.required)
        return Found(member.room_id, member.rid, section, sent, (row,))

    # -- rooms in which the user is or was ---------------------------------------------------------------------------

    def _inside(self, member: Membership, config: RoomConfig, sent: Sent | None, told: int) -> Found | None:
        was_inside = sent is not None and sent.kind == INSIDE
        if member.membership != INSIDE and not was_inside and self._reader.renderer.sight(member.rid).until < 0:
            return self._turned_away(member, config)
        upto = self._upto if member.membership == INSIDE else member.pos
        plan = _Plan(member, config, sent, told if was_inside else None, upto)
        found = self._reader.stretch(member, None if plan.wider else plan.after, upto, config.limit)
        changed = self._reader.changed(member, plan.after, upto)
        section = self._facts(plan, changed)
        shown = sent.shown if sent is not None and was_inside and not found.limited else frozenset()
        required, shown = self._required(plan, found, changed, shown)
        section["timeline"] = self._reader.timeline(member, found.rows)
        section["required_state"] = [known.encoded.fragment(self._shelf.now) for known in required]
        section["prev_batch"] = timeline_token(found.prev)
        section["limited"] = found.limited
        section["num_live"] = sum((row.pos or 0) > self._held.stream for row in found.rows) * (not self._held.first)
        if plan.wider:
            section["unstable_expanded_timeline"] = True
        self._bump(plan, found, section)
        return Found(member.room_id, member.rid, section, self._holds(plan, found, shown), tuple(found.rows))

    def _holds(self, plan: _Plan, found: Stretch, shown: frozenset[str]) -> Sent:
        """Return what the client has of the room with this answer."""
        limit, required = plan.config.limit, plan.config.required
        if plan.sent is not None and plan.after is not None:
            required = required | plan.sent.required
            if not found.limited:
                limit = max(limit, plan.sent.limit)
        return Sent(self._upto, plan.member.membership, limit, required, shown if len(shown) <= SHOWN else frozenset())

    # -- state ---------------------------------------------------------------------------------------------------------

    def _required(
        self, plan: _Plan, found: Stretch, changed: Mapping[Key, int], shown: frozenset[str]
    ) -> tuple[Iterable[Any], frozenset[str]]:
        """Return the wanted state, and whom the client knows then."""
        wanted = plan.config.required
        section = {key: eid for key, eid in changed.items() if wanted.wants(key)}
        if plan.sent is not None and plan.after is not None and wanted | plan.sent.required != plan.sent.required:
            old = plan.sent.required
            whole = self._reader.changed(plan.member, None, plan.upto)
            section.update((key, eid) for key, eid in whole.items() if wanted.wants(key) and not old.wants(key))
        if wanted.lazily:
            section |= self._lazily(plan, found, changed, shown)
            shown = shown | {key[1] for key in section if key[0] == MEMBER}
        return self._reader.known(section.values()).values() if section else (), shown

    def _lazily(
        self, plan: _Plan, found: Stretch, changed: Mapping[Key, int], shown: frozenset[str]
    ) -> dict[Key, int]:
        """Return the members without whom the client could not show the timeline, and those who changed."""
        needed = {str(row.event.sender) for row in found.rows}
        needed |= {row.event.state_key for row in found.rows if row.event.type == MEMBER and row.event.state_key}
        news = {key: eid for key, eid in changed.items() if key[0] == MEMBER}
        section = {key: eid for key, eid in news.items() if key[1] in needed}
        if plan.after is not None and not found.limited:
            section = news
        missing = needed - shown - {user_id for _, user_id in section}
        if missing:
            eids = sync.member_eids(self._rx, plan.member.rid, missing)
            section.update(((MEMBER, user_id), eid) for user_id, eid in eids.items())
        return section

    # -- what the room is like -----------------------------------------------------------------------------------------

    def _facts(self, plan: _Plan, changed: Mapping[Key, int]) -> dict[str, Json]:
        section: dict[str, Json] = {"membership": plan.member.membership}
        if plan.after is None:
            section["initial"] = True
        keys = [key for key in (("m.room.name", ""), ("m.room.avatar", "")) if key in changed]
        rows = events.by_eids(self._rx, [changed[key] for key in keys]) if keys else {}
        for row in rows.values():
            field, source = ("name", "name") if row.event.type == "m.room.name" else ("avatar", "url")
            value = row.event.content.get(source)
            if isinstance(value, str) and value:
                section[field] = value
            elif plan.after is not None:
                section[field] = None
        if plan.after is None or any(kind == MEMBER for kind, _ in changed) or ("m.room.name", "") in changed:
            self._people(plan, section)
        return section

    def _people(self, plan: _Plan, section: dict[str, Json]) -> None:
        """Say how many there are, and for a nameless room who stands for it."""
        member = plan.member
        if member.membership != INSIDE:
            return  # how many came and went since is no business of somebody outside
        section["joined_count"], section["invited_count"] = sync.member_counts(self._rx, member.rid)
        if "name" not in section and (plan.after is None or not self._named(member.rid)):
            section["heroes"] = self._heroes(member)
        elif section.get("name", "") is None:
            section["heroes"] = self._heroes(member)

    def _named(self, rid: int) -> bool:
        rows = events.current_events(self._rx, rid, [("m.room.name", "")])
        return any(isinstance(row.event.content.get("name"), str) and row.event.content["name"] for row in rows)

    def _heroes(self, member: Membership) -> list[dict[str, str]]:
        people = sync.heroes(self._rx, member.rid, member.user_id)
        rows = events.by_eids(self._rx, [eid for _, eid in people])
        heroes = []
        for user_id, eid in people:
            hero = {"user_id": user_id}
            content: Mapping[str, Json] = rows[eid].event.content if eid in rows else {}
            for field in ("displayname", "avatar_url"):
                value = content.get(field)
                if isinstance(value, str):
                    hero[field] = value
            heroes.append(hero)
        return heroes

    def _bump(self, plan: _Plan, found: Stretch, section: dict[str, Json]) -> None:
        """Say when the room last saw proper activity, if that is new."""
        member = plan.member
        if member.membership != INSIDE:
            section["bump_stamp"] = member.pos
            return
        positions = [row.pos for row in found.rows if row.event.type in BUMPS and row.pos]
        if positions:
            section["bump_stamp"] = max(positions)
        elif plan.after is None or found.limited:
            last = sync.last_of_types(self._rx, member.rid, BUMPS, LOOK_BACK)
            if last is not None or plan.after is None:
                section["bump_stamp"] = last or member.pos

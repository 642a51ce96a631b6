"""Replacing a room by one of another version.

The successor is created with the old room's settings and takes over its aliases; then the old room gets a tombstone
that points to it, and its power levels are raised so that nobody goes on talking there.

Source: client-server API, "Room upgrades", "Server behaviour".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from appliance.matrix import versions
from appliance.matrix.auth import CREATE, POWER_LEVELS
from appliance.matrix.errors import Forbidden, UnsupportedRoomVersion
from appliance.matrix.event import Event
from appliance.matrix.ids import RoomId, UserId
from appliance.matrix.power import Power
from appliance.matrix.requester import Requester, require_active
from appliance.rooms.author import Author, Draft
from appliance.rooms.create import Founding
from appliance.rooms.head import Head
from appliance.rooms.profiles import member_content
from appliance.store import rooms
from appliance.store.events import Row
from appliance.store.state import Key
from appliance.store.writer import Tx

Json = Any

CARRIED: Sequence[str] = (
    "m.room.server_acl",
    "m.room.encryption",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.guest_access",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.canonical_alias",
)
"""State that passes to the successor as it is."""


async def upgrade(author: Author, founding: Founding, requester: Requester, room_id: str, version: str) -> RoomId:
    """Replace a room by one of `version`; return the successor's id. Raises `Forbidden` without the power to."""
    require_active(requester)
    if version not in founding.creatable:
        raise UnsupportedRoomVersion(f"Rooms of version {version} cannot be created here")
    old = await author.head(room_id)
    carried = [(type, "") for type in CARRIED]
    bans = [key for key in old.state if key[0] == "m.room.member"]
    state = await author.heads.state_of(old, [CREATE, POWER_LEVELS, ("m.room.member", requester.user_id), *carried])
    _check_power(old, state, requester.user_id)
    new_id = RoomId(f"!{founding.new_id()}:{author.server}")
    new = Head(0, new_id, versions.get(version), [], {})
    banned = [
        event for event in (await author.heads.state_of(old, bans)).values() if event.content.get("membership") == "ban"
    ]
    drafts = await _drafts(author, new, requester.user_id, old, state, banned)

    def also(tx: Tx, rid: int, rows: Sequence[Row]) -> None:
        rooms.move_aliases(tx, old.rid, rid)

    async def each() -> Any:
        for draft in drafts:
            yield draft

    await author.found(new, each(), also)
    await _close(author, requester.user_id, old, state, new.room_id)
    return new.room_id


def _check_power(head: Head, state: Mapping[Key, Event], user_id: UserId) -> None:
    member = state.get(("m.room.member", user_id))
    if member is None or member.content.get("membership") != "join":
        raise Forbidden("You are not in this room")
    power = Power(head.version, state.get(CREATE), state.get(POWER_LEVELS))
    if power.of(user_id) < power.event_level("m.room.tombstone", True):
        raise Forbidden("You may not upgrade this room")


async def _drafts(
    author: Author, new: Head, user_id: UserId, old: Head, state: Mapping[Key, Event], banned: Sequence[Event]
) -> list[Draft]:
    def draft(type: str, content: Mapping[str, Json], state_key: str = "") -> Draft:
        return Draft(type, user_id, content, state_key)

    create = state[CREATE].content
    content: dict[str, Json] = {key: create[key] for key in ("type", "m.federate") if key in create}
    content["room_version"] = new.version.name
    content["predecessor"] = {"room_id": old.room_id, "event_id": old.tips[-1][0]}
    if not new.version.creator_from_sender:
        content["creator"] = user_id
    drafts = [
        draft("m.room.create", content),
        draft("m.room.member", await member_content(author, user_id, "join"), user_id),
        # First with the founder in charge, so that everything after it is allowed.
        draft("m.room.power_levels", _levels(new, user_id, state.get(POWER_LEVELS), founder=True)),
    ]
    drafts += [draft(type, state[(type, "")].content) for type in CARRIED if (type, "") in state]
    drafts += [draft("m.room.member", event.content, event.key[1]) for event in banned]
    final = _levels(new, user_id, state.get(POWER_LEVELS), founder=False)
    if final != drafts[2].content:
        drafts.append(draft("m.room.power_levels", final))
    return drafts


def _levels(new: Head, user_id: UserId, old: Event | None, *, founder: bool) -> dict[str, Json]:
    """Return the old room's power levels in the form the new version takes; with `founder`, the upgrader on top."""
    levels: dict[str, Json] = dict(old.content) if old is not None else {}
    known = levels.get("users")
    users = {user: level for user, level in known.items() if type(level) is int} if isinstance(known, dict) else {}
    if new.version.privileged_creators:
        users.pop(user_id, None)
        events = levels.get("events")
        levels["events"] = {**(events if isinstance(events, dict) else {}), "m.room.tombstone": 150}
    elif founder or not users:
        users = {**users, user_id: max([100, *users.values()])}
    levels["users"] = users
    return levels


async def _close(author: Author, user_id: UserId, old: Head, state: Mapping[Key, Event], successor: RoomId) -> None:
    tombstone = {"body": "This room has been replaced", "replacement_room": successor}
    await author.add(old.room_id, Draft("m.room.tombstone", user_id, tombstone, ""))
    power = Power(old.version, state.get(CREATE), state.get(POWER_LEVELS))
    floor = max(power.named("users_default") + 1, 50)
    content: dict[str, Json] = dict(state[POWER_LEVELS].content) if POWER_LEVELS in state else {"users": {user_id: 100}}
    content["events_default"] = max(power.events_default, floor)
    content["invite"] = max(power.invite, floor)
    try:
        await author.add(old.room_id, Draft("m.room.power_levels", user_id, content, ""))
    except Forbidden:
        return  # somebody who may upgrade but not change levels: the tombstone alone must do

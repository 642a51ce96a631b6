"""How a room comes into being.

The order of the first events is the specification's: create, the creator's join, power levels, alias, join rules,
history visibility, guest access, `initial_state`, name and topic, invitations. All of them, the alias and the entry
in the directory are one transaction: a room exists wholly or not at all.

Source: client-server API, `POST /createRoom`; room version 12 for privileged creators.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import msgspec

from appliance.matrix import versions
from appliance.matrix.errors import BadJson, Forbidden, InvalidParam, MatrixError, UnsupportedRoomVersion
from appliance.matrix.ids import RoomId, UserId
from appliance.matrix.requester import Requester, require_active
from appliance.matrix.versions import RoomVersion
from appliance.rooms.author import Author, Draft
from appliance.rooms.head import Head
from appliance.rooms.invite import check_invitable, invitation
from appliance.rooms.profiles import member_content
from appliance.store import rooms
from appliance.store.events import Row
from appliance.store.writer import Tx

Json = Any


class Preset(msgspec.Struct, frozen=True):
    """What a preset name of `createRoom` stands for."""

    join_rule: str
    history_visibility: str
    guest_access: str
    trusted: bool = False


PRESETS: Mapping[str, Preset] = {
    "private_chat": Preset("invite", "shared", "can_join"),
    "trusted_private_chat": Preset("invite", "shared", "can_join", trusted=True),
    "public_chat": Preset("public", "shared", "forbidden"),
}


class Wish(msgspec.Struct, frozen=True):
    """A parsed `createRoom` request. `alias` is the full alias; `version` None means the profile's default."""

    preset: Preset
    version: str | None = None
    alias: str | None = None
    name: str | None = None
    topic: str | None = None
    invite: tuple[UserId, ...] = ()
    is_direct: bool = False
    public: bool = False
    creation_content: Mapping[str, Json] = msgspec.field(default_factory=dict)
    initial_state: Sequence[tuple[str, str, Mapping[str, Json]]] = ()
    power_levels: Mapping[str, Json] = msgspec.field(default_factory=dict)


class Founding(msgspec.Struct, frozen=True):
    """What the house allows: the versions that may be created, the default one, and a maker of random room ids."""

    creatable: Sequence[str]
    default: str
    public_rooms: bool
    new_id: Callable[[], str]


async def create(author: Author, founding: Founding, requester: Requester, wish: Wish) -> RoomId:
    """Create a room as wished and return its id. Raises `RoomInUse` for a taken alias."""
    require_active(requester)
    version = _version(founding, wish)
    if wish.public and not founding.public_rooms:
        raise Forbidden("Rooms cannot be listed publicly here")
    if wish.alias is not None and await author.store.read(rooms.alias_target, wish.alias) is not None:
        raise RoomInUse(f"The alias {wish.alias} is taken")
    for user_id in wish.invite:
        await check_invitable(author, user_id)
    head = Head(0, RoomId(f"!{founding.new_id()}:{author.server}"), version, [], {})

    def also(tx: Tx, rid: int, rows: Sequence[Row]) -> None:
        if wish.alias is not None and not rooms.add_alias(tx, wish.alias, rid, requester.user_id, author.clock()):
            raise RoomInUse(f"The alias {wish.alias} is taken")
        if wish.public:
            rooms.publish(tx, rid)

    await author.found(head, _drafts(author, head, requester.user_id, wish), also)
    return head.room_id


def _version(founding: Founding, wish: Wish) -> RoomVersion:
    name = wish.version or founding.default
    if name not in founding.creatable:
        raise UnsupportedRoomVersion(f"Rooms of version {name} cannot be created here")
    return versions.get(name)


async def _drafts(author: Author, head: Head, creator: UserId, wish: Wish) -> AsyncIterator[Draft]:
    """Yield the room's first events in order. Each is built before the next is asked for."""

    def state(type: str, content: Mapping[str, Json], state_key: str = "") -> Draft:
        return Draft(type, creator, content, state_key)

    given = {(type, state_key) for type, state_key, _ in wish.initial_state}
    yield state("m.room.create", _create_content(creator, head.version, wish))
    yield state("m.room.member", await member_content(author, creator, "join"), creator)
    yield state("m.room.power_levels", _power_levels(creator, head.version, wish))
    if wish.alias is not None and ("m.room.canonical_alias", "") not in given:
        yield state("m.room.canonical_alias", {"alias": wish.alias})
    for type, name, value in (
        ("m.room.join_rules", "join_rule", wish.preset.join_rule),
        ("m.room.history_visibility", "history_visibility", wish.preset.history_visibility),
        ("m.room.guest_access", "guest_access", wish.preset.guest_access),
    ):
        if (type, "") not in given:
            yield state(type, {name: value})
    for type, state_key, content in wish.initial_state:
        yield state(type, content, state_key)
    if wish.name:
        yield state("m.room.name", {"name": wish.name})
    if wish.topic:
        yield state("m.room.topic", {"topic": wish.topic, "m.topic": {"m.text": [{"body": wish.topic}]}})
    for user_id in wish.invite:
        yield await invitation(author, head, creator, user_id, is_direct=wish.is_direct)


def _create_content(creator: UserId, version: RoomVersion, wish: Wish) -> dict[str, Json]:
    content = {**wish.creation_content, "room_version": version.name}
    if not version.creator_from_sender:
        content["creator"] = creator
    if version.privileged_creators and wish.preset.trusted:
        more = content.get("additional_creators", [])
        if not isinstance(more, list):
            raise BadJson("additional_creators must be a list of user ids")
        content["additional_creators"] = list(dict.fromkeys([*more, *wish.invite]))
    return content


def _power_levels(creator: UserId, version: RoomVersion, wish: Wish) -> dict[str, Json]:
    """Defaults, then what the request overrides. Privileged creators stand above and must not be listed."""
    users = {} if version.privileged_creators else {creator: 100}
    if wish.preset.trusted and not version.privileged_creators:
        users.update(dict.fromkeys(wish.invite, 100))
    events = {
        "m.room.name": 50,
        "m.room.power_levels": 100,
        "m.room.history_visibility": 100,
        "m.room.canonical_alias": 50,
        "m.room.avatar": 50,
        "m.room.tombstone": 150 if version.privileged_creators else 100,
        "m.room.server_acl": 100,
        "m.room.encryption": 100,
    }
    levels: dict[str, Json] = {
        "users": users,
        "users_default": 0,
        "events": events,
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": 0,
        "historical": 100,
    }
    if wish.power_levels:
        levels.update(wish.power_levels)
        mine = levels["users"].get(creator) if isinstance(levels["users"], dict) else None
        if not version.privileged_creators and mine is None:
            raise InvalidParam("power_level_content_override must keep a level for the creator")
    return levels


class RoomInUse(MatrixError):
    """The alias belongs to another room."""

    status, errcode = 400, "M_ROOM_IN_USE"

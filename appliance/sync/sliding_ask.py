"""What a client asks of a sliding sync, parsed (MSC4186).

A room config says what to send of a room: how many events, and which state. Several rules of one request may match the
same room; then their configs are united (`|`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from appliance.matrix.requester import Requester

MEMBER: Final = "m.room.member"
Key = tuple[str, str]


class RequiredState(msgspec.Struct, frozen=True):
    """Which state is wanted.

    `everything` leaves members aside: these are wanted all (`members`) or when needed (`lazy`). `types` are wanted with
    every state key, `state_keys` with every type.
    """

    keys: frozenset[Key] = frozenset()
    types: frozenset[str] = frozenset()
    state_keys: frozenset[str] = frozenset()
    everything: bool = False
    members: bool = False
    lazy: bool = False

    def wants(self, key: Key) -> bool:
        """Tell whether a state key is wanted in any case."""
        if key in self.keys or key[1] in self.state_keys:
            return True
        if key[0] == MEMBER:
            return self.members
        return self.everything or key[0] in self.types

    @property
    def lazily(self) -> bool:
        """Whether members go out when they are needed, and not all at once."""
        return self.lazy and not self.members

    def __or__(self, other: RequiredState) -> RequiredState:
        return RequiredState(
            self.keys | other.keys, self.types | other.types, self.state_keys | other.state_keys,
            self.everything or other.everything, self.members or other.members, self.lazy or other.lazy,
        )


def required_state(pairs: Iterable[Key], user_id: str) -> RequiredState:
    """Read pairs of type and state key with the wildcards `*`, `$ME` and `$LAZY`."""
    wanted = list(pairs)
    lazy = (MEMBER, "$LAZY") in wanted
    keys, types, state_keys = set(), set(), set()
    everything = members = False
    for kind, state_key in wanted:
        name = user_id if state_key == "$ME" else state_key
        match (kind, name):
            case ("*", "*"):
                everything, members = True, members or not lazy
            case ("*", _):
                state_keys.add(name)
            case (_, "*") if kind == MEMBER:
                members = True
            case (_, "*"):
                types.add(kind)
            case (_, "$LAZY"):
                pass
            case _:
                keys.add((kind, name))
    return RequiredState(frozenset(keys), frozenset(types), frozenset(state_keys), everything, members, lazy)


NO_STATE: Final = RequiredState()


class RoomConfig(msgspec.Struct, frozen=True):
    """What to send of a room: at most `limit` events, and which state."""

    limit: int
    required: RequiredState = NO_STATE

    def __or__(self, other: RoomConfig) -> RoomConfig:
        return self if self == other else RoomConfig(max(self.limit, other.limit), self.required | other.required)


class ListFilter(msgspec.Struct, frozen=True):
    """Which rooms belong to a list; None does not restrict. A room type of None means a room without one."""

    is_dm: bool | None = None
    is_encrypted: bool | None = None
    is_invite: bool | None = None
    spaces: frozenset[str] | None = None
    room_types: frozenset[str | None] | None = None
    not_room_types: frozenset[str | None] = frozenset()
    tags: frozenset[str] | None = None
    not_tags: frozenset[str] = frozenset()


ALL_ROOMS: Final = ListFilter()


class ListAsk(msgspec.Struct, frozen=True):
    """One list: which part of it (`ranges`, both ends included; None: all of it) and what of every room."""

    config: RoomConfig
    ranges: tuple[tuple[int, int], ...] | None = None
    filter: ListFilter = ALL_ROOMS


class Scope(msgspec.Struct, frozen=True):
    """In which rooms an extension applies: by list, and by subscription. None: in all."""

    lists: frozenset[str] | None = None
    rooms: frozenset[str] | None = None


class LettersAsk(msgspec.Struct, frozen=True):
    """Messages for the device after position `since`, at most `limit`."""

    since: int
    limit: int


class Extensions(msgspec.Struct, frozen=True):
    """Which extensions are on; None: off."""

    to_device: LettersAsk | None = None
    e2ee: bool = False
    account_data: Scope | None = None
    receipts: Scope | None = None
    typing: Scope | None = None

    def like(self, other: Extensions) -> bool:
        """Tell whether the same is on, whatever the position of messages for the device."""
        mine = (self.e2ee, self.account_data, self.receipts, self.typing)
        return mine == (other.e2ee, other.account_data, other.receipts, other.typing)


class SlidingAsk(msgspec.Struct, frozen=True):
    """One request. `pos` None begins the connection anew; `timeout` is in milliseconds."""

    requester: Requester
    conn_id: str = ""
    pos: str | None = None
    timeout: int = 0
    presence: str = "online"
    lists: Mapping[str, ListAsk] = msgspec.field(default_factory=dict)
    subscriptions: Mapping[str, RoomConfig] = msgspec.field(default_factory=dict)
    extensions: Extensions = Extensions()

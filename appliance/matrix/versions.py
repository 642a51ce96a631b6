"""Room versions as a table of switches: one row per version, nothing else in the house asks for a version's number.

Rows are derived from their predecessor, so reading from top to bottom is reading the history of the protocol. Which
versions may be created here, and which is the default, is the profile's business.

Source: room version specifications 6 to 12.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from appliance.matrix.errors import UnsupportedRoomVersion


@dataclass(frozen=True, slots=True)
class RuleNumbers:
    """Where the specification of a room version prints each authorisation rule; used to name a refusal."""

    auth: str = "2"
    federate: str = "3"
    member: str = "4"
    authorised: str = ""
    join: str = "4.2"
    join_restricted: str = ""
    join_otherwise: str = "4.2.6"
    invite: str = "4.3"
    leave: str = "4.4"
    ban: str = "4.5"
    knock: str = ""
    unknown_membership: str = "4.6"
    not_joined: str = "5"
    third_party_invite: str = "6.1"
    level: str = "7"
    foreign_state_key: str = "8"
    power_integers: str = ""
    power_integer_maps: str = ""
    power_users: str = "9.1"
    power_creators: str = ""
    power_scalars: str = "9.3"
    power_maps_old: str = "9.4"
    power_maps_new: str = "9.5"
    power_users_old: str = "9.6"
    power_users_new: str = "9.7"


@dataclass(frozen=True, slots=True)
class RoomVersion:
    """How rooms of one version behave."""

    name: str
    rules: RuleNumbers
    redaction_keys: frozenset[str]
    """Top-level keys that survive a redaction."""
    redaction_content: Mapping[str, frozenset[str]]
    """Keys of `content` that survive a redaction, by event type; other types lose all."""
    knocking: bool = False
    """Membership `knock` and the join rule of that name exist."""
    restricted_joins: bool = False
    """The join rule `restricted` exists."""
    knock_restricted: bool = False
    """The join rule `knock_restricted` exists."""
    integer_power_levels: bool = False
    """Power levels must be integers; earlier versions also read integers written as strings."""
    creator_from_sender: bool = False
    """The creator is the sender of the create event; earlier versions name it in `content.creator`."""
    modern_redactions: bool = False
    """Redactions name their target in `content`, keep all of the create event and `third_party_invite.signed`."""
    room_id_is_hash: bool = False
    """The room id is the id of the create event, which carries none itself and is in nobody's `auth_events`."""
    privileged_creators: bool = False
    """Creators, the additional ones included, stand above every power level."""
    resolution_2_1: bool = False
    """State resolution starts from nothing and includes the conflicted state subgraph (algorithm 2.1)."""

    def __repr__(self) -> str:
        return f"RoomVersion({self.name})"


_POWER_KEYS: Final = frozenset(
    {"ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"}
)
_CURRENT_KEYS: Final = frozenset(
    {
        "event_id", "type", "room_id", "sender", "state_key", "content", "hashes", "signatures", "depth",
        "prev_events", "auth_events", "origin_server_ts",
    }
)  # fmt: skip


def _content(row: RoomVersion, **changes: frozenset[str]) -> Mapping[str, frozenset[str]]:
    """Return the row's table with the entries of `m.room.<name>` replaced."""
    return MappingProxyType({**row.redaction_content, **{f"m.room.{name}": keys for name, keys in changes.items()}})


_V6: Final = RoomVersion(
    name="6",
    rules=RuleNumbers(),
    redaction_keys=_CURRENT_KEYS | {"prev_state", "origin", "membership"},
    redaction_content=MappingProxyType(
        {
            "m.room.member": frozenset({"membership"}),
            "m.room.create": frozenset({"creator"}),
            "m.room.join_rules": frozenset({"join_rule"}),
            "m.room.power_levels": _POWER_KEYS,
            "m.room.history_visibility": frozenset({"history_visibility"}),
        }
    ),
)
_V7: Final = replace(
    _V6, name="7", knocking=True, rules=replace(_V6.rules, knock="4.6", unknown_membership="4.7")
)
_V8: Final = replace(
    _V7,
    name="8",
    restricted_joins=True,
    redaction_content=_content(_V7, join_rules=frozenset({"join_rule", "allow"})),
    rules=replace(
        _V7.rules,
        authorised="4.2.1",
        join="4.3",
        join_restricted="4.3.5.2",
        join_otherwise="4.3.7",
        invite="4.4",
        leave="4.5",
        ban="4.6",
        knock="4.7",
        unknown_membership="4.8",
    ),
)
_V9: Final = replace(
    _V8,
    name="9",
    redaction_content=_content(_V8, member=frozenset({"membership", "join_authorised_via_users_server"})),
)
_V10: Final = replace(
    _V9,
    name="10",
    knock_restricted=True,
    integer_power_levels=True,
    rules=replace(
        _V9.rules,
        power_integers="9.1",
        power_integer_maps="9.2",
        power_users="9.3",
        power_scalars="9.5",
        power_maps_old="9.6",
        power_maps_new="9.7",
        power_users_old="9.8",
        power_users_new="9.9",
    ),
)
_V11: Final = replace(
    _V10,
    name="11",
    creator_from_sender=True,
    modern_redactions=True,
    redaction_keys=_CURRENT_KEYS,
    redaction_content=_content(
        _V10, power_levels=_POWER_KEYS | {"invite"}, redaction=frozenset({"redacts"})
    ),
)
_V12: Final = replace(
    _V11,
    name="12",
    room_id_is_hash=True,
    privileged_creators=True,
    resolution_2_1=True,
    rules=RuleNumbers(
        auth="3",
        federate="4",
        member="5",
        authorised="5.2.1",
        join="5.3",
        join_restricted="5.3.5.2",
        join_otherwise="5.3.7",
        invite="5.4",
        leave="5.5",
        ban="5.6",
        knock="5.7",
        unknown_membership="5.8",
        not_joined="6",
        third_party_invite="7.1",
        level="8",
        foreign_state_key="9",
        power_integers="10.1",
        power_integer_maps="10.2",
        power_users="10.3",
        power_creators="10.4",
        power_scalars="10.6",
        power_maps_old="10.7",
        power_maps_new="10.8",
        power_users_old="10.9",
        power_users_new="10.10",
    ),
)

KNOWN: Final[Mapping[str, RoomVersion]] = MappingProxyType(
    {row.name: row for row in (_V6, _V7, _V8, _V9, _V10, _V11, _V12)}
)
"""Every room version whose rules this house can apply."""


def get(name: str) -> RoomVersion:
    """Return the row of a room version; `UnsupportedRoomVersion` when its rules are unknown here."""
    try:
        return KNOWN[name]
    except KeyError:
        raise UnsupportedRoomVersion(f"Room version {name!r} is not supported") from None

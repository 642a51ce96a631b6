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
from appliance.matrix.rules import V6_RULES, V7_RULES, V8_RULES, V10_RULES, V12_RULES, RuleNumbers


@dataclass(frozen=True, slots=True, eq=False)
class RoomVersion:
    """How rooms of one version behave; the rows of `KNOWN` are the only ones, so they compare by identity."""

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
    rules=V6_RULES,
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
    _V6, name="7", knocking=True, rules=V7_RULES
)
_V8: Final = replace(
    _V7,
    name="8",
    restricted_joins=True,
    redaction_content=_content(_V7, join_rules=frozenset({"join_rule", "allow"})),
    rules=V8_RULES,
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
    rules=V10_RULES,
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
    rules=V12_RULES,
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

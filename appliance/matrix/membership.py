"""The membership rules as a table: who may come in, knock, leave, per room version.

`auth` applies the table to events; the membership recipes read it to know beforehand what will be allowed.

Source: room versions, authorisation rules for `m.room.member`.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

import msgspec

from appliance.matrix.event import Event
from appliance.matrix.versions import KNOWN, RoomVersion

INVITED_OR_IN: Final = frozenset({"invite", "join"})
"""Memberships that may join whatever the join rule says, unless it is unknown."""

NOT_INVITABLE: Final = frozenset({"join", "ban"})
"""Memberships of a target that make an invite pointless or forbidden."""

NOT_KNOCKING: Final = frozenset({"ban", "invite", "join"})
"""Memberships that may not knock."""


class Entry(Enum):
    """How a join rule lets people in."""

    OPEN = "anybody"
    INVITED = "whoever is invited"
    RESTRICTED = "whoever is invited, or vouched for by a member who may invite"


class MembershipTable(msgspec.Struct, frozen=True):
    """The switches of one room version."""

    entry: Mapping[str, Entry]
    """By join rule; a rule that is missing here lets nobody in."""
    knockable: frozenset[str]
    """Join rules under which one may knock."""
    may_leave: frozenset[str]
    """Own memberships that can be given up."""


def _table(version: RoomVersion) -> MembershipTable:
    entry = {"public": Entry.OPEN, "invite": Entry.INVITED}
    knockable: set[str] = set()
    if version.knocking:
        entry["knock"] = Entry.INVITED
        knockable.add("knock")
    if version.restricted_joins:
        entry["restricted"] = Entry.RESTRICTED
    if version.knock_restricted:
        entry["knock_restricted"] = Entry.RESTRICTED
        knockable.add("knock_restricted")
    leavers = INVITED_OR_IN | {"knock"} if version.knocking else INVITED_OR_IN
    return MembershipTable(MappingProxyType(entry), frozenset(knockable), leavers)


_TABLES: Final[Mapping[str, MembershipTable]] = {name: _table(version) for name, version in KNOWN.items()}


def table_of(version: RoomVersion) -> MembershipTable:
    """Return the table of a room version."""
    return _TABLES[version.name]


def membership_of(member: Event | None) -> str:
    """Return the membership a member event states; `leave` for somebody who was never there."""
    membership = member.content.get("membership") if member is not None else None
    return membership if isinstance(membership, str) else "leave"


def join_rule_of(join_rules: Event | None) -> str:
    """Return the join rule in force; `invite` where none is set."""
    rule = join_rules.content.get("join_rule") if join_rules is not None else None
    return rule if isinstance(rule, str) else "invite"

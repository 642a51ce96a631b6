"""Rule 4 (5 in room version 12): may this membership event stand in this state?

One function per membership, in the order of the specification; `membership` holds what differs between versions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Final

import msgspec

from appliance.matrix.canonical import Json
from appliance.matrix.event import Event
from appliance.matrix.ids import is_user_id, server_of
from appliance.matrix.membership import (
    INVITED_OR_IN,
    NOT_INVITABLE,
    NOT_KNOCKING,
    Entry,
    join_rule_of,
    membership_of,
    table_of,
)
from appliance.matrix.power import Power, creators_of
from appliance.matrix.rules import Rejected, RuleNumbers
from appliance.matrix.signing import BadSignature, signature_of, signed_bytes, verify_bytes

MOST_THIRD_PARTY_KEYS: Final = 16
MOST_THIRD_PARTY_SIGNATURES: Final = 16
"""How many keys and signatures of a third-party invite are tried: a full event of them would cost half a minute."""


class _Case(msgspec.Struct, frozen=True):
    """A membership event, the state it is held against, and what was looked up once."""

    event: Event
    target: str
    create: Event
    state: Mapping[tuple[str, str], Event]
    rules: RuleNumbers
    power: Power

    def membership(self, user: str) -> str:
        return membership_of(self.state.get(("m.room.member", user)))


def check_member(event: Event, create: Event, state: Mapping[tuple[str, str], Event]) -> None:
    """Apply the membership rules; raises `Rejected`."""
    rules = event.version.rules
    if event.state_key is None or "membership" not in event.content:
        raise Rejected(rules.member_form, "a membership event needs a state key and a membership")
    power = Power(event.version, create, state.get(("m.room.power_levels", "")))
    case = _Case(event, event.state_key, create, state, rules, power)
    if event.version.restricted_joins and "join_authorised_via_users_server" in event.content:
        _check_authoriser_signed(case)
    membership = event.content["membership"]
    rule = _BY_MEMBERSHIP.get(membership) if isinstance(membership, str) else None
    if rule is None or (membership == "knock" and not event.version.knocking):
        raise Rejected(rules.unknown_membership, "the membership is unknown")
    rule(case)


def _check_authoriser_signed(case: _Case) -> None:
    authoriser = case.event.content["join_authorised_via_users_server"]
    signatures = case.event.pdu.get("signatures")
    if (
        not isinstance(authoriser, str)
        or not is_user_id(authoriser)
        or not isinstance(signatures, dict)
        or not signatures.get(server_of(authoriser))
    ):
        raise Rejected(case.rules.authorised, "the server that authorised the join has not signed it")


def _check_join(case: _Case) -> None:
    event, number = case.event, case.rules.join
    if event.prev_events == (case.create.event_id,) and case.target in _first_members(case.create):
        return
    if event.sender != case.target:
        raise Rejected(f"{number}.2", "nobody can join for somebody else")
    membership = case.membership(case.target)
    if membership == "ban":
        raise Rejected(f"{number}.3", "the user is banned from the room")
    join_rule = join_rule_of(case.state.get(("m.room.join_rules", "")))
    entry = table_of(event.version).entry.get(join_rule)
    if entry is Entry.OPEN:
        return
    if entry is not None and membership in INVITED_OR_IN:
        return
    if entry is Entry.RESTRICTED:
        _check_voucher(case)
        return
    raise Rejected(case.rules.join_otherwise, "the user is not invited to the room")


def _first_members(create: Event) -> frozenset[str]:
    """Return who may join directly after the create event: its sender, or the older `content.creator`."""
    return frozenset({create.sender}) if create.version.creator_from_sender else creators_of(create)


def _check_voucher(case: _Case) -> None:
    voucher = case.event.content.get("join_authorised_via_users_server")
    if (
        not isinstance(voucher, str)
        or case.membership(voucher) != "join"
        or case.power.of(voucher) < case.power.invite
    ):
        raise Rejected(case.rules.join_restricted, "no member who may invite has authorised the join")


def _check_invite(case: _Case) -> None:
    event, number = case.event, case.rules.invite
    if "third_party_invite" in event.content:
        _check_third_party_invite(case)
        return
    if case.membership(event.sender) != "join":
        raise Rejected(f"{number}.2", "the sender is not in the room")
    if case.membership(case.target) in NOT_INVITABLE:
        raise Rejected(f"{number}.3", "the user is already in the room or banned from it")
    if case.power.of(event.sender) < case.power.invite:
        raise Rejected(f"{number}.5", "the sender may not invite")


def _check_third_party_invite(case: _Case) -> None:
    event, number = case.event, f"{case.rules.invite}.1"
    if case.membership(case.target) == "ban":
        raise Rejected(f"{number}.1", "the user is banned from the room")
    invite = event.content["third_party_invite"]
    signed = invite.get("signed") if isinstance(invite, dict) else None
    if not isinstance(signed, dict):
        raise Rejected(f"{number}.2", "the third-party invite is not signed")
    token = signed.get("token")
    if "mxid" not in signed or not isinstance(token, str):
        raise Rejected(f"{number}.3", "the third-party invite has no mxid or token")
    if signed["mxid"] != case.target:
        raise Rejected(f"{number}.4", "the third-party invite is for somebody else")
    origin = case.state.get(("m.room.third_party_invite", token))
    if origin is None:
        raise Rejected(f"{number}.5", "the room knows no such third-party invite")
    if origin.sender != event.sender:
        raise Rejected(f"{number}.6", "the third-party invite was made by somebody else")
    if not _signed_by_any(signed, _third_party_keys(origin.content)):
        raise Rejected(f"{number}.8", "no signature of the third-party invite matches")


def _third_party_keys(content: Mapping[str, Json]) -> list[str]:
    found = [content.get("public_key")]
    listed = content.get("public_keys")
    if isinstance(listed, list):
        found.extend(entry.get("public_key") for entry in listed if isinstance(entry, dict))
    unique = dict.fromkeys(key for key in found if isinstance(key, str))
    return list(islice(unique, MOST_THIRD_PARTY_KEYS))


def _signed_by_any(signed: Mapping[str, Json], keys: list[str]) -> bool:
    signatures = signed.get("signatures")
    if not isinstance(signatures, dict):
        return False
    places = [
        (server, key_id)
        for server, entry in signatures.items()
        if isinstance(entry, dict)
        for key_id in entry
        if key_id.startswith("ed25519:")
    ]
    message = signed_bytes(signed)
    for server, key_id in places[:MOST_THIRD_PARTY_SIGNATURES]:
        for key in keys:
            try:
                verify_bytes(message, signature_of(signed, server, key_id), key)
            except BadSignature:
                continue
            return True
    return False


def _check_leave(case: _Case) -> None:
    event, number, power = case.event, case.rules.leave, case.power
    membership = case.membership(case.target)
    if event.sender == case.target:
        if membership not in table_of(event.version).may_leave:
            raise Rejected(f"{number}.1", "the user is not in the room")
        return
    if case.membership(event.sender) != "join":
        raise Rejected(f"{number}.2", "the sender is not in the room")
    level = power.of(event.sender)
    if membership == "ban" and level < power.ban:
        raise Rejected(f"{number}.3", "the sender may not lift a ban")
    if level < power.kick or power.of(case.target) >= level:
        raise Rejected(f"{number}.5", "the sender may not remove this user")


def _check_ban(case: _Case) -> None:
    event, number, power = case.event, case.rules.ban, case.power
    if case.membership(event.sender) != "join":
        raise Rejected(f"{number}.1", "the sender is not in the room")
    level = power.of(event.sender)
    if level < power.ban or power.of(case.target) >= level:
        raise Rejected(f"{number}.3", "the sender may not ban this user")


def _check_knock(case: _Case) -> None:
    event, number = case.event, case.rules.knock
    join_rule = join_rule_of(case.state.get(("m.room.join_rules", "")))
    if join_rule not in table_of(event.version).knockable:
        raise Rejected(f"{number}.1", "the room does not take knocks")
    if event.sender != case.target:
        raise Rejected(f"{number}.2", "nobody can knock for somebody else")
    if case.membership(event.sender) in NOT_KNOCKING:
        raise Rejected(f"{number}.4", "the user is already invited, in the room or banned from it")


_BY_MEMBERSHIP: Final[Mapping[str, Callable[[_Case], None]]] = {
    "join": _check_join,
    "invite": _check_invite,
    "leave": _check_leave,
    "ban": _check_ban,
    "knock": _check_knock,
}

"""The authorisation rules: may this event stand in this state?

How the pieces fit. An event is checked against the same rules several times in its life, each time against another
state; this module knows nothing about where the state comes from:

1. against the state its own `auth_events` form. `check_auth_events` first checks the *choice* of those events (rule 2;
   3 in room version 12) and returns the state they make, which then goes to `check`. Failing here rejects the event.
2. against the state before the event. Failing rejects it, too.
3. against the current state. Failing soft-fails it: it stays in the graph, unseen by clients.
4. during state resolution, against the state built so far (`resolve`).

`check` is one walk down the numbered rules: create events have rules of their own (1); every other event needs the
create event in the state, and a sender from a server the room federates with (3); membership events are decided
completely by `auth_member` (4); all others need a joined sender (5) with enough power (6, 7), may not use a foreign
user id as state key (8), and a change of power levels is examined entry by entry by `auth_power` (9). What survives is
allowed (10). Room version 12 prints all numbers from 3 on one higher; `rules` holds the numbers of each version, so
that `Rejected.rule` can be looked up in the specification of the room's own version.

Three rules reach beyond the state and are answered elsewhere: that signatures are *valid* (rule 4.2, and the sender's
own) is established before, from `event.signers`; here we only insist that the authorising server has signed at all.
That an auth event was itself rejected is told by the caller. And redactions are always allowed by these rules: whether
one takes effect is `redaction_applies`.

The create event must be part of every state handed in, in room version 12 as well, where it is implied by the room id
and never listed in `auth_events`.

Sources: room versions 6 to 12, "Authorisation rules"; server-server API, "Auth events selection".
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Final, TypeAlias

from appliance.matrix.auth_member import check_member
from appliance.matrix.auth_power import check_power_levels
from appliance.matrix.canonical import Json
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, is_user_id, server_of
from appliance.matrix.power import Power
from appliance.matrix.rules import Rejected
from appliance.matrix.versions import KNOWN, RoomVersion

__all__ = ["Key", "Rejected", "State", "auth_keys", "check", "check_auth_events", "redaction_applies"]

Key: TypeAlias = tuple[str, str]
"""Slot of a state event: type and state key."""

State: TypeAlias = Mapping[Key, Event]

CREATE: Final[Key] = ("m.room.create", "")
JOIN_RULES: Final[Key] = ("m.room.join_rules", "")
POWER_LEVELS: Final[Key] = ("m.room.power_levels", "")


def auth_keys(
    version: RoomVersion, type: str, sender: str, state_key: str | None, content: Mapping[str, Json]
) -> list[Key]:
    """Return the slots whose events an event must cite in `auth_events`, as far as the room has them.

    The create event is among them before room version 12 only; create events cite nothing.
    """
    if type == "m.room.create":
        return []
    keys = [POWER_LEVELS, ("m.room.member", sender)]
    if not version.room_id_is_hash:
        keys.insert(0, CREATE)
    if type != "m.room.member" or state_key is None:
        return keys
    if state_key != sender:
        keys.append(("m.room.member", state_key))
    membership = content.get("membership")
    if membership in ("join", "invite", "knock"):
        keys.append(JOIN_RULES)
    if membership == "invite":
        token = _third_party_token(content)
        if token is not None:
            keys.append(("m.room.third_party_invite", token))
    elif membership == "join" and version.restricted_joins:
        authoriser = content.get("join_authorised_via_users_server")
        if isinstance(authoriser, str) and ("m.room.member", authoriser) not in keys:
            keys.append(("m.room.member", authoriser))
    return keys


def _third_party_token(content: Mapping[str, Json]) -> str | None:
    invite = content.get("third_party_invite")
    signed = invite.get("signed") if isinstance(invite, dict) else None
    token = signed.get("token") if isinstance(signed, dict) else None
    return token if isinstance(token, str) else None


def check_auth_events(
    event: Event,
    auth_events: Iterable[Event],
    *,
    create: Event | None = None,
    rejected: Container[EventId] = frozenset(),
) -> dict[Key, Event]:
    """Check the choice of an event's auth events and return the state they form; raises `Rejected`.

    `auth_events` are the events named by `event.auth_events`; `create` is, for room version 12, the accepted create
    event of the room; `rejected` answers which of the events were themselves rejected.
    """
    version, rules = event.version, event.version.rules
    selected = set(auth_keys(version, event.type, event.sender, event.state_key, event.content))
    state: dict[Key, Event] = {}
    if event.type == "m.room.create":
        return state
    if version.room_id_is_hash and create is not None:
        state[CREATE] = create
    for auth_event in auth_events:
        key = (auth_event.type, auth_event.state_key if auth_event.state_key is not None else "")
        if key not in selected or not auth_event.is_state:
            raise Rejected(f"{rules.auth_events}.2", f"{key[0]} does not belong among the auth events")
        if key in state:
            raise Rejected(f"{rules.auth_events}.1", f"two auth events for {key[0]}")
        if auth_event.event_id in rejected:
            raise Rejected(f"{rules.auth_events}.3", "an auth event was itself rejected")
        if auth_event.room_id != event.room_id:
            raise Rejected(rules.wrong_room, "an auth event is from another room")
        state[key] = auth_event
    if CREATE not in state:
        raise Rejected(rules.create_missing, "the create event is not among the auth events")
    return state


def check(event: Event, state: State) -> None:
    """Apply the authorisation rules of the room's version to an event and a state; raises `Rejected`."""
    version, rules = event.version, event.version.rules
    if event.type == "m.room.create":
        _check_create(event)
        return
    create = state.get(CREATE)
    if create is None:
        raise Rejected(rules.create_missing, "the room has no create event")
    if create.room_id != event.room_id:
        raise Rejected("2" if version.room_id_is_hash else rules.wrong_room, "the create event is of another room")
    if create.content.get("m.federate") is False and server_of(event.sender) != server_of(create.sender):
        raise Rejected(rules.federate, "the room is closed to other servers")
    if event.type == "m.room.member":
        check_member(event, create, state)
        return
    member = state.get(("m.room.member", event.sender))
    if member is None or member.content.get("membership") != "join":
        raise Rejected(rules.not_joined, "the sender is not in the room")
    power = Power(version, create, state.get(POWER_LEVELS))
    _check_power(event, power)
    if event.type == "m.room.power_levels":
        check_power_levels(event, create, state.get(POWER_LEVELS), power)


def _check_power(event: Event, power: Power) -> None:
    rules = event.version.rules
    level = power.of(event.sender)
    if event.type == "m.room.third_party_invite":
        if level < power.invite:
            raise Rejected(rules.third_party_invite, "the sender may not invite")
        return
    state_key = event.state_key
    if power.event_level(event.type, state_key is not None) > level:
        raise Rejected(rules.level, f"the sender has not enough power to send {event.type}")
    if state_key is not None and state_key.startswith("@") and state_key != event.sender:
        raise Rejected(rules.foreign_state_key, "the state key is another user's id")


def _check_create(event: Event) -> None:
    """Apply rule 1."""
    version = event.version
    if event.prev_events:
        raise Rejected("1.1", "a create event has no predecessor")
    if version.room_id_is_hash:
        if "room_id" in event.pdu:
            raise Rejected("1.2", "the create event must not name its room")
    elif ":" not in event.room_id or server_of(event.room_id) != server_of(event.sender):
        raise Rejected("1.2", "the room id is not of the sender's server")
    if "room_version" in event.content and event.content["room_version"] not in KNOWN:
        raise Rejected("1.3", "the room version is unknown")
    if not version.creator_from_sender and "creator" not in event.content:
        raise Rejected("1.4", "the create event names no creator")
    if version.privileged_creators and "additional_creators" in event.content:
        more = event.content["additional_creators"]
        if not isinstance(more, list) or not all(is_user_id(user) for user in more):
            raise Rejected("1.4", "additional_creators is not a list of user ids")


def redaction_applies(redaction: Event, target: Event, power: Power) -> bool:
    """Tell whether an accepted redaction takes effect, given the power levels at the redaction.

    A create event is never redacted: before room version 11 it would lose the room's version.
    Source: room versions, "Handling redactions".
    """
    if redaction.room_id != target.room_id or target.type == "m.room.create":
        return False
    if power.of(redaction.sender) >= power.redact:
        return True
    return server_of(redaction.sender) == server_of(target.sender)

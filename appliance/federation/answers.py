"""What peers answer, as values: parsed strictly, with a limit on every count and every text.

PDUs stay plain objects here; `matrix.event.parse` and the checks of receiving make events of them. An answer that does
not fit is `BadAnswer`: the next peer may be asked instead.

Source: server-server API, the responses of each endpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from appliance.link.errors import BadAnswer
from appliance.matrix.canonical import MAX_INTEGER, Json
from appliance.matrix.ids import ServerName, is_room_id, is_user_id, server_of

MOST_STATE: Final = 100_000
"""Events in the state of a room, and in its authorisation chain."""
MOST_PAGE: Final = 1000
"""Events in one page of history."""
MOST_RESULTS: Final = 50
"""Results of one transaction: there is one for each PDU."""

Text: TypeAlias = Annotated[str, Meta(max_length=255)]
Number: TypeAlias = Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
Pdu: TypeAlias = dict[str, Any]
State: TypeAlias = Annotated[list[Pdu], Meta(max_length=MOST_STATE)]
Page: TypeAlias = Annotated[list[Pdu], Meta(max_length=MOST_PAGE)]
Names: TypeAlias = Annotated[list[Text], Meta(max_length=MOST_STATE)]
Few: TypeAlias = Annotated[list[Pdu], Meta(max_length=100)]


class Answered(msgspec.Struct, frozen=True):
    """The base of all answers: immutable, unknown fields ignored."""


class Software(Answered, frozen=True):
    """Name and version of the peer's program; both may be empty."""

    name: Text = ""
    version: Text = ""


class Template(Answered, frozen=True):
    """What make_join, make_leave and make_knock give: the event to complete, and its room's version."""

    event: Pdu
    room_version: Text = "1"


class Joined(Answered, frozen=True):
    """The room as it was before our join; with `members_omitted` most member events are left out of `state`."""

    state: State
    auth_chain: State
    event: Pdu | None = None
    origin: Text = ""
    members_omitted: bool = False
    servers_in_room: Annotated[list[Text], Meta(max_length=10_000)] | None = None


class Knocked(Answered, frozen=True):
    """Some state of a room that one has knocked at (stripped, or full events)."""

    knock_room_state: Few


class Signed(Answered, frozen=True):
    """The invite with the signature of the invited user's server."""

    event: Pdu


class StateAt(Answered, frozen=True):
    """The state before an event, and everything that authorises it."""

    pdus: State
    auth_chain: State


class StateIdsAt(Answered, frozen=True):
    """The same as ids only."""

    pdu_ids: Names
    auth_chain_ids: Names


class AuthChain(Answered, frozen=True):
    """Everything that authorises an event, recursively."""

    auth_chain: State


class Transaction(Answered, frozen=True):
    """Events as `event` and `backfill` give them."""

    pdus: Page
    origin: Text = ""


class Missing(Answered, frozen=True):
    """Events between those one has and those one has heard of, oldest first."""

    events: Page


class Result(Answered, frozen=True):
    """How it went with one PDU; an empty `error` means well."""

    error: Annotated[str, Meta(max_length=65_536)] = ""


class Received(Answered, frozen=True):
    """What a peer made of a transaction, by event id."""

    pdus: Annotated[dict[str, Result], Meta(max_length=MOST_RESULTS)] = {}


class Directions(Answered, frozen=True):
    """Where an alias leads: the room, and servers through which it can be joined."""

    room_id: Text
    servers: Annotated[list[Text], Meta(max_length=10_000)]


class UserKeys(Answered, frozen=True):
    """Device and cross-signing keys by user id. Their signatures are checked by the devices that use them."""

    device_keys: dict[str, dict[str, Pdu]]
    master_keys: dict[str, Pdu] = {}
    self_signing_keys: dict[str, Pdu] = {}


class ClaimedKeys(Answered, frozen=True):
    """One-time keys by user id, device id and key id."""

    one_time_keys: dict[str, dict[str, dict[str, Pdu | str]]]


class PeerDevice(Answered, frozen=True):
    """One device in a device list."""

    device_id: Text
    keys: Pdu
    device_display_name: Annotated[str, Meta(max_length=4096)] | None = None


class DeviceList(Answered, frozen=True):
    """All devices of a user at version `stream_id` of the list."""

    user_id: Text
    stream_id: Number
    devices: Annotated[list[PeerDevice], Meta(max_length=10_000)]
    master_key: Pdu | None = None
    self_signing_key: Pdu | None = None


class PublicRooms(Answered, frozen=True):
    """One page of a peer's public directory."""

    chunk: Page
    next_batch: Text | None = None
    prev_batch: Text | None = None
    total_room_count_estimate: Number | None = None


class Hierarchy(Answered, frozen=True):
    """A space and its children as far as we may see them."""

    room: Pdu
    children: Page
    inaccessible_children: Annotated[list[Text], Meta(max_length=MOST_PAGE)] = []


class Moment(Answered, frozen=True):
    """The event that is closest to a time."""

    event_id: Text
    origin_server_ts: Number


class Whoever(Answered, frozen=True):
    """The user an OpenID token was given to."""

    sub: Text


class NotaryKeys(Answered, frozen=True):
    """Key objects, signed by their servers and by the notary; read each with `key_object.read`."""

    server_keys: Annotated[list[Pdu], Meta(max_length=1000)]


A = TypeVar("A", bound=Answered)


def read(peer: ServerName, body: Mapping[str, Json], kind: type[A]) -> A:
    """Return the answer as a value; `BadAnswer` when it does not fit."""
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise BadAnswer(peer, f"answered with something that is no {kind.__name__}") from error


def template(
    peer: ServerName, body: Mapping[str, Json], room_id: str, user_id: str, membership: str, versions: frozenset[str]
) -> Template:
    """Read a template and check that it is what was asked for, before anybody signs it (make_join and its sisters)."""
    found = read(peer, body, Template)
    event = found.event
    content = event.get("content")
    if not (
        event.get("room_id") == room_id
        and event.get("sender") == user_id
        and event.get("state_key") == user_id
        and event.get("type") == "m.room.member"
        and isinstance(content, dict)
        and content.get("membership") == membership
    ):
        raise BadAnswer(peer, "gave a template for something else")
    if found.room_version not in versions:
        raise BadAnswer(peer, "gave a template of a room version that was not offered")
    return found


def one_pdu(peer: ServerName, body: Mapping[str, Json]) -> Pdu:
    """Read the answer of `event`, which is a transaction with one PDU."""
    found = read(peer, body, Transaction)
    if len(found.pdus) != 1:
        raise BadAnswer(peer, "did not answer with one event")
    return found.pdus[0]


def at_most(peer: ServerName, found: list[Pdu], limit: int) -> list[Pdu]:
    """Return the events, unless there are more than were asked for."""
    if len(found) > limit:
        raise BadAnswer(peer, "answered with more events than were asked for")
    return found


def directions(peer: ServerName, body: Mapping[str, Json]) -> Directions:
    """Read where an alias leads; the room id must be one."""
    found = read(peer, body, Directions)
    if not is_room_id(found.room_id):
        raise BadAnswer(peer, "gave directions to something that is no room")
    return found


def about(peer: ServerName, users: Mapping[str, object], asked: Mapping[str, object]) -> None:
    """Raise `BadAnswer` unless the answer speaks only of users that were asked about."""
    if not users.keys() <= asked.keys():
        raise BadAnswer(peer, "answered about users that nobody asked for")


def whoever(peer: ServerName, body: Mapping[str, Json]) -> str:
    """Read whom an OpenID token belongs to; it must be one of the peer's own users."""
    found = read(peer, body, Whoever)
    if not is_user_id(found.sub) or server_of(found.sub) != peer:
        raise BadAnswer(peer, "spoke for a user of another server")
    return found.sub

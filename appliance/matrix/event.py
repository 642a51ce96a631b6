"""Events: build our own, parse those of others, read back stored ones; redaction, content hash and event id.

An event's id is the hash of its redacted form, and the same bytes are what its server signs. `build` therefore
serialises that form once for both. The content hash covers the full event, stands inside the redacted form, and so
ties the unredacted content to id and signature.

Sources: room versions ("Event format", "Redactions", "Event IDs"); server-server API, "Signing events";
client-server API, "Size limits".
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, cast

import msgspec
import orjson

from appliance.matrix.canonical import MAX_INTEGER, Json, check_canonical, encode
from appliance.matrix.errors import BadJson, TooLarge
from appliance.matrix.ids import EventId, RoomId, ServerName, UserId, is_user_id, server_of
from appliance.matrix.pdu_form import (
    MAX_AUTH_EVENTS,
    MAX_EVENT_BYTES,
    MAX_PREV_EVENTS,
    BadEvent,
    check_format,
    check_lengths,
)
from appliance.matrix.signing import SigningKey, decode_base64, encode_base64, merge_signature, sign_json
from appliance.matrix.versions import RoomVersion

__all__ = [
    "MAX_AUTH_EVENTS",
    "MAX_EVENT_BYTES",
    "MAX_PREV_EVENTS",
    "BadEvent",
    "Event",
    "build",
    "content_hash",
    "content_hash_matches",
    "countersign",
    "event_id_of",
    "parse",
    "pruned",
    "redact",
    "signers",
    "stored",
]

_UNHASHED: Final = frozenset({"unsigned", "signatures", "hashes"})
_NOTHING: Final[frozenset[str]] = frozenset()


class Event(msgspec.Struct, frozen=True, eq=False, gc=False):
    """One event of a room. Two events are the same when their ids are."""

    event_id: EventId
    room_id: RoomId
    type: str
    sender: UserId
    state_key: str | None
    content: Mapping[str, Json]
    origin_server_ts: int
    """Milliseconds since the epoch, as the sender's server claims."""
    depth: int
    prev_events: tuple[EventId, ...]
    auth_events: tuple[EventId, ...]
    redacts: EventId | None
    """The target of a redaction, wherever the room version keeps it."""
    pdu: Mapping[str, Json]
    """The wire form with hashes and signatures, without an event id. Never changed in place."""
    version: RoomVersion
    raw: bytes
    """Canonical JSON of `pdu`, as stored."""

    @property
    def is_state(self) -> bool:
        """Whether the event belongs to the room's state."""
        return self.state_key is not None

    @property
    def key(self) -> tuple[str, str]:
        """The slot of a state event; `ValueError` for other events, which have none."""
        if self.state_key is None:
            raise ValueError(f"{self.event_id} is not a state event")
        return self.type, self.state_key

    def __eq__(self, other: object) -> bool:
        return self.event_id == other.event_id if isinstance(other, Event) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __repr__(self) -> str:
        return f"Event({self.event_id} {self.type})"


def build(
    version: RoomVersion,
    *,
    room_id: RoomId | None,
    type: str,
    sender: UserId,
    state_key: str | None,
    content: Mapping[str, Json],
    origin_server_ts: int,
    depth: int,
    prev_events: Sequence[EventId],
    auth_events: Sequence[EventId],
    redacts: EventId | None = None,
    unsigned: Mapping[str, Json] | None = None,
    signer: SigningKey,
    server: ServerName,
) -> Event:
    """Make, hash and sign an event of our own.

    `room_id` is None only for the create event of a version whose room ids are hashes. Raises `TooLarge` beyond the
    size limits and `BadJson` for content without a canonical form.
    """
    if (room_id is None) != (version.room_id_is_hash and type == "m.room.create"):
        raise ValueError("only the create event of a room named by its hash has no room id")
    if redacts is not None and version.modern_redactions:
        content = {**content, "redacts": redacts}
    check_canonical(content)
    pdu: dict[str, Json] = {
        "auth_events": list(auth_events),
        "content": content,
        "depth": min(depth, MAX_INTEGER),
        "origin_server_ts": origin_server_ts,
        "prev_events": list(prev_events),
        "sender": sender,
        "type": type,
    }
    if room_id is not None:
        pdu["room_id"] = room_id
    if state_key is not None:
        pdu["state_key"] = state_key
    if redacts is not None and not version.modern_redactions:
        pdu["redacts"] = redacts
    check_lengths(pdu, TooLarge)
    return _seal(pdu, version, unsigned, signer, server)


def _seal(
    pdu: dict[str, Json],
    version: RoomVersion,
    unsigned: Mapping[str, Json] | None,
    signer: SigningKey,
    server: ServerName,
) -> Event:
    """Hash, sign and name a checked PDU that has neither `hashes`, `signatures` nor `unsigned` yet."""
    pdu["hashes"] = {"sha256": encode_base64(sha256(encode(pdu)).digest())}
    essence = encode(redact(pdu, version))
    pdu["signatures"] = {server: {signer.key_id: encode_base64(signer.sign(essence))}}
    if unsigned is not None:
        check_canonical(unsigned)
        pdu["unsigned"] = unsigned
    raw = encode(pdu)
    if len(raw) > MAX_EVENT_BYTES:
        raise TooLarge(f"The event is larger than {MAX_EVENT_BYTES} bytes")
    return _event(_id_of_essence(essence), pdu, version, raw)


def parse(pdu: Mapping[str, Json], version: RoomVersion) -> Event:
    """Read a PDU from outside: format and size only, signatures and hash are separate steps. Raises `BadEvent`."""
    try:
        check_canonical(pdu)
        raw = encode(pdu)
    except BadJson as error:
        raise BadEvent(error.message) from error
    if len(raw) > MAX_EVENT_BYTES:
        raise BadEvent(f"The event is larger than {MAX_EVENT_BYTES} bytes")
    check_format(pdu, version)
    check_lengths(pdu, BadEvent)
    return _event(event_id_of(pdu, version), pdu, version, raw)


def stored(event_id: EventId, raw: bytes, version: RoomVersion) -> Event:
    """Read an event back from our own store, where everything was checked before."""
    return _event(event_id, orjson.loads(raw), version, raw)


def _event(event_id: EventId, pdu: Mapping[str, Any], version: RoomVersion, raw: bytes) -> Event:
    """Lift the fields out of a PDU whose format is known to be right."""
    content = pdu["content"]
    kind = pdu["type"]
    redacts = None
    if kind == "m.room.redaction":
        redacts = (content if version.modern_redactions else pdu).get("redacts")
        if not isinstance(redacts, str):
            redacts = None
    return Event(
        event_id,
        RoomId("!" + event_id[1:]) if kind == "m.room.create" and version.room_id_is_hash else pdu["room_id"],
        kind,
        pdu["sender"],
        pdu.get("state_key"),
        content,
        pdu["origin_server_ts"],
        pdu["depth"],
        tuple(pdu["prev_events"]),
        tuple(pdu["auth_events"]),
        redacts,
        pdu,
        version,
        raw,
    )


def redact(pdu: Mapping[str, Json], version: RoomVersion) -> dict[str, Json]:
    """Return the pruned copy of a PDU that its id and its signatures cover (`unsigned` is gone as well)."""
    keep = version.redaction_keys
    pruned = {key: value for key, value in pdu.items() if key in keep}
    kind = pdu.get("type")
    content = pdu.get("content")
    if not isinstance(content, dict) or (kind == "m.room.create" and version.modern_redactions):
        return pruned
    allowed = version.redaction_content.get(kind, _NOTHING) if isinstance(kind, str) else _NOTHING
    kept: dict[str, Json] = {key: content[key] for key in allowed if key in content}
    if kind == "m.room.member" and version.modern_redactions:
        invite = content.get("third_party_invite")
        if isinstance(invite, dict):
            kept["third_party_invite"] = {"signed": invite["signed"]} if "signed" in invite else {}
    pruned["content"] = kept
    return pruned


def content_hash(pdu: Mapping[str, Json]) -> str:
    """Return the unpadded base64 SHA-256 over everything but `unsigned`, `signatures` and `hashes`."""
    return encode_base64(sha256(encode({key: pdu[key] for key in pdu if key not in _UNHASHED})).digest())


def content_hash_matches(pdu: Mapping[str, Json]) -> bool:
    """Tell whether the PDU carries its own content hash; where it does not, only its `pruned` form may be used."""
    hashes = pdu.get("hashes")
    claimed = hashes.get("sha256") if isinstance(hashes, dict) else None
    try:
        return isinstance(claimed, str) and decode_base64(claimed) == decode_base64(content_hash(pdu))
    except ValueError:
        return False


def event_id_of(pdu: Mapping[str, Json], version: RoomVersion) -> EventId:
    """Return the event id: the reference hash in URL-safe base64 (room version 4 and later)."""
    essence = redact(pdu, version)
    essence.pop("signatures", None)
    return _id_of_essence(encode(essence))


def _id_of_essence(essence: bytes) -> EventId:
    digest = binascii.b2a_base64(sha256(essence).digest(), newline=False)
    return EventId("$" + digest[:43].translate(_TO_URL_SAFE).decode())


_TO_URL_SAFE: Final = bytes.maketrans(b"+/", b"-_")


def pruned(event: Event) -> Event:
    """Return the redacted event: same id, same signatures, only the essential content."""
    pdu = redact(event.pdu, event.version)
    return _event(event.event_id, pdu, event.version, encode(pdu))


def countersign(event: Event, server: ServerName, key: SigningKey) -> Event:
    """Return the event with one more server's signature (invites, restricted joins); the id stays."""
    signed = sign_json(redact(event.pdu, event.version), server, key)
    entry = cast("dict[str, dict[str, str]]", signed["signatures"])[server]
    signature = decode_base64(entry[key.key_id])
    pdu = {**event.pdu, "signatures": merge_signature(event.pdu.get("signatures"), server, key.key_id, signature)}
    return _event(event.event_id, pdu, event.version, encode(pdu))


def signers(event: Event) -> frozenset[ServerName]:
    """Return the servers whose signatures the event must carry.

    The sender's server, unless the event is an invite by third party (another server may send it), and for a
    restricted join the server of the user who authorised it (rule 4.2, or 5.2 in room version 12).
    """
    servers: set[ServerName] = set()
    content = event.content
    if event.type != "m.room.member":
        return frozenset({server_of(event.sender)})
    if content.get("membership") != "invite" or "third_party_invite" not in content:
        servers.add(server_of(event.sender))
    authoriser = content.get("join_authorised_via_users_server")
    if event.version.restricted_joins and isinstance(authoriser, str) and is_user_id(authoriser):
        servers.add(server_of(authoriser))
    return frozenset(servers)

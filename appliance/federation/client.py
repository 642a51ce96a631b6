"""Every call that this house makes to another homeserver, by name, with its answer as a value.

All raise `Unreachable` (with its child `BadAnswer`) or `RefusedByPeer`, nothing else. A call says nothing about whether
the answer is true: events are checked when they are received, keys when they are read.

Source: server-server API; each method names its endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from appliance.federation import answers
from appliance.federation.answers import (
    AuthChain,
    ClaimedKeys,
    DeviceList,
    Directions,
    Hierarchy,
    Joined,
    Knocked,
    Missing,
    Moment,
    NotaryKeys,
    Pdu,
    PublicRooms,
    Received,
    Signed,
    Software,
    StateAt,
    StateIdsAt,
    Template,
    Transaction,
    UserKeys,
)
from appliance.federation.wire import LARGE, Limits, Query, Wire, path
from appliance.link.errors import BadAnswer
from appliance.matrix.canonical import Json
from appliance.matrix.ids import EventId, RoomAlias, RoomId, ServerName, UserId

TRANSACTION: Final = Limits(60.0, 1024 * 1024)
EVENT: Final = Limits(30.0, 256 * 1024)
"""One event of at most 64 KiB, which may be written with escapes."""
PAGE: Final = Limits(60.0, 32 * 1024 * 1024)
KEYS: Final = Limits(30.0, 8 * 1024 * 1024)
KEY_OBJECT: Final = Limits(10.0, 64 * 1024)
NOTARY: Final = Limits(15.0, 2 * 1024 * 1024)
HANDSHAKE: Final = Limits(60.0, 256 * 1024)

V1: Final = ("federation", "v1")
V2: Final = ("federation", "v2")


class Client:
    """Calls over one wire."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.name = wire.name

    # -- who a peer is

    async def version(self, peer: ServerName) -> Software:
        """GET /version: name and version of the peer's program."""
        body = await self.wire.get(peer, path(*V1, "version"), signed=False)
        server = body.get("server", {})
        return answers.read(peer, server if isinstance(server, Mapping) else {}, Software)

    async def key_object(self, peer: ServerName) -> dict[str, Json]:
        """GET /_matrix/key/v2/server: the peer's signing keys, unchecked."""
        return await self.wire.get(peer, path("key", "v2", "server"), limits=KEY_OBJECT, signed=False)

    async def ask_notary(
        self, notary: ServerName, wanted: Mapping[ServerName, Mapping[str, int]]
    ) -> list[dict[str, Any]]:
        """POST /_matrix/key/v2/query: servers' keys, valid at least until the times given by key id; unchecked."""
        query: dict[str, Json] = {
            server: {key_id: {"minimum_valid_until_ts": until} for key_id, until in keys.items()}
            for server, keys in wanted.items()
        }
        where = path("key", "v2", "query")
        body = await self.wire.give("POST", notary, where, {"server_keys": query}, limits=NOTARY, signed=False)
        return answers.read(notary, body, NotaryKeys).server_keys

    async def ask_notary_for(self, notary: ServerName, server: ServerName, until: int) -> list[dict[str, Any]]:
        """GET /_matrix/key/v2/query/{serverName}: one server's keys, unchecked."""
        body = await self.wire.get(
            notary, path("key", "v2", "query", server), [("minimum_valid_until_ts", until)], NOTARY, signed=False
        )
        return answers.read(notary, body, NotaryKeys).server_keys

    async def openid_user(self, peer: ServerName, token: str) -> str:
        """GET /openid/userinfo: whose token this is; always a user of that peer."""
        where = path(*V1, "openid", "userinfo")
        return answers.whoever(peer, await self.wire.get(peer, where, [("access_token", token)], signed=False))

    # -- what is owed to a peer

    async def send(
        self, peer: ServerName, txn_id: str, ts: int, pdus: Sequence[Mapping[str, Json]],
        edus: Sequence[Mapping[str, Json]] = (),
    ) -> Received:
        """PUT /send/{txnId}: at most 50 PDUs and 100 EDUs; the same id may be sent again until it was answered."""
        content: dict[str, Json] = {"origin": self.name, "origin_server_ts": ts, "pdus": pdus, "edus": edus}
        body = await self.wire.give("PUT", peer, path(*V1, "send", txn_id), content, limits=TRANSACTION)
        return answers.read(peer, body, Received)

    # -- entering and leaving rooms

    async def make_join(self, peer: ServerName, room_id: RoomId, user: UserId, versions: Iterable[str]) -> Template:
        """GET /make_join: a join to be completed and signed, checked to be the one asked for."""
        return await self._template("make_join", "join", peer, room_id, user, frozenset(versions))

    async def make_knock(self, peer: ServerName, room_id: RoomId, user: UserId, versions: Iterable[str]) -> Template:
        """GET /make_knock: as make_join."""
        return await self._template("make_knock", "knock", peer, room_id, user, frozenset(versions))

    async def make_leave(self, peer: ServerName, room_id: RoomId, user: UserId, versions: Iterable[str]) -> Template:
        """GET /make_leave: as make_join; the room is in one of the `versions` that we know."""
        return await self._template("make_leave", "leave", peer, room_id, user, frozenset(versions))

    async def _template(
        self, endpoint: str, membership: str, peer: ServerName, room_id: RoomId, user: UserId, versions: frozenset[str]
    ) -> Template:
        offered = [] if membership == "leave" else [("ver", version) for version in sorted(versions)]
        body = await self.wire.get(peer, path(*V1, endpoint, room_id, user), offered, HANDSHAKE)
        return answers.template(peer, body, room_id, user, membership, versions)

    async def send_join(
        self, peer: ServerName, room_id: RoomId, event_id: EventId, pdu: Mapping[str, Json], *,
        omit_members: bool = False,
    ) -> Joined:
        """PUT /v2/send_join: the room's state and what authorises it, member events left out if we can do without."""
        query: Query = [("omit_members", "true")] if omit_members else []
        body = await self.wire.give("PUT", peer, path(*V2, "send_join", room_id, event_id), pdu, query, LARGE)
        found = answers.read(peer, body, Joined)
        if found.members_omitted and not (omit_members and found.servers_in_room):
            raise BadAnswer(peer, "left members out without saying which servers are in the room")
        return found

    async def send_leave(
        self, peer: ServerName, room_id: RoomId, event_id: EventId, pdu: Mapping[str, Json]
    ) -> None:
        """PUT /v2/send_leave: a leave or the rejection of an invite, taken into the room's graph."""
        await self.wire.give("PUT", peer, path(*V2, "send_leave", room_id, event_id), pdu, limits=HANDSHAKE)

    async def send_knock(
        self, peer: ServerName, room_id: RoomId, event_id: EventId, pdu: Mapping[str, Json]
    ) -> list[Pdu]:
        """PUT /send_knock: the knock is in the graph; returns some state by which the user recognises the room."""
        body = await self.wire.give("PUT", peer, path(*V1, "send_knock", room_id, event_id), pdu, limits=PAGE)
        return answers.read(peer, body, Knocked).knock_room_state

    async def invite(
        self, peer: ServerName, room_id: RoomId, event_id: EventId, version: str, pdu: Mapping[str, Json],
        room_state: Sequence[Mapping[str, Json]],
    ) -> Pdu:
        """PUT /v2/invite: the invite with the signature of the invited user's server, to be compared with ours."""
        content: dict[str, Json] = {"room_version": version, "event": pdu, "invite_room_state": room_state}
        body = await self.wire.give("PUT", peer, path(*V2, "invite", room_id, event_id), content, limits=HANDSHAKE)
        return answers.read(peer, body, Signed).event

    # -- the room's graph

    async def event(self, peer: ServerName, event_id: EventId) -> Pdu:
        """GET /event: one event."""
        return answers.one_pdu(peer, await self.wire.get(peer, path(*V1, "event", event_id), limits=EVENT))

    async def event_auth(self, peer: ServerName, room_id: RoomId, event_id: EventId) -> list[Pdu]:
        """GET /event_auth: everything that authorises the event."""
        body = await self.wire.get(peer, path(*V1, "event_auth", room_id, event_id), limits=LARGE)
        return answers.read(peer, body, AuthChain).auth_chain

    async def state(self, peer: ServerName, room_id: RoomId, event_id: EventId) -> StateAt:
        """GET /state: the state before the event."""
        body = await self.wire.get(peer, path(*V1, "state", room_id), [("event_id", event_id)], LARGE)
        return answers.read(peer, body, StateAt)

    async def state_ids(self, peer: ServerName, room_id: RoomId, event_id: EventId) -> StateIdsAt:
        """GET /state_ids: the same as ids."""
        body = await self.wire.get(peer, path(*V1, "state_ids", room_id), [("event_id", event_id)], PAGE)
        return answers.read(peer, body, StateIdsAt)

    async def backfill(self, peer: ServerName, room_id: RoomId, start: Iterable[EventId], limit: int) -> list[Pdu]:
        """GET /backfill: the events `start` and what precedes them, at most `limit`."""
        query: list[tuple[str, str | int]] = [*(("v", event_id) for event_id in start), ("limit", limit)]
        body = await self.wire.get(peer, path(*V1, "backfill", room_id), query, PAGE)
        return answers.at_most(peer, answers.read(peer, body, Transaction).pdus, limit)

    async def missing_events(
        self, peer: ServerName, room_id: RoomId, earliest: Iterable[EventId], latest: Iterable[EventId],
        limit: int, min_depth: int = 0,
    ) -> list[Pdu]:
        """POST /get_missing_events: what lies between the `earliest` we have and the `latest` we heard of."""
        content: dict[str, Json] = {
            "earliest_events": list(earliest), "latest_events": list(latest), "limit": limit, "min_depth": min_depth
        }  # fmt: skip
        body = await self.wire.give("POST", peer, path(*V1, "get_missing_events", room_id), content, limits=PAGE)
        return answers.at_most(peer, answers.read(peer, body, Missing).events, limit)

    async def event_at(self, peer: ServerName, room_id: RoomId, ts: int, direction: str) -> Moment:
        """GET /timestamp_to_event: the event closest to `ts` (milliseconds), `f`orwards or `b`ackwards."""
        where = path(*V1, "timestamp_to_event", room_id)
        return answers.read(peer, await self.wire.get(peer, where, [("ts", ts), ("dir", direction)]), Moment)

    # -- people and their devices

    async def profile(self, peer: ServerName, user: UserId, field: str | None = None) -> dict[str, Json]:
        """GET /query/profile: all fields, or one."""
        query = [("user_id", user), *([("field", field)] if field else [])]
        return await self.wire.get(peer, path(*V1, "query", "profile"), query, Limits(10.0, 128 * 1024))

    async def user_keys(self, peer: ServerName, devices: Mapping[str, Sequence[str]]) -> UserKeys:
        """POST /user/keys/query: keys of the peer's users, of all devices where none are named."""
        where = path(*V1, "user", "keys", "query")
        body = await self.wire.give("POST", peer, where, {"device_keys": devices}, limits=KEYS)
        found = answers.read(peer, body, UserKeys)
        for users in (found.device_keys, found.master_keys, found.self_signing_keys):
            answers.about(peer, users, devices)
        return found

    async def claim_keys(self, peer: ServerName, devices: Mapping[str, Mapping[str, str]]) -> ClaimedKeys:
        """POST /user/keys/claim: one one-time key for each user id, device id and algorithm."""
        where = path(*V1, "user", "keys", "claim")
        body = await self.wire.give("POST", peer, where, {"one_time_keys": devices}, limits=KEYS)
        found = answers.read(peer, body, ClaimedKeys)
        answers.about(peer, found.one_time_keys, devices)
        for user, keys in found.one_time_keys.items():
            answers.about(peer, keys, devices[user])
        return found

    async def devices(self, peer: ServerName, user: UserId) -> DeviceList:
        """GET /user/devices: a user's whole device list."""
        body = await self.wire.get(peer, path(*V1, "user", "devices", user), limits=KEYS)
        found = answers.read(peer, body, DeviceList)
        answers.about(peer, {found.user_id: None}, {user: None})
        return found

    # -- directories

    async def directory(self, peer: ServerName, alias: RoomAlias) -> Directions:
        """GET /query/directory: where one of the peer's aliases leads."""
        where = path(*V1, "query", "directory")
        return answers.directions(peer, await self.wire.get(peer, where, [("room_alias", alias)]))

    async def public_rooms(
        self, peer: ServerName, *, limit: int, since: str | None = None, wanted: Mapping[str, Json] | None = None
    ) -> PublicRooms:
        """GET or, with a filter, POST /publicRooms: a page of the peer's public directory."""
        where = path(*V1, "publicRooms")
        if wanted is None:
            query: Query = [("limit", limit), *([("since", since)] if since else [])]
            return answers.read(peer, await self.wire.get(peer, where, query, PAGE), PublicRooms)
        content: dict[str, Json] = {"limit": limit, "filter": wanted, **({"since": since} if since else {})}
        return answers.read(peer, await self.wire.give("POST", peer, where, content, limits=PAGE), PublicRooms)

    async def hierarchy(self, peer: ServerName, room_id: RoomId, *, suggested_only: bool = False) -> Hierarchy:
        """GET /hierarchy: a space and its children."""
        query = [("suggested_only", "true" if suggested_only else "false")]
        body = await self.wire.get(peer, path(*V1, "hierarchy", room_id), query, PAGE)
        return answers.read(peer, body, Hierarchy)

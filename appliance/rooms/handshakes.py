"""How people of other servers come into a room of ours, leave it, or knock at it, with this server as its resident.

First they get a template, which is allowed as the room stands; they complete and sign it, and it comes in by the same
recipe as every event (receive.py). It is acknowledged when it is on disk, and owed to the other servers in the room.

Source: server-server API, "Joining Rooms", "Restricted rooms", "Leaving Rooms (Rejecting Invites)", "Knocking upon a
room".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import msgspec

from appliance.matrix import auth
from appliance.matrix import event as matrix_event
from appliance.matrix.auth import CREATE, JOIN_RULES, Rejected
from appliance.matrix.errors import BadJson, Forbidden, IncompatibleRoomVersion, MatrixError, NotFound
from appliance.matrix.event import Event
from appliance.matrix.ids import RoomId, ServerName, UserId, is_user_id, server_of
from appliance.matrix.membership import join_rule_of
from appliance.matrix.signing import SigningKey
from appliance.rooms.author import Author
from appliance.rooms.head import Head
from appliance.rooms.invite import shown_state
from appliance.rooms.join import NobodyMayLetIn, allowed_rooms, authoriser_of
from appliance.rooms.receive import Receiver, Verdict
from appliance.rooms.serving import Asking, Pdu, require_heard
from appliance.rooms.steps.parse import parse
from appliance.store import events, graph, outbox
from appliance.store.readers import Rx
from appliance.store.writer import Tx

VOUCHED = "join_authorised_via_users_server"


class CannotTell(MatrixError):
    """This server knows none of the rooms whose members may join; another resident may."""

    status, errcode = 400, "M_UNABLE_TO_AUTHORISE_JOIN"


class CannotGrant(MatrixError):
    """Nobody of this server may let people in; another resident may."""

    status, errcode = 400, "M_UNABLE_TO_GRANT_JOIN"


class Coming(msgspec.Struct, frozen=True):
    """Who wants what (`join`, `leave` or `knock`), asked by whose server."""

    peer: ServerName
    room_id: RoomId
    membership: str


class Admitted(msgspec.Struct, frozen=True):
    """The room as it was before a join; with `omitted` without its members, but with the names of their servers."""

    event: Pdu
    state: Sequence[Pdu]
    auth_chain: Sequence[Pdu]
    omitted: bool
    servers: Sequence[str]


class Handshakes:
    """The resident's side."""

    def __init__(self, receiver: Receiver, author: Author, signer: SigningKey) -> None:
        self._receiver = receiver
        self._store = receiver.store
        self._author = author
        self._signer = signer

    # -- templates

    async def template(self, coming: Coming, user_id: UserId, offered: Collection[str]) -> dict[str, Any]:
        """Return the event to complete and the room's version; `offered` are the versions that the peer knows.

        Raises `NotFound`, `Forbidden`, `IncompatibleRoomVersion`, and for restricted rooms `CannotTell`, `CannotGrant`.
        """
        if server_of(user_id) != coming.peer:
            raise Forbidden("A server can only speak for its own users")
        head = await self._resident(coming)
        if coming.membership != "leave" and head.version.name not in offered:
            raise IncompatibleRoomVersion(head.version.name)
        content: dict[str, Any] = {"membership": coming.membership}
        if coming.membership == "join":
            authoriser = await self._authoriser(head, user_id)
            if authoriser is not None:
                content[VOUCHED] = authoriser
        return {"event": await self._draft(head, user_id, content), "room_version": head.version.name}

    async def _resident(self, coming: Coming) -> Head:
        """Return the room's end if we are in it, and it lets the peer speak."""
        await self._store.read(require_heard, Asking(coming.peer, self._receiver.server), coming.room_id)
        head = await self._receiver.heads.get(coming.room_id)
        if head is None or not await self._receiver.members.local_joined(coming.room_id):
            raise NotFound("Nobody here is in this room")
        return head

    async def _draft(self, head: Head, user_id: UserId, content: Mapping[str, Any]) -> dict[str, Any]:
        """Draft the membership as the room stands. It is signed only for the check: a template is nobody's word."""
        keys = auth.auth_keys(head.version, "m.room.member", user_id, user_id, content)
        cited = await self._receiver.heads.state_of(head, keys)
        state = {**cited, **await self._receiver.heads.state_of(head, [CREATE])}
        event = matrix_event.build(
            head.version, room_id=head.room_id, type="m.room.member", sender=user_id, state_key=user_id,
            content=content, origin_server_ts=self._receiver.clock(),
            depth=max((depth for _, depth in head.tips), default=0) + 1,
            prev_events=[event_id for event_id, _ in head.tips[: matrix_event.MAX_PREV_EVENTS]],
            auth_events=[one.event_id for one in cited.values()],
            signer=self._signer, server=self._receiver.server,
        )  # fmt: skip
        try:
            auth.check(event, state)
        except Rejected as error:
            raise Forbidden(str(error)) from error
        template = {name: value for name, value in event.pdu.items() if name not in ("hashes", "signatures")}
        return {**template, "origin": self._receiver.server}

    async def _authoriser(self, head: Head, user_id: UserId) -> UserId | None:
        """Name one of ours who authorises a join to a restricted room; None where nobody needs to."""
        rules = (await self._receiver.heads.state_of(head, [JOIN_RULES])).get(JOIN_RULES)
        try:
            return await authoriser_of(self._author, self._receiver.members, head, user_id)
        except NobodyMayLetIn as error:
            raise CannotGrant("Nobody on this server may let you in") from error
        except Forbidden as error:
            if rules is not None and join_rule_of(rules) in ("restricted", "knock_restricted"):
                for room_id in allowed_rooms(rules):
                    if await self._receiver.members.local_joined(room_id):
                        raise
                raise CannotTell("This server knows none of the rooms whose members may join") from error
            raise

    # -- completed events

    async def join(self, coming: Coming, event_id: str, pdu: Pdu, *, omit_members: bool) -> Admitted:
        """Take a completed join in; returns the room as it was before. Raises `Forbidden`, `BadJson`, `NotFound`."""
        head = await self._resident(coming)
        event = _completed(coming, event_id, pdu, head)
        signed = await self._vouch(head, event)
        await self._take(coming, signed)
        return await self._store.read(_admitted, event_id, signed, self._receiver.server, omit_members)

    async def leave(self, coming: Coming, event_id: str, pdu: Pdu) -> None:
        """Take a completed leave in (also the refusal of an invitation)."""
        head = await self._resident(coming)
        _completed(coming, event_id, pdu, head)
        await self._take(coming, pdu)

    async def knock(self, coming: Coming, event_id: str, pdu: Pdu) -> list[dict[str, Any]]:
        """Take a completed knock in; returns some state by which the user recognises the room."""
        head = await self._resident(coming)
        event = _completed(coming, event_id, pdu, head)
        shown = await shown_state(self._author, head, event.sender)
        await self._take(coming, pdu)
        return shown

    async def _vouch(self, head: Head, event: Event) -> Pdu:
        """Sign a join that one of ours is named to authorise, if the user may still come in."""
        voucher = event.content.get(VOUCHED)
        if not is_user_id(voucher) or server_of(UserId(str(voucher))) != self._receiver.server:
            return event.pdu
        await self._authoriser(head, event.sender)
        return matrix_event.countersign(event, self._receiver.server, self._signer).pdu

    async def _take(self, coming: Coming, pdu: Pdu) -> None:
        """Receive the event and owe it to the others. Whoever gets no answer sends it again, and it is owed again."""
        outcome = await self._receiver.receive(pdu, coming.peer)
        if outcome.verdict in (Verdict.REJECTED, Verdict.SOFT_FAILED):
            raise Forbidden(f"The room does not allow this: {outcome.reason}")
        if outcome.verdict is not Verdict.ACCEPTED:
            raise BadJson(f"The event cannot be taken in: {outcome.reason}")
        await self._store.write(_pass_on, outcome.event_id, coming.peer, self._receiver.server)


def _completed(coming: Coming, event_id: str, pdu: Pdu, head: Head) -> Event:
    """Check that this is the peer's own membership event for this room, under the id that it says."""
    event = parse(pdu, head.version, coming.room_id)
    if event.event_id != event_id:
        raise BadJson("The event has another id")
    if event.type != "m.room.member" or event.content.get("membership") != coming.membership:
        raise BadJson(f"The event is no {coming.membership}")
    if event.state_key != event.sender:
        raise BadJson("The event is about somebody else")
    if server_of(event.sender) != coming.peer:
        raise Forbidden("A server can only speak for its own users")
    return event


def _pass_on(tx: Tx, event_id: str, peer: ServerName, home: ServerName) -> None:
    row = events.fetch(tx, [event_id])[event_id]
    others = [server for server in outbox.servers_in(tx, row.rid, home) if server != peer]
    if others:
        outbox.owe_event(tx, row.eid, tx.next_pos(), others)


def _admitted(rx: Rx, event_id: str, signed: Pdu, home: ServerName, omit_members: bool) -> Admitted:
    row = events.fetch(rx, [event_id])[event_id]
    before = events.sid_before(rx, row)
    state = [one.event for one in events.events_of(rx, before)] if before is not None else []
    people = [one for one in state if one.type == "m.room.member"]
    joined = {server_of(UserId(str(one.state_key))) for one in people if one.content.get("membership") == "join"}
    if omit_members:
        state = [one for one in state if one.type != "m.room.member"]
    chain = graph.auth_chain(rx, [event_id, *(one.event_id for one in state)])
    return Admitted(
        signed, [one.pdu for one in state], [one.pdu for one in chain.values()], omit_members, sorted(joined | {home})
    )

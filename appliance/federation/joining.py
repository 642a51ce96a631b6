"""Our users join a room that this server is not in, through a server that is.

A resident gives a template, we complete and sign it, the resident takes it in and tells the room's state, which is
checked and taken in like everything a stranger says (rooms/imported.py). What one resident cannot do, the next may.

Source: server-server API, "Joining Rooms".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final, Protocol

import msgspec
from msgspec import Meta

from appliance.federation.answers import Joined, Template
from appliance.link.errors import PeerError, RefusedByPeer
from appliance.matrix import event as matrix_event
from appliance.matrix import versions
from appliance.matrix.canonical import MAX_INTEGER
from appliance.matrix.errors import Forbidden, IncompatibleRoomVersion, MatrixError
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, RoomId, ServerName, UserId
from appliance.matrix.requester import Requester, require_active
from appliance.matrix.signing import SigningKey
from appliance.rooms import join as local
from appliance.rooms.author import Author
from appliance.rooms.imported import import_join
from appliance.rooms.profiles import member_content
from appliance.rooms.queues import Lines
from appliance.rooms.receive import Receiver
from appliance.rooms.steps.asking import Pdu

RESIDENTS: Final = 5
"""Servers that are asked, one after the other."""
VOUCHED: Final = "join_authorised_via_users_server"

Text = Annotated[str, Meta(max_length=255)]


class NoResident(MatrixError):
    """None of the servers could be asked; the room may exist all the same."""

    status, errcode = 404, "M_NOT_FOUND"


class Residents(Protocol):
    """Asking servers to be let in; `federation.client.Client` is one. All raise `PeerError`."""

    async def make_join(self, peer: ServerName, room_id: RoomId, user: UserId, versions: Iterable[str]) -> Template:
        """Return a template for the join, checked to be the one asked for."""
        ...

    async def send_join(self, peer: ServerName, room_id: RoomId, event_id: EventId, pdu: Pdu) -> Joined:
        """Hand the join in; returns the room as it was before."""
        ...


class _Place(msgspec.Struct, frozen=True):
    """What of a template is the resident's to say: where in the graph the join belongs, and who vouches for it."""

    depth: Annotated[int, Meta(ge=0, le=MAX_INTEGER)]
    prev_events: Annotated[list[Text], Meta(min_length=1, max_length=20)]
    auth_events: Annotated[list[Text], Meta(max_length=10)]
    content: dict[str, Any]


class Joining:
    """The guest's side."""

    def __init__(self, receiver: Receiver, author: Author, signer: SigningKey, residents: Residents,
                 known: Sequence[str]) -> None:
        self._receiver = receiver
        self._author = author
        self._signer = signer
        self._residents = residents
        self._known = known
        self._lines = Lines()

    async def join(
        self, requester: Requester, room_id: RoomId, via: Sequence[ServerName], reason: str | None = None
    ) -> RoomId:
        """Join through one of the servers `via`; a room that one of us is in by now is joined here.

        Raises `Forbidden` if a resident refuses, `IncompatibleRoomVersion`, `NoResident`.
        """
        require_active(requester)
        async with self._lines.turn(room_id):
            if await self._receiver.members.local_joined(room_id):
                return await local.join(self._author, self._receiver.members, requester, room_id, reason=reason)
            problem: MatrixError = NoResident("No server that is in the room could be reached")
            for peer in [one for one in dict.fromkeys(via) if one != self._receiver.server][:RESIDENTS]:
                try:
                    await self._through(peer, requester.user_id, room_id, reason)
                except PeerError as error:
                    problem = _worse(problem, error)
                except MatrixError as error:
                    problem = error
                else:
                    return room_id
            raise problem

    async def _through(self, peer: ServerName, user_id: UserId, room_id: RoomId, reason: str | None) -> None:
        template = await self._residents.make_join(peer, room_id, user_id, self._known)
        event = await self._complete(template, user_id, room_id, reason)
        found = await self._residents.send_join(peer, room_id, event.event_id, event.pdu)
        join = _countersigned(event, found.event)
        await import_join(self._receiver, room_id, event.version, join, found.state, found.auth_chain, peer)

    async def _complete(self, template: Template, user_id: UserId, room_id: RoomId, reason: str | None) -> Event:
        """Make the join; of the template only its place in the graph is used, the words are ours."""
        try:
            place = msgspec.convert(template.event, _Place)
        except msgspec.ValidationError as error:
            raise NoResident("The room's server gave no usable template") from error
        content = await member_content(self._author, user_id, "join", reason)
        voucher = place.content.get(VOUCHED)
        if isinstance(voucher, str):
            content[VOUCHED] = voucher
        return matrix_event.build(
            versions.get(template.room_version), room_id=room_id, type="m.room.member", sender=user_id,
            state_key=user_id, content=content, origin_server_ts=self._receiver.clock(), depth=place.depth,
            prev_events=[EventId(one) for one in place.prev_events],
            auth_events=[EventId(one) for one in place.auth_events],
            signer=self._signer, server=self._receiver.server,
        )  # fmt: skip


def _countersigned(event: Event, answered: Pdu | None) -> Pdu:
    """Return our join with the signatures that the resident added to it, if that is what it answered."""
    signatures = answered.get("signatures") if answered is not None else None
    own = event.pdu["signatures"]
    if not isinstance(signatures, dict) or not isinstance(own, dict):
        return event.pdu
    return {**event.pdu, "signatures": {**signatures, **own}}


def _worse(problem: MatrixError, error: PeerError) -> MatrixError:
    """Return what to tell if nobody else helps: a refusal says more than silence."""
    if not isinstance(error, RefusedByPeer):
        return problem
    if error.room_version is not None:
        return IncompatibleRoomVersion(error.room_version)
    return Forbidden("The room's server does not let you in") if error.status in (400, 403) else problem

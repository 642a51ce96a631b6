"""Inviting somebody into a room.

What an invited person may know before accepting (the stripped state) is kept beside the membership, in the same
transaction as the invitation.

Source: client-server API, "Stripped state" and `POST /rooms/{roomId}/invite`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.matrix.client_event import stripped
from appliance.matrix.errors import Forbidden, NotFound
from appliance.matrix.ids import UserId, server_of
from appliance.matrix.requester import Requester, require_active
from appliance.rooms.author import Author, Draft
from appliance.rooms.head import Head
from appliance.rooms.profiles import member_content
from appliance.store import profiles

SHOWN: Sequence[tuple[str, str]] = (
    ("m.room.create", ""),
    ("m.room.name", ""),
    ("m.room.avatar", ""),
    ("m.room.topic", ""),
    ("m.room.join_rules", ""),
    ("m.room.canonical_alias", ""),
    ("m.room.encryption", ""),
)


async def check_invitable(author: Author, user_id: UserId) -> None:
    """Refuse an invitation that could not be delivered, before anything is changed."""
    if server_of(user_id) != author.server:
        raise Forbidden(f"{user_id} belongs to another server, and this one does not federate")
    if await author.store.read(profiles.get, user_id) is None:
        raise NotFound(f"There is no user {user_id} here")


async def invitation(
    author: Author, head: Head, inviter: UserId, user_id: UserId, *, reason: str | None = None, is_direct: bool = False
) -> Draft:
    """Draft the invitation of `user_id` to the room as it stands."""
    content = await member_content(author, user_id, "invite", reason)
    if is_direct:
        content["is_direct"] = True
    return Draft("m.room.member", inviter, content, user_id, shown=await shown_state(author, head, inviter))


async def shown_state(author: Author, head: Head, sender: UserId) -> list[dict[str, Any]]:
    """Return the stripped state of a room, with the membership of the one who invites."""
    state = await author.heads.state_of(head, [*SHOWN, ("m.room.member", sender)])
    return [stripped(event) for event in state.values()]


async def invite(
    author: Author, requester: Requester, room_id: str, user_id: UserId, *, reason: str | None = None
) -> None:
    """Invite a user of this server; raises `Forbidden` if the room's rules refuse it."""
    require_active(requester)
    await check_invitable(author, user_id)
    head = await author.head(room_id)
    await author.add(room_id, await invitation(author, head, requester.user_id, user_id, reason=reason))

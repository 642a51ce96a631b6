"""Leaving, kicking, banning, and forgetting.

Source: client-server API, "Leaving rooms" and "Banning users in a room".
"""

from __future__ import annotations

from appliance.matrix.errors import Forbidden, Unknown
from appliance.matrix.ids import RoomId, UserId
from appliance.matrix.membership import membership_of
from appliance.matrix.requester import Requester
from appliance.rooms.author import Author, Draft
from appliance.rooms.members import Members
from appliance.store import rooms


async def leave(
    author: Author, members: Members, requester: Requester, room_id: str, reason: str | None = None
) -> None:
    """Leave a room, decline an invitation or take back a knock; leaving twice is not an error."""
    mine = (await members.rooms_of(requester.user_id)).get(RoomId(room_id))
    if mine is None:
        raise Forbidden("You are not in this room")
    if mine.membership == "leave":
        return
    await _set(author, requester, room_id, requester.user_id, "leave", reason)


async def leave_all(author: Author, members: Members, user_id: UserId) -> None:
    """Leave every room, decline every invitation and take back every knock of a user (whose account is closed)."""
    for room_id, mine in (await members.rooms_of(user_id)).items():
        if mine.membership in ("join", "invite", "knock"):
            try:
                await author.add(room_id, Draft("m.room.member", user_id, {"membership": "leave"}, user_id))
            except Forbidden:
                continue  # a room that does not let its members go keeps a name without a person behind it


async def kick(author: Author, requester: Requester, room_id: str, user_id: UserId, reason: str | None) -> None:
    """Remove a member, or take back an invitation or knock."""
    if await _membership(author, room_id, user_id) not in ("join", "invite", "knock"):
        raise Forbidden(f"{user_id} is not in the room")
    await _set(author, requester, room_id, user_id, "leave", reason)


async def ban(author: Author, requester: Requester, room_id: str, user_id: UserId, reason: str | None) -> None:
    """Remove a user for good."""
    await _set(author, requester, room_id, user_id, "ban", reason)


async def unban(author: Author, requester: Requester, room_id: str, user_id: UserId, reason: str | None) -> None:
    """Lift a ban."""
    if await _membership(author, room_id, user_id) != "ban":
        raise Forbidden(f"{user_id} is not banned")
    await _set(author, requester, room_id, user_id, "leave", reason)


async def forget(author: Author, members: Members, requester: Requester, room_id: str) -> None:
    """Hide a left room from oneself for good."""
    mine = (await members.rooms_of(requester.user_id)).get(RoomId(room_id))
    if mine is None:
        return
    if mine.membership not in ("leave", "ban"):
        raise Unknown("You must leave the room before you can forget it", status=400)
    await author.store.write(rooms.forget, requester.user_id, mine.rid)
    members.forget(requester.user_id)


async def _membership(author: Author, room_id: str, user_id: UserId) -> str:
    head = await author.head(room_id)
    state = await author.heads.state_of(head, [("m.room.member", user_id)])
    return membership_of(state.get(("m.room.member", user_id)))


async def _set(
    author: Author, requester: Requester, room_id: str, user_id: UserId, membership: str, reason: str | None
) -> None:
    content = {"membership": membership} if reason is None else {"membership": membership, "reason": reason}
    await author.add(room_id, Draft("m.room.member", requester.user_id, content, user_id))

"""How people look in rooms: the content of their own membership events, and what a changed profile does to them."""

from __future__ import annotations

from typing import Any

from appliance.matrix.errors import Forbidden
from appliance.matrix.ids import UserId
from appliance.rooms.author import Author, Draft
from appliance.rooms.members import Members
from appliance.store import profiles


async def member_content(author: Author, user_id: UserId, membership: str, reason: str | None = None) -> dict[str, Any]:
    """Return the content of a membership event of `user_id`, with the profile shown when joining or being invited."""
    content: dict[str, Any] = {"membership": membership}
    if membership in ("join", "invite", "knock"):
        profile = await author.store.read(profiles.get, user_id)
        if profile is not None:
            if profile.display_name is not None:
                content["displayname"] = profile.display_name
            if profile.avatar_url is not None:
                content["avatar_url"] = profile.avatar_url
    if reason is not None:
        content["reason"] = reason
    return content


async def profile_changed(author: Author, members: Members, user_id: UserId) -> None:
    """Show a changed display name or avatar in every room the user is in.

    A room whose rules refuse the new membership event keeps the old face; the others are not affected by that.
    """
    joined = [room_id for room_id, m in (await members.rooms_of(user_id)).items() if m.membership == "join"]
    for room_id in joined:
        head = await author.head(room_id)
        current = await author.heads.state_of(head, [("m.room.member", user_id)])
        event = current.get(("m.room.member", user_id))
        if event is None:
            continue
        kept = {k: v for k, v in event.content.items() if k not in ("displayname", "avatar_url", "reason")}
        content = {**kept, **await member_content(author, user_id, "join")}
        # Version 8 and later: only the join itself needs somebody's authority, a change of face does not.
        content.pop("join_authorised_via_users_server", None)
        try:
            await author.add(room_id, Draft("m.room.member", user_id, content, user_id))
        except Forbidden:
            continue

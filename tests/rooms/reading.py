"""What the tests of the reading side share: short questions to a ward."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.matrix.ids import EventId, RoomId
from appliance.matrix.requester import Requester
from appliance.rooms import send, timeline
from appliance.rooms.timeline import Page
from tests.world.rooms import Ward

NOW = 1_800_000_000_000


async def history(w: Ward, who: Requester, room_id: str, **page: Any) -> dict[str, Any]:
    """Read one page of messages, backwards unless said otherwise."""
    wanted = Page(**{"backwards": True, "limit": 100, **page})
    return await w.store.read(timeline.messages, who, room_id, wanted, NOW)


async def bodies(w: Ward, who: Requester, room_id: str, **page: Any) -> list[str]:
    """Return the texts that somebody finds in a room, oldest first."""
    chunk = (await history(w, who, room_id, **page))["chunk"]
    found = [event["content"]["body"] for event in chunk if "body" in event["content"]]
    return found if page.get("backwards") is False else found[::-1]


async def put_state(
    w: Ward, who: Requester, room_id: str, type: str, content: Mapping[str, Any], state_key: str = ""
) -> EventId:
    """Set state."""
    return await send.state(w.author, who, room_id, type, state_key, content)


async def relate(
    w: Ward, who: Requester, room_id: RoomId, parent: str, rel_type: str, body: str = "child", **content: Any
) -> EventId:
    """Send a message that relates to another event."""
    relates = {"rel_type": rel_type, "event_id": parent}
    return await w.say(who, room_id, body, **{"m.relates_to": relates, **content})


async def edit(w: Ward, who: Requester, room_id: RoomId, parent: str, body: str) -> EventId:
    """Replace a message."""
    return await relate(w, who, room_id, parent, "m.replace", f"* {body}", **{"m.new_content": {"body": body}})

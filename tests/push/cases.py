"""Events and readers for tests of push rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.matrix import signing, versions
from appliance.matrix.event import Event, build
from appliance.matrix.ids import EventId, RoomId, ServerName, UserId
from appliance.push.conditions import Reader, RoomFacts, Subject

HERE = ServerName("test.example")
ROOM = RoomId("!room:test.example")
ANNA, BERT = UserId("@anna:test.example"), UserId("@bert:test.example")
ME = Reader(BERT, "Bert vom Nachtdienst")
_KEY = signing.generate("test", b"\x05" * 32)


class Levels:
    """Power levels as a table; nobody named has 0, `room` needs 50."""

    def __init__(self, **users: int) -> None:
        self._users = {f"@{name}:{HERE}": power for name, power in users.items()}

    def of(self, user: str) -> int:
        return self._users.get(user, 0)

    def notification(self, name: str) -> int:
        return 50 if name == "room" else 70


def event(type: str = "m.room.message", content: Mapping[str, Any] | None = None, *, sender: UserId = ANNA,
          state_key: str | None = None) -> Event:
    """Build an event of version 11."""
    return build(versions.get("11"), room_id=ROOM, type=type, sender=sender, state_key=state_key,
                 content=content or {}, origin_server_ts=1, depth=1, prev_events=[EventId("$p")], auth_events=[],
                 signer=_KEY, server=HERE)


def subject(type: str = "m.room.message", content: Mapping[str, Any] | None = None, *, joined: int = 5,
            levels: Levels | None = None, **more: Any) -> Subject:
    """Build an event with its room."""
    return Subject(event(type, content, **more), RoomFacts(joined, levels or Levels()))


def text(body: str, **content: Any) -> dict[str, Any]:
    """Return the content of a text message."""
    return {"msgtype": "m.text", "body": body, **content}

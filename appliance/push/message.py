"""What goes to a push gateway: as little as the pusher asked for, and nothing of the content where the house says so.

Source: push gateway API, `POST /_matrix/push/v1/notify`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from appliance.matrix import canonical
from appliance.push.rules import Outcome
from appliance.store import events
from appliance.store.events import Row
from appliance.store.push import PusherRow
from appliance.store.readers import Rx

BARE: Final = "event_id_only"


class Names(msgspec.Struct, frozen=True):
    """How the room and the sender are called at the moment."""

    sender: str | None
    room: str | None
    alias: str | None


def names_of(rx: Rx, row: Row) -> Names:
    """Read the names that a full notification carries."""
    sender = ("m.room.member", row.event.sender)
    keys = (sender, ("m.room.name", ""), ("m.room.canonical_alias", ""))
    found = {state.event.key: state.event.content for state in events.current_events(rx, row.rid, keys)}

    def text(key: tuple[str, str], field: str) -> str | None:
        value = found.get(key, {}).get(field)
        return value if isinstance(value, str) and value else None

    return Names(text(sender, "displayname"), text(("m.room.name", ""), "name"),
                 text(("m.room.canonical_alias", ""), "alias"))


def is_bare(pusher: PusherRow) -> bool:
    """Tell whether the pusher wants ids only."""
    return canonical.decode_object(pusher.data).get("format") == BARE


def badge(pusher: PusherRow, unread: int) -> dict[str, Any]:
    """Return a notification that only says how much is unread."""
    return {"prio": "low", "counts": {"unread": unread} if unread else {}, "devices": [_device(pusher)]}


def bare(pusher: PusherRow, row: Row, outcome: Outcome, unread: int) -> dict[str, Any]:
    """Return a notification about an event without anything of the event but its id."""
    return {
        "event_id": row.event.event_id, "room_id": row.event.room_id, "prio": _priority(row, outcome),
        "counts": {"unread": unread} if unread else {}, "devices": [_device(pusher)],
    }


def full(pusher: PusherRow, row: Row, outcome: Outcome, unread: int, names: Names) -> dict[str, Any]:
    """Return a notification with everything a gateway may be told."""
    event = row.event
    notification = bare(pusher, row, outcome, unread)
    notification.update(type=event.type, sender=event.sender, content=event.content)
    notification["devices"] = [{**_device(pusher), "tweaks": dict(outcome.tweaks)}]
    if event.type == "m.room.member":
        notification["user_is_target"] = event.state_key == pusher.user_id
    for name, value in (("sender_display_name", names.sender), ("room_name", names.room), ("room_alias", names.alias)):
        if value is not None:
            notification[name] = value
    return notification


def _device(pusher: PusherRow) -> dict[str, Any]:
    data = {name: value for name, value in canonical.decode_object(pusher.data).items() if name != "url"}
    return {"app_id": pusher.app_id, "pushkey": pusher.pushkey, "pushkey_ts": pusher.ts // 1000, "data": data}


def _priority(row: Row, outcome: Outcome) -> str:
    urgent = outcome.highlight or "sound" in outcome.tweaks or row.event.type == "m.room.encrypted"
    return "high" if urgent else "low"

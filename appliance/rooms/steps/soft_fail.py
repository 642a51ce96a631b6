"""Step 11: an event that was allowed where it stands, but would not be now, is kept and shown to nobody.

Otherwise somebody banned could go on by continuing from before the ban. The event stays in the graph: others may have
accepted it, and their events build on it.

Source: server-server API, "Soft failure".
"""

from __future__ import annotations

from appliance.matrix import auth
from appliance.matrix.auth import CREATE, Rejected
from appliance.matrix.event import Event
from appliance.store import events
from appliance.store.readers import Rx


def outdated(rx: Rx, rid: int, event: Event) -> str | None:
    """Return why the room's current state would refuse the event, None if it would not."""
    keys = auth.auth_keys(event.version, event.type, event.sender, event.state_key, event.content)
    rows = events.current_events(rx, rid, {*keys, CREATE})
    try:
        auth.check(event, {row.event.key: row.event for row in rows})
    except Rejected as error:
        return str(error)
    return None

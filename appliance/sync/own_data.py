"""A user's account data for a sync: what they stored, and at first what everybody has without having stored it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from appliance.store import account_data
from appliance.store.readers import Rx

Defaults = Callable[[str], Mapping[str, bytes]]
"""From a user id to the account data (type -> JSON) of somebody who changed nothing: their push rules."""


def no_defaults(user_id: str) -> Mapping[str, bytes]:
    """Say that nobody has anything they did not store."""
    return {}


def changed(rx: Rx, user_id: str, after: int | None, upto: int, defaults: Defaults) -> list[tuple[str, str, bytes]]:
    """Return the entries with a position in (after, upto] as (room id or "", type, content); all of them for None."""
    found = account_data.changed(rx, user_id, after or 0, upto)
    if after is None:
        stored = {kind for where, kind, _ in found if where == account_data.GLOBAL}
        standing = defaults(user_id)
        found += [(account_data.GLOBAL, kind, raw) for kind, raw in standing.items() if kind not in stored]
    return found

"""What a client asks of a sync, parsed."""

from __future__ import annotations

import msgspec

from appliance.matrix.requester import Requester
from appliance.matrix.tokens import StreamToken
from appliance.sync.filters import NO_FILTER, SyncFilter


class Ask(msgspec.Struct, frozen=True):
    """One request of the classic sync.

    `timeout` is in milliseconds; `state_after` asks for the state at the end of the timelines instead of at their
    start, under the stable name or, `unstable_names`, under that of MSC4222.
    """

    requester: Requester
    since: StreamToken | None = None
    filter: SyncFilter = NO_FILTER
    full_state: bool = False
    state_after: bool = False
    unstable_names: bool = False
    timeout: int = 0
    presence: str = "online"

"""Transactions: the one way in which other servers tell us what happened.

Source: server-server API, "Transactions".
"""

from __future__ import annotations

from typing import Any, Final

from appliance.doors.federation.entry import PeerCall, PeerRoute
from appliance.federation.inbound import Inbound

BODY_LIMIT: Final = 16 * 1024 * 1024
"""Fifty events of 64 KiB and a hundred messages for devices, written with escapes."""


def routes(inbound: Inbound) -> list[PeerRoute]:
    """List the one operation."""

    async def send(call: PeerCall) -> dict[str, Any]:
        return await inbound.accept(call.peer, call.call.path("txn"), call.content)

    return [PeerRoute("PUT", "/_matrix/federation/v1/send/{txn}", send, BODY_LIMIT)]

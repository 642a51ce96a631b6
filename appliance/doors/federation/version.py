"""What this server is: its name and version.

Source: server-server API, "Server implementation".
"""

from __future__ import annotations

from typing import Any

from appliance import __version__
from appliance.doors.web import Access, Call, Route


def routes() -> list[Route]:
    """List the one operation; it needs no signature."""

    async def version(call: Call) -> dict[str, Any]:
        return {"server": {"name": "Schleuse", "version": __version__}}

    return [Route("GET", "/_matrix/federation/v1/version", version, Access.NONE)]

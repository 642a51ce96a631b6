"""What a client asks before anybody logs in: versions and the way to this server."""

from __future__ import annotations

from typing import Any

from appliance.doors.web import Access, Call, Route

VERSIONS = (
    "v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11",
)  # fmt: skip

UNSTABLE = {
    "org.matrix.simplified_msc3575": True,  # simplified sliding sync (MSC4186)
    "org.matrix.msc4222": True,  # state_after in sync
    "org.matrix.msc2965.authentication": False,
    "org.matrix.msc3814": True,  # dehydrated devices
    "uk.tcpip.msc4133": True,  # extended profile fields
    "org.matrix.e2e_cross_signing": True,
    "org.matrix.msc3967": True,  # first upload of cross-signing keys without interactive authentication
    "org.matrix.msc4115.membership_on_events": True,
}
"""Parts of later versions that clients may use here."""


def routes() -> list[Route]:
    """Return the discovery operations."""

    async def get_versions(call: Call) -> dict[str, Any]:
        return {"versions": VERSIONS, "unstable_features": UNSTABLE}

    async def get_well_known(call: Call) -> dict[str, Any]:
        # Whoever found this answer has found the client API: it is behind the same name and port.
        return {"m.homeserver": {"base_url": f"{call.request.scheme}://{call.request.host}"}}

    async def get_protocols(call: Call) -> dict[str, Any]:
        return {}  # no bridges to other networks

    return [
        Route("GET", "/_matrix/client/v3/thirdparty/protocols", get_protocols),
        Route("GET", "/_matrix/client/versions", get_versions, access=Access.NONE),
        Route("GET", "/.well-known/matrix/client", get_well_known, access=Access.NONE),
    ]

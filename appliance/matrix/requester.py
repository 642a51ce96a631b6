"""Who asks: the authenticated caller of a client request."""

from __future__ import annotations

import msgspec

from appliance.matrix.errors import MatrixError
from appliance.matrix.ids import DeviceId, UserId


class Requester(msgspec.Struct, frozen=True):
    """The account and device behind an access token.

    `session` is the row id of the log-in (one per device and log-in), used to make transaction ids idempotent
    across token refreshes; it is not a secret.
    """

    user_id: UserId
    device_id: DeviceId
    session: int
    is_guest: bool = False
    is_admin: bool = False
    suspended: bool = False


def require_active(requester: Requester) -> None:
    """Refuse a suspended account: it may read, leave and log out, but not send, join, invite or change its profile.

    Source: client-server API, "Account suspension".
    """
    if requester.suspended:
        raise MatrixError("The account is suspended", status=403, errcode="M_USER_SUSPENDED")

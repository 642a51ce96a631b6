"""What a Matrix client or peer may be told when something is refused.

One class per `errcode` that has behaviour or is raised in more than one place; the tree:

    MatrixError                     status + errcode + words, rendered verbatim by the doors
    ├── Forbidden                   403 M_FORBIDDEN
    ├── MissingToken                401 M_MISSING_TOKEN
    ├── UnknownToken                401 M_UNKNOWN_TOKEN (soft_logout)
    ├── Unrecognized                404 M_UNRECOGNIZED
    ├── MethodNotAllowed            405 M_UNRECOGNIZED
    ├── NotFound                    404 M_NOT_FOUND
    ├── NotJson / BadJson           400 M_NOT_JSON / M_BAD_JSON
    ├── InvalidParam / MissingParam 400 M_INVALID_PARAM / M_MISSING_PARAM
    ├── TooLarge                    413 M_TOO_LARGE
    ├── LimitExceeded               429 M_LIMIT_EXCEEDED (retry_after_ms)
    ├── UnsupportedRoomVersion      400 M_UNSUPPORTED_ROOM_VERSION
    ├── IncompatibleRoomVersion     400 M_INCOMPATIBLE_ROOM_VERSION (room_version)
    ├── UserDeactivated             403 M_USER_DEACTIVATED
    └── Unknown                     the field's catch-all, with a status of the caller's choice

Source: client-server API, "Standard error response" and "Common error codes".
"""

from __future__ import annotations

from collections.abc import Mapping


class MatrixError(Exception):
    """A refusal in the protocol's own form.

    `status` is the HTTP status, `errcode` the machine word, `message` the human sentence and `extra` further
    top-level fields of the error object (for example `retry_after_ms`).
    """

    status = 400
    errcode = "M_UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        errcode: str | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if status is not None:
            self.status = status
        if errcode is not None:
            self.errcode = errcode
        self.extra: Mapping[str, object] = extra or {}

    def body(self) -> dict[str, object]:
        """Return the error object as it goes over the wire."""
        return {"errcode": self.errcode, "error": self.message, **self.extra}


class Forbidden(MatrixError):
    status, errcode = 403, "M_FORBIDDEN"


class MissingToken(MatrixError):
    status, errcode = 401, "M_MISSING_TOKEN"

    def __init__(self, message: str = "Missing access token") -> None:
        super().__init__(message)


class UnknownToken(MatrixError):
    status, errcode = 401, "M_UNKNOWN_TOKEN"

    def __init__(self, message: str = "Unknown access token", *, soft_logout: bool = False) -> None:
        super().__init__(message, extra={"soft_logout": True} if soft_logout else None)


class Unrecognized(MatrixError):
    status, errcode = 404, "M_UNRECOGNIZED"


class MethodNotAllowed(MatrixError):
    status, errcode = 405, "M_UNRECOGNIZED"


class NotFound(MatrixError):
    status, errcode = 404, "M_NOT_FOUND"


class NotJson(MatrixError):
    status, errcode = 400, "M_NOT_JSON"


class BadJson(MatrixError):
    status, errcode = 400, "M_BAD_JSON"


class InvalidParam(MatrixError):
    status, errcode = 400, "M_INVALID_PARAM"


class MissingParam(MatrixError):
    status, errcode = 400, "M_MISSING_PARAM"


class TooLarge(MatrixError):
    status, errcode = 413, "M_TOO_LARGE"


class LimitExceeded(MatrixError):
    """Too many requests; `retry_after_ms` tells the client when to come back (milliseconds)."""

    status, errcode = 429, "M_LIMIT_EXCEEDED"

    def __init__(self, retry_after_ms: int, message: str = "Too many requests") -> None:
        super().__init__(message, extra={"retry_after_ms": retry_after_ms})
        self.retry_after_ms = retry_after_ms


class UnsupportedRoomVersion(MatrixError):
    status, errcode = 400, "M_UNSUPPORTED_ROOM_VERSION"


class IncompatibleRoomVersion(MatrixError):
    status, errcode = 400, "M_INCOMPATIBLE_ROOM_VERSION"

    def __init__(self, room_version: str) -> None:
        super().__init__(f"The room has version {room_version}", extra={"room_version": room_version})


class UserDeactivated(MatrixError):
    status, errcode = 403, "M_USER_DEACTIVATED"


class Unknown(MatrixError):
    """Something the specification has no word for; the status says whose turn it is."""

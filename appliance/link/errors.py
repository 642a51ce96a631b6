"""What can go wrong with a peer, in the two words that decide what happens next: wait, or stop asking.

    PeerError                   something about one peer; never shown to a client as it is
    ├── Unreachable             no usable answer: network, TLS, 5xx, 429. Asking again later may help
    │   └── BadAnswer           an answer that cannot be read or breaks a limit; another peer may know better
    └── RefusedByPeer           4xx with an errcode: the peer understood and said no

The words of the peer are not kept: they are written by a stranger, and nobody here acts on them.
"""

from __future__ import annotations


class PeerError(Exception):
    """Something about one peer; `server` is its name."""

    def __init__(self, server: str, message: str) -> None:
        super().__init__(f"{server}: {message}")
        self.server = server


class Unreachable(PeerError):
    """There was no usable answer. `reason` is one of our own words; `retry_after_ms` is what the peer asked for."""

    def __init__(self, server: str, reason: str, *, retry_after_ms: int | None = None) -> None:
        super().__init__(server, reason)
        self.reason = reason
        self.retry_after_ms = retry_after_ms


class BadAnswer(Unreachable):
    """The peer answered with something that is not what the specification prescribes, or with too much of it."""


class RefusedByPeer(PeerError):
    """The peer said no. `room_version` comes with `M_INCOMPATIBLE_ROOM_VERSION`."""

    def __init__(self, server: str, status: int, errcode: str, *, room_version: str | None = None) -> None:
        super().__init__(server, f"refused with {status} {errcode}")
        self.status = status
        self.errcode = errcode
        self.room_version = room_version

"""One request to a peer and its answer, as values: what a transport takes and gives back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.matrix.ids import ServerName

JSON_BYTES: Final = 1024 * 1024
"""Largest ordinary answer."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request. `target` is path and query, percent-encoded exactly as they are signed and sent.

    `seconds` bounds everything until the last byte of the answer (for a stream: until its first), `most_bytes` the
    answer's body.
    """

    server: ServerName
    method: str
    target: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    seconds: float = 30.0
    most_bytes: int = JSON_BYTES


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are compared without regard to case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer whose body is still arriving; `chunks` raises `Unreachable` when it stops or breaks a limit."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes]

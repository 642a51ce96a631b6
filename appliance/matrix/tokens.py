"""Positions as clients hold them: opaque text outside, integers inside.

Two kinds, both points *between* events:

* a sync token `s<stream>_<ephemeral>`: everything up to stream position `stream` (rooms, account data, devices,
  messages to the device) and up to serial `ephemeral` (typing, presence; in memory, ever growing over restarts) was
  delivered. A third number appears while more messages for the device are waiting than fit into one answer: these were
  delivered only up to there;
* a timeline token `t<pos>`: the point right after timeline position `pos`. Reading backwards from it starts with the
  event at `pos` or below, forwards with the first event above `pos`. `pos` is negative in history fetched later.

A sync token is accepted wherever a timeline token is (`/messages?from=<next_batch>`), never the other way round.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from appliance.matrix.errors import InvalidParam

_STREAM = re.compile(r"s(\d{1,18})_(\d{1,18})(?:_(\d{1,18}))?", re.ASCII)
_TIMELINE = re.compile(r"t(-?\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class StreamToken:
    """What a sync token says: the positions up to which its holder knows everything."""

    stream: int
    ephemeral: int
    letters: int = -1
    """Position up to which messages to the device were delivered; `stream` unless said otherwise."""

    def __post_init__(self) -> None:
        if self.letters < 0 or self.letters > self.stream:
            object.__setattr__(self, "letters", self.stream)

    def __str__(self) -> str:
        behind = f"_{self.letters}" if self.letters != self.stream else ""
        return f"s{self.stream}_{self.ephemeral}{behind}"


def stream_token(text: str) -> StreamToken:
    """Parse a sync token (`since`, `next_batch`); raises `InvalidParam` for anything else."""
    match = _STREAM.fullmatch(text)
    if match is None:
        raise InvalidParam("Not a sync token of this server")
    return StreamToken(int(match[1]), int(match[2]), -1 if match[3] is None else int(match[3]))


def timeline_token(pos: int) -> str:
    """Name the point right after timeline position `pos`; the point before an event is `timeline_token(pos - 1)`."""
    return f"t{pos}"


def timeline_point(text: str) -> int:
    """Return the timeline position that a timeline or sync token stands right after; raises `InvalidParam`."""
    if match := _TIMELINE.fullmatch(text):
        return int(match[1])
    if match := _STREAM.fullmatch(text):
        return int(match[1])
    raise InvalidParam("Not a pagination token of this server")

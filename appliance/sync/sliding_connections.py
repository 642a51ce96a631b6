"""What each sliding sync connection has been sent.

A connection is one loop of requests of one device (`conn_id`). After every answer it stands at a `pos`; what the client
holds at that pos is a `State`, a value that never changes. So a client may repeat a request with the same pos as often
as it likes. Once it comes with a pos, everything before that one is forgotten. All of this is in memory and bounded:
whoever comes with a pos that was forgotten is told so and begins anew (`M_UNKNOWN_POS`).

Source: MSC4186, "Connections".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from appliance.matrix.errors import MatrixError
from appliance.sync.sliding_ask import RequiredState, RoomConfig

if TYPE_CHECKING:
    from appliance.sync.sliding_quick import Trail

PER_DEVICE: Final = 16
IN_ALL: Final = 5000
UNACKNOWLEDGED: Final = 4
"""Answers remembered beside the acknowledged one; more only arise when a client drops answer after answer."""

Key = tuple[str, int, str]
"""Whose connection: user id, session, conn_id."""


class UnknownPos(MatrixError):
    """The connection or its position is not (or no longer) known: the client begins anew."""

    status, errcode = 400, "M_UNKNOWN_POS"

    def __init__(self) -> None:
        super().__init__("The position is unknown or has expired; start a new connection")


class Sent(msgspec.Struct, frozen=True):
    """What a client holds of one room.

    `upto`: stream position up to which it was told, if the room is not in the window (`State.window`); `kind` the
    membership it was shown; `limit`: so many of the newest events it has without a gap; `required`: which state it was
    sent; `shown`: members it was sent because they were needed; `dm` whether it was called a direct chat.
    """

    upto: int
    kind: str
    limit: int
    required: RequiredState
    shown: frozenset[str] = frozenset()
    dm: bool = False

    def lacks(self, config: RoomConfig) -> bool:
        """Tell whether a config asks for more of the past or of the state than the client has."""
        if self.kind != "join":
            return False
        return config.limit > self.limit or config.required | self.required != self.required


class State(msgspec.Struct, frozen=True):
    """What a client holds at one pos. Rooms in the `window` were told up to `stream`, others to their `Sent.upto`."""

    stream: int = 0
    serial: int = 0
    rooms: Mapping[str, Sent] = msgspec.field(default_factory=dict)
    window: frozenset[str] = frozenset()
    trail: Trail | None = None
    """What makes the next answer quick (sliding_quick.py)."""
    first: bool = False
    """Whether the client holds nothing yet."""

    def told(self, room_id: str) -> int:
        """Return the stream position up to which the client was told about a room, 0 if never."""
        sent = self.rooms.get(room_id)
        if sent is None:
            return 0
        return self.stream if room_id in self.window else sent.upto


NOTHING: Final = State(first=True)


class Connections:
    """The connections of everybody; `start` is a number that grows over restarts (milliseconds)."""

    def __init__(self, start: int) -> None:
        self._number = start
        self._states: OrderedDict[Key, dict[int, State]] = OrderedDict()
        self._devices: dict[tuple[str, int], OrderedDict[str, None]] = {}

    def at(self, key: Key, pos: str | None) -> State:
        """Return what the client holds at a pos and forget what came before it; raises `UnknownPos`."""
        if pos is None:
            self._forget(key)
            return NOTHING
        states = self._states.get(key)
        number = int(pos) if pos.isascii() and pos.isdigit() and len(pos) < 19 else -1
        if states is None or number not in states:
            raise UnknownPos
        for older in [known for known in states if known < number]:
            del states[older]
        return states[number]

    def issue(self, key: Key, state: State) -> str:
        """Remember what the client holds once it has an answer; returns the answer's pos."""
        self._number += 1
        states = self._states.setdefault(key, {})
        while len(states) > UNACKNOWLEDGED:
            del states[list(states)[1]]  # the first one is what the client has acknowledged
        states[self._number] = state
        self._states.move_to_end(key)
        self._note_device(key)
        if len(self._states) > IN_ALL:
            self._forget(next(iter(self._states)))
        return str(self._number)

    def _note_device(self, key: Key) -> None:
        names = self._devices.setdefault(key[:2], OrderedDict())
        names[key[2]] = None
        names.move_to_end(key[2])
        if len(names) > PER_DEVICE:
            self._forget((*key[:2], next(iter(names))))

    def _forget(self, key: Key) -> None:
        self._states.pop(key, None)
        names = self._devices.get(key[:2])
        if names is not None:
            names.pop(key[2], None)
            if not names:
                del self._devices[key[:2]]

"""Which members a client was sent, so that lazily loaded members go out once.

A mark holds the stream position of the answer that carried the member, and counts only for requests whose `since` is at
or after it: if that answer was lost, the client asks again with the older token and gets the member again. Forgetting
a mark is always allowed (the member is sent twice), so everything here is bounded.

Source: client-server API, "Lazy-loading room members".
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

DEVICES: Final = 1000
MARKS_PER_DEVICE: Final = 10_000


class Marks:
    """The members one device was sent, by room (rid) and user id."""

    __slots__ = ("_sent",)

    def __init__(self) -> None:
        self._sent: dict[tuple[int, str], int] = {}

    def knows(self, rid: int, user_id: str, since: int) -> bool:
        """Tell whether a client that holds the token `since` has this member."""
        at = self._sent.get((rid, user_id))
        return at is not None and at <= since

    def sent(self, rid: int, users: Iterable[str], pos: int) -> None:
        """Note members that go out with the answer whose token is `pos`."""
        if len(self._sent) > MARKS_PER_DEVICE:
            self._sent.clear()
        for user_id in users:
            self._sent.setdefault((rid, user_id), pos)

    def clear(self) -> None:
        """Forget everything: the client starts anew."""
        self._sent.clear()


class LazyMembers:
    """The marks of the devices that synced lately."""

    def __init__(self) -> None:
        self._devices: OrderedDict[tuple[str, str], Marks] = OrderedDict()

    def of(self, user_id: str, device_id: str) -> Marks:
        """Return the marks of a device."""
        key = (user_id, device_id)
        marks = self._devices.get(key)
        if marks is None:
            marks = self._devices[key] = Marks()
            if len(self._devices) > DEVICES:
                self._devices.popitem(last=False)
        self._devices.move_to_end(key)
        return marks

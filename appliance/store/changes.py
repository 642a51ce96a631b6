"""What became visible with a commit, told to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Commit:
    """One group commit as the rest of the house sees it.

    `position` is the highest stream position now on disk; `users` and `rooms` (room ids) are those whose
    sync responses may have changed; `asides` are those of the rooms in which something besides the timeline changed.
    """

    position: int
    users: frozenset[str] = field(default_factory=frozenset)
    rooms: frozenset[str] = field(default_factory=frozenset)
    asides: frozenset[str] = field(default_factory=frozenset)


class Changes:
    """The committed position, and the listeners that are called on the event loop after every commit."""

    def __init__(self) -> None:
        self.position = 0
        self._listeners: list[Callable[[Commit], None]] = []

    def listen(self, listener: Callable[[Commit], None]) -> None:
        """Call `listener` on the loop after each commit, in the order of registration. It must not block."""
        self._listeners.append(listener)

    def publish(self, commit: Commit) -> None:
        """Advance the position, then tell everybody."""
        self.position = max(self.position, commit.position)
        for listener in self._listeners:
            listener(commit)

"""The one way into the timeline.

Events of our own users (`author.py`) and of other servers (`receive.py`) end here: one function of the store in one
transaction, and after the commit, in commit order, the caches learn of it (`listen`). Nobody is called "to notify":
whoever waits for news listens to `store.changes`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from appliance.store import append
from appliance.store.append import Landed, New, Shifted
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.store.writer import Tx

Also = Callable[[Tx, int, Sequence[Row]], None]
"""What belongs to the same transaction as the events: (tx, rid, rows)."""


class Ledger:
    """Appends events and tells the caches."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: list[Landed] = []
        self._on_shift: list[Shifted] = []

    def listen(self, listener: Landed) -> None:
        """Call `listener(row, pruned event id)` on the loop for every committed event, in commit order."""
        self._listeners.append(listener)

    def on_shift(self, listener: Shifted) -> None:
        """Call `listener(row, whose membership may have changed)` when an event made a state be resolved anew."""
        self._on_shift.append(listener)

    def append(self, rid: int, new: New) -> Awaitable[Row]:
        """Append one event to a known room. The call queues at once; the result comes when it is on disk."""
        return self._store.write(append.append, rid, new, self._landed, self._shifted)

    def append_placed(self, rid: Callable[[Tx], int], prepare: Callable[[Tx, int], New]) -> Awaitable[Row]:
        """Append one event of another server; `prepare(tx, rid)` first stores what it stands on, in the same
        transaction.
        """

        def change(tx: Tx) -> Row:
            short = rid(tx)
            return append.append(tx, short, prepare(tx, short), self._landed, self._shifted)

        return self._store.write(change)

    def append_all(
        self, rid: Callable[[Tx], int], news: Sequence[New], also: Also
    ) -> Awaitable[list[Row]]:
        """Append several events to one room in one transaction, all or none.

        `rid` finds or makes the room, `also(tx, rid, rows)` adds what belongs to the same transaction.
        """

        def change(tx: Tx) -> list[Row]:
            short = rid(tx)
            rows = [append.append(tx, short, new, self._landed, self._shifted) for new in news]
            also(tx, short, rows)
            return rows

        return self._store.write(change)

    def _landed(self, row: Row, pruned_id: str | None) -> None:
        for listener in self._listeners:
            listener(row, pruned_id)

    def _shifted(self, row: Row, users: Sequence[str]) -> None:
        for listener in self._on_shift:
            listener(row, users)

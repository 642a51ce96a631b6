"""A whole sync, read from the store in one go: everything of one user between `since` and the moment of the read.

Runs in a reader thread on one snapshot of the file, so all sections agree with each other and with `next_batch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from appliance.rooms.visibility import ignored
from appliance.store import account_data, rooms, sync
from appliance.store.readers import Rx
from appliance.store.rooms import Membership
from appliance.sync import devices, own_data
from appliance.sync.ask import Ask
from appliance.sync.devices import DeviceLists, KeyCounts, Letters
from appliance.sync.room import Part, RoomReader, Shelf, account_event

Json = Any


@dataclass(slots=True)
class Delta:
    """What one read found. `upto` is the stream position it saw; `stale` says that `since` lies beyond it.

    `acknowledged` is the position up to which the device's messages may be deleted, if there are any.
    """

    upto: int
    stale: bool = False
    join: list[Part] = field(default_factory=list)
    leave: list[Part] = field(default_factory=list)
    invite: dict[str, Json] = field(default_factory=dict)
    knock: dict[str, Json] = field(default_factory=dict)
    account_data: list[Json] = field(default_factory=list)
    letters: Letters = field(default_factory=Letters)
    acknowledged: int | None = None
    device_lists: DeviceLists = field(default_factory=DeviceLists)
    counts: KeyCounts = field(default_factory=lambda: KeyCounts({}, []))
    ignored: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        """Whether there is no news."""
        return not (
            self.join or self.leave or self.invite or self.knock or self.account_data or self.letters.messages
            or self.device_lists.changed or self.device_lists.left
        )


def read(rx: Rx, ask: Ask, shelf: Shelf) -> Delta:
    """Read everything that `ask` may know after its `since` (everything, without one)."""
    upto = sync.position(rx)
    if ask.since is not None and ask.since.stream > upto:
        return Delta(upto, stale=True)
    return _Reading(rx, ask, shelf, upto).delta


class _Reading:
    def __init__(self, rx: Rx, ask: Ask, shelf: Shelf, upto: int) -> None:
        self._rx = rx
        self._ask = ask
        self._shelf = shelf
        self._user = ask.requester.user_id
        self._since = ask.since.stream if ask.since is not None else None
        self._reader = RoomReader(rx, ask, upto, shelf)
        self.delta = Delta(upto, ignored=ignored(rx, self._user))
        self._active = set() if self._since is None else sync.active_rooms(rx, self._user, self._since, upto)
        memberships = [m for m in rooms.memberships(rx, self._user) if ask.filter.room.wants_room(m.room_id)]
        per_room = self._account_data()
        self._rooms(memberships, per_room)
        self._devices(memberships)

    def _rooms(self, memberships: Iterable[Membership], account: dict[str, list[Json]]) -> None:
        since = self._since
        everything = since is None or self._ask.full_state
        for member in memberships:
            moved = since is None or member.pos > since
            match member.membership:
                case "join":
                    if everything or moved or member.rid in self._active or member.room_id in account:
                        self._join(member, account)
                case "invite" | "knock" if moved:
                    self._stripped(member)
                case "leave" | "ban" if moved or (self._ask.full_state and self._ask.filter.include_leave):
                    self._leave(member, account)
                case _:
                    pass

    def _join(self, member: Membership, account: dict[str, list[Json]]) -> None:
        part = self._reader.joined(member)
        part.account_data = account.get(member.room_id, [])
        if part.fresh and self._since is not None:
            part.account_data = self._account_data_of(member.room_id)
        if not part.empty or self._ask.full_state:
            self.delta.join.append(part)

    def _leave(self, member: Membership, account: dict[str, list[Json]]) -> None:
        if self._since is None and (member.forgotten or not self._ask.filter.include_leave):
            return
        part = self._reader.left(member)
        if part is not None:
            part.account_data = account.get(member.room_id, [])
            self.delta.leave.append(part)

    def _stripped(self, member: Membership) -> None:
        state = self._reader.stripped(member)
        if member.membership == "knock":
            self.delta.knock[member.room_id] = {"knock_state": {"events": state}}
        elif not self.delta.ignored.intersection(_inviter(state, self._user)):
            self.delta.invite[member.room_id] = {"invite_state": {"events": state}}

    # -- what is the user's own ------------------------------------------------------------------------------------

    def _account_data(self) -> dict[str, list[Json]]:
        """Take the global account data and return that of the rooms."""
        per_room: dict[str, list[Json]] = {}
        found = own_data.changed(self._rx, self._user, self._since, self.delta.upto, self._shelf.defaults)
        wanted, in_rooms = self._ask.filter.account_data, self._ask.filter.room_account_data
        for room_id, kind, content in found:
            if room_id == account_data.GLOBAL:
                if wanted.wants_kind(kind):
                    self.delta.account_data.append(account_event(kind, content))
            elif in_rooms.wants_kind(kind) and in_rooms.wants_room(room_id):
                per_room.setdefault(room_id, []).append(account_event(kind, content))
        return per_room

    def _account_data_of(self, room_id: str) -> list[Json]:
        wanted = self._ask.filter.room_account_data
        found = account_data.changed(self._rx, self._user, 0, self.delta.upto)
        return [
            account_event(kind, content)
            for where, kind, content in found
            if where == room_id and wanted.wants_kind(kind) and wanted.wants_room(room_id)
        ]

    def _devices(self, memberships: Iterable[Membership]) -> None:
        delta, device_id, token = self.delta, self._ask.requester.device_id, self._ask.since
        delta.counts = devices.key_counts(self._rx, self._user, device_id)
        after = token.letters if token is not None else 0
        delta.letters = devices.letters(self._rx, self._user, device_id, after, delta.upto)
        if after and devices.letters(self._rx, self._user, device_id, 0, after, 1).messages:
            delta.acknowledged = after
        if self._since is not None:
            stretch = devices.Stretch(self._since, delta.upto, self._active)
            delta.device_lists = devices.device_lists(self._rx, self._user, memberships, stretch)


def _inviter(state: Iterable[dict[str, object]], user_id: str) -> set[str]:
    return {
        str(event.get("sender"))
        for event in state
        if event.get("type") == "m.room.member" and event.get("state_key") == user_id
    }

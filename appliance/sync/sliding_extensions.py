"""What a sliding sync carries beside rooms: messages and keys of the device, account data, receipts, typing.

Each is sent only to a client that asked for it. Threads are not subscribed to on this server, so that extension stays
empty.

Source: MSC4186 and the MSCs of its extensions (3885 to-device, 3884 encryption, 3959 account data, 3960 receipts,
3961 typing).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from appliance.store import account_data, receipts, sliding
from appliance.store.readers import Rx
from appliance.store.rooms import Membership
from appliance.sync import devices, own_data
from appliance.sync.devices import DeviceLists, KeyCounts, Letters, Stretch
from appliance.sync.own_data import Defaults
from appliance.sync.room import account_event, receipt_content
from appliance.sync.sliding_ask import LettersAsk, SlidingAsk
from appliance.sync.sliding_connections import State
from appliance.sync.sliding_lists import Catalogue, Window
from appliance.sync.sliding_rooms import Found

Json = Any
NO_CHANGES = DeviceLists()


@dataclass(slots=True)
class Extras:
    """What the extensions that are on found (None: off). `acknowledged`: so far the device's messages may go."""

    letters: Letters | None = None
    acknowledged: int | None = None
    counts: KeyCounts | None = None
    device_lists: DeviceLists = NO_CHANGES
    account_data: dict[str, Json] | None = None
    receipts: dict[str, Json] | None = None

    @property
    def empty(self) -> bool:
        """Whether there is no news."""
        if self.letters is not None and self.letters.messages:
            return False
        if self.device_lists.changed or self.device_lists.left or self.receipts:
            return False
        return not (self.account_data and (self.account_data["global"] or self.account_data["rooms"]))

    def render(self, typing: dict[str, Json] | None) -> dict[str, Json]:
        """Return the `extensions` of the answer."""
        found: dict[str, Json] = {}
        if self.letters is not None:
            messages = [orjson.Fragment(message) for message in self.letters.messages]
            found["to_device"] = {"next_batch": str(self.letters.upto), "events": messages}
        if self.counts is not None:
            found["e2ee"] = {
                "device_one_time_keys_count": self.counts.one_time,
                "device_unused_fallback_key_types": self.counts.fallback,
            }
            if self.device_lists.changed or self.device_lists.left:
                lists = {"changed": sorted(self.device_lists.changed), "left": sorted(self.device_lists.left)}
                found["e2ee"]["device_lists"] = lists
        if self.account_data and (self.account_data["global"] or self.account_data["rooms"]):
            found["account_data"] = self.account_data
        if self.receipts:
            found["receipts"] = {"rooms": self.receipts}
        if typing:
            found["typing"] = {"rooms": typing}
        return found


class ExtraReader:
    """Reads what the extensions say, within one read of the store that sees the stream up to `upto`."""

    def __init__(self, rx: Rx, ask: SlidingAsk, held: State, upto: int, defaults: Defaults) -> None:
        self._defaults = defaults
        self._rx = rx
        self._ask = ask
        self._user = ask.requester.user_id
        self._held = held
        self._upto = upto

    def read(self, window: Window, catalogue: Catalogue, found: Iterable[Found]) -> Extras:
        """Return everything that is on."""
        wanted, extras = self._ask.extensions, Extras()
        if wanted.to_device is not None:
            self._letters(wanted.to_device, extras)
        if wanted.e2ee:
            self._devices(catalogue, extras)
        if wanted.account_data is not None:
            extras.account_data = self._account_data(window.scope(wanted.account_data))
        if wanted.receipts is not None:
            members: dict[str, Membership] = {member.room_id: member for member in catalogue.memberships}
            extras.receipts = self._receipts(window.scope(wanted.receipts), members, {f.room_id: f for f in found})
        return extras

    def _letters(self, wanted: LettersAsk, extras: Extras) -> None:
        since = wanted.since if wanted.since <= self._upto else 0  # beyond it only after a restored backup
        device_id = self._ask.requester.device_id
        extras.letters = devices.letters(self._rx, self._user, device_id, since, self._upto, wanted.limit)
        if since and devices.letters(self._rx, self._user, device_id, 0, since, 1).messages:
            extras.acknowledged = since

    def _devices(self, catalogue: Catalogue, extras: Extras) -> None:
        extras.counts = devices.key_counts(self._rx, self._user, self._ask.requester.device_id)
        after = self._held.stream
        if not self._held.first:
            stretch = Stretch(after, self._upto, catalogue.active(after))
            extras.device_lists = devices.device_lists(self._rx, self._user, catalogue.memberships, stretch)

    def _account_data(self, scope: list[str]) -> dict[str, Json]:
        after = None if self._held.first else self._held.stream
        found = own_data.changed(self._rx, self._user, after, self._upto, self._defaults)
        everywhere = [account_event(kind, content) for where, kind, content in found if where == account_data.GLOBAL]
        told = {room_id: self._held.told(room_id) for room_id in scope}
        rooms: dict[str, list[Json]] = {}
        if told:
            for room_id, kind, content, pos in sliding.room_account_data(self._rx, self._user, min(told.values())):
                if room_id in told and pos > told[room_id]:
                    rooms.setdefault(room_id, []).append(account_event(kind, content))
        return {"global": everywhere, "rooms": rooms}

    def _receipts(
        self, scope: list[str], members: dict[str, Membership], found: dict[str, Found]
    ) -> dict[str, Json]:
        inside = {room_id: members[room_id] for room_id in scope if members[room_id].membership == "join"}
        told = {room_id: self._held.told(room_id) for room_id in inside}
        if not told:
            return {}
        last = sliding.last_receipts(self._rx, [member.rid for member in inside.values()], min(told.values()))
        result = {}
        for room_id, member in inside.items():
            after = told[room_id]
            if last.get(member.rid, 0) > after:
                rows: Iterable[receipts.ReceiptRow] = receipts.changed(self._rx, member.rid, after, self._upto)
                if after == 0:  # a room that is new to the client: only who has read what it sees
                    seen = {row.event.event_id for row in found[room_id].rows} if room_id in found else set()
                    rows = [row for row in rows if row.event_id in seen or row.user_id == self._user]
                if content := receipt_content(rows, self._user):
                    result[room_id] = {"type": "m.receipt", "content": content}
        return result

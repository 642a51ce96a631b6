"""The sliding sync that nearly every one is: the same request again, and since then at most plain messages in rooms
that the client has been following.

As for the classic sync (quick.py) the store is not asked. Plain messages change which rooms are on top of a list, and
nothing else about lists; so the lists of the last look, with the rooms that spoke moved up, are the lists of now. All
else declines, and everything is read from the store (sliding.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from appliance.matrix.tokens import timeline_token
from appliance.rooms.live import Live
from appliance.store.events import Row
from appliance.sync.devices import KeyCounts, Letters
from appliance.sync.room import plain, unsigned
from appliance.sync.sliding_ask import Extensions, ListAsk, RoomConfig, SlidingAsk
from appliance.sync.sliding_connections import Sent, State
from appliance.sync.sliding_extensions import Extras
from appliance.sync.sliding_lists import Window, windowed
from appliance.sync.sliding_rooms import BUMPS, Found
from appliance.sync.waiters import Hub, Hubs

Json = Any


class Trail(msgspec.Struct, frozen=True):
    """What the last look leaves for the next: the request, the window, and what it knew of the user.

    `inside` are the rooms in the window to which the user is joined; `letters` the position after which no messages
    for the device were waiting, -1 if there were any; `wakes` is the state of the user's hub for which all this holds.
    """

    lists: Mapping[str, ListAsk]
    subscriptions: Mapping[str, RoomConfig]
    extensions: Extensions
    window: Window
    inside: frozenset[str]
    ignored: frozenset[str]
    counts: KeyCounts | None
    letters: int
    wakes: int


class Glance(msgspec.Struct, frozen=True):
    """What was found in memory."""

    window: Window
    rooms: list[Found]
    extras: Extras


class SlidingQuick:
    """Answers from memory."""

    def __init__(self, live: Live, hubs: Hubs) -> None:
        self._live = live
        self._hubs = hubs

    def look(self, ask: SlidingAsk, held: State, hub: Hub, upto: int, now: int) -> Glance | None:
        """Return the news in (held.stream, upto], or None when the store must be asked."""
        trail = held.trail
        if trail is None or not self._same(ask, held, trail, hub, upto):
            return None
        spoke = self._spoke(held, hub, upto)
        if spoke is None:
            return None
        window, found = trail.window, []
        if spoke:
            orders = _moved(window.orders, spoke)
            window = windowed(trail.lists, trail.subscriptions, orders, window.subscribed)
            rooms = self._rooms(ask, held, window, spoke, now) if self._follows(held, trail, window) else None
            if rooms is None:
                return None
            found = rooms
        letters = Letters([], upto) if ask.extensions.to_device is not None else None
        return Glance(window, found, Extras(letters=letters, counts=trail.counts))

    def _same(self, ask: SlidingAsk, held: State, trail: Trail, hub: Hub, upto: int) -> bool:
        """Tell whether the request is the same as before and nothing of the user's own changed."""
        if trail.wakes != hub.wakes or hub.stale or not hub.born <= held.stream <= upto:
            return False
        if ask.lists != trail.lists or ask.subscriptions != trail.subscriptions:
            return False
        letters = ask.extensions.to_device
        if letters is not None and not 0 <= trail.letters <= letters.since <= held.stream:
            return False
        return ask.extensions.like(trail.extensions)

    def _spoke(self, held: State, hub: Hub, upto: int) -> dict[str, list[Row]] | None:
        """Return the rooms with new messages, the most recent first; None if there is more than messages."""
        spoke: dict[str, list[Row]] = {}
        for room_id in hub.rooms_after(held.stream):
            member = hub.memberships.get(room_id)  # type: ignore[call-overload]
            if member is None or self._hubs.aside_after(room_id, held.stream):
                return None
            rows = self._live.since(member.rid, held.stream, upto)
            if rows is None or not all(plain(row, self._live) for row in rows):
                return None
            if rows:
                spoke[room_id] = rows
        return dict(sorted(spoke.items(), key=lambda item: -(item[1][-1].pos or 0)))

    def _follows(self, held: State, trail: Trail, window: Window) -> bool:
        """Tell whether the client has been following every room of the window, and asks no more of it than before."""
        for room_id, config in window.configs.items():
            if room_id not in held.window:
                return False
            sent = held.rooms.get(room_id)
            if config is not trail.window.configs.get(room_id) and (sent is None or sent.lacks(config)):
                return False
        return True

    def _rooms(
        self, ask: SlidingAsk, held: State, window: Window, spoke: Mapping[str, list[Row]], now: int
    ) -> list[Found] | None:
        found, trail = [], held.trail
        ignored = trail.ignored if trail is not None else frozenset()
        for room_id, rows in spoke.items():
            config, sent = window.configs.get(room_id), held.rooms.get(room_id)
            if config is None:
                continue
            if sent is None or len(rows) > config.limit or sent.lacks(config):
                return None
            heard = [row for row in rows if row.event.sender not in ignored]
            if config.required.lazily and not all(row.event.sender in sent.shown for row in heard):
                return None
            if heard:
                found.append(self._room(ask, held, sent, heard, now))
        return found

    def _room(self, ask: SlidingAsk, held: State, sent: Sent, rows: list[Row], now: int) -> Found:
        session = ask.requester.session
        section: dict[str, Json] = {
            "membership": sent.kind,
            "timeline": [self._live.encoded(row).fragment(now, unsigned(row, session)) for row in rows],
            "required_state": [],
            "prev_batch": timeline_token(held.stream),
            "limited": False,
            "num_live": len(rows),
        }
        bumps = [row.pos for row in rows if row.event.type in BUMPS and row.pos]
        if bumps:
            section["bump_stamp"] = max(bumps)
        if sent.dm:
            section["is_dm"] = True
        return Found(rows[0].event.room_id, rows[0].rid, section, sent, tuple(rows))


def _moved(orders: Mapping[str, list[str]], spoke: Mapping[str, list[Row]]) -> Mapping[str, list[str]]:
    """Return the lists with the rooms that spoke moved to the top."""
    moved = {}
    for name, order in orders.items():
        present = set(order)
        moved[name] = [room_id for room_id in spoke if room_id in present]
        moved[name] += [room_id for room_id in order if room_id not in spoke]
    return moved

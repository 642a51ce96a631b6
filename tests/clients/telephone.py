"""A `Person` whose telephone can be closed and opened again, and that writes down every request it makes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nio import (
    Event,
    InviteMemberEvent,
    MegolmEvent,
    RoomMemberEvent,
    RoomMessagesResponse,
    RoomMessageText,
    SyncResponse,
)

from tests.world.people import PATIENCE, Person, Refused


class Telephone(Person):
    """One encrypted device of one person."""

    def __init__(self, base: str, user_id: str, store: Path) -> None:
        super().__init__(base, user_id, store)
        self.store = store
        self.asked: list[tuple[str, str, int, str]] = []
        self.gaps: dict[str, str] = {}
        self._send_plainly = self.client.send
        self.client.send = self._send_noted
        self.client.add_response_callback(self._note_gap, SyncResponse)

    async def _send_noted(self, method: str, path: str, *rest: Any, **fields: Any) -> Any:
        answer = await self._send_plainly(method, path, *rest, **fields)
        body = await answer.read() if answer.status >= 400 else b""
        known = re.search(rb'"errcode"\s*:\s*"(\w+)"', body)
        self.asked.append((method, path.split("?")[0], answer.status, known.group(1).decode() if known else ""))
        return answer

    async def _note_gap(self, answer: SyncResponse) -> None:
        for room_id, room in answer.rooms.join.items():
            if room.timeline.limited and room.timeline.prev_batch:
                self.gaps.setdefault(room_id, room.timeline.prev_batch)

    def unknown_endpoints(self) -> list[tuple[str, str, int, str]]:
        """Return the requests whose endpoint the server did not know."""
        return [call for call in self.asked if call[2] == 405 or call[3] == "M_UNRECOGNIZED"]

    async def close_the_lid(self) -> tuple[str, str, str]:
        """Go away without a word, as a telephone in a pocket does; return what opening it again needs."""
        known = (self.user_id, str(self.client.device_id), str(self.client.access_token))
        await self.leave_the_line()
        return known

    async def open_the_lid(self, user_id: str, device_id: str, token: str) -> None:
        """Go on from the stored keys and sync token of a telephone that was closed."""
        self.client.restore_login(user_id, device_id, token)
        for kind in (Event, InviteMemberEvent):
            self.client.add_event_callback(self._remember, kind)
        since = self.client.loaded_sync_token
        assert since, "the store kept a sync token"
        self._listening = asyncio.create_task(self.client.sync_forever(timeout=10_000, since=since, full_state=True))

    async def read_back(self, room_id: str, fits: Callable[[list[Any]], bool], start: str = "") -> list[Any]:
        """Page backwards through a room until the events fit; return them, newest first, decrypted where possible."""
        token = start or self.gaps.get(room_id) or self.client.next_batch
        events: list[Any] = []
        while True:
            got = await self.client.room_messages(room_id, token, limit=50)
            if not isinstance(got, RoomMessagesResponse):
                raise Refused(str(got))
            events += got.chunk
            if fits(events) or not got.end or got.end == token:
                return events
            token = got.end

    async def sees_joining(self, room_id: str, user_id: str) -> None:
        """Wait until this device's sync has shown it the joining of somebody, itself perhaps."""
        await self.heard(RoomMemberEvent, room_id, lambda e: e.state_key == user_id and e.membership == "join")

    async def hears_of_device(self, other: Telephone) -> None:
        """Wait until this device's sync has told it of another one, and has fetched that one's keys."""
        async with asyncio.timeout(PATIENCE):
            while str(other.client.device_id) not in self.client.device_store[other.user_id]:
                await self.client.synced.wait()

    def texts(self, room_id: str) -> list[str]:
        """Return the texts of a room that this device has decrypted so far, in the order of arrival."""
        return [event.body for room, event in self._heard if room == room_id and isinstance(event, RoomMessageText)]

    def undecrypted(self, room_id: str) -> list[MegolmEvent]:
        return [event for room, event in self._heard if room == room_id and isinstance(event, MegolmEvent)]

    def session_id(self, room_id: str) -> str:
        """Return the id of the session that this device encrypts with now."""
        assert self.client.olm is not None
        return str(self.client.olm.outbound_group_sessions[room_id].id)

    async def throw_away_session(self, room_id: str) -> None:
        """Make the next message start a new session, shared with everybody's devices again."""
        self.client.invalidate_outbound_session(room_id)

"""EDUs from other servers: each checked for who speaks, the durable ones of a transaction in one commit.

    m.direct_to_device       of the server's own users, to devices of ours, once per message id
    m.device_list_update     of the server's own users with whom ours share a room     (device_lists.py)
    m.signing_key_update     the same
    m.receipt                of the server's own users, joined to the room, where the room lets the server speak
    m.typing                 the same
    m.presence               of the server's own users with whom ours share a room

What is malformed, untrue or unknown is passed over: an EDU has no answer.

Source: server-server API, "EDUs" and the chapters named there.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from appliance.accounts import to_device
from appliance.accounts.to_device import MESSAGE_BYTES, RECIPIENTS
from appliance.federation.device_lists import Copies, checked_cross_signing, checked_device
from appliance.matrix import canonical, ids
from appliance.matrix.canonical import MAX_INTEGER
from appliance.matrix.errors import BadJson, InvalidParam, MatrixError, TooLarge
from appliance.matrix.ids import ServerName
from appliance.rooms.steps.admit import allowed
from appliance.store import device_lists, devices, events, inbox, receipts, rooms
from appliance.store.database import Store
from appliance.store.readers import Rx
from appliance.store.receipts import READ, UNTHREADED
from appliance.store.writer import Tx

log = logging.getLogger(__name__)

TYPING_MS: Final = 45_000
"""How long somebody elsewhere is shown as typing without being heard of again."""
MOST_RECEIPTS: Final = 1_000
MOST_PRESENCES: Final = 500
PRESENCES: Final = ("online", "unavailable", "offline")
NAME: Final = 4_096

Json = Any
Change = Callable[[Tx], None]


class Typing(Protocol):
    """Who types where (`rooms.typing.Typing`)."""

    def set(self, room_id: str, user_id: str, timeout_ms: int) -> None:
        """Show somebody as typing, or no longer (0)."""
        ...


class Presence(Protocol):
    """Who is online (`sync.presence.Presence`)."""

    def heard(self, user_id: str, presence: str, status: str | None, active_ago: int) -> Awaitable[None]:
        """Take over what another server says of its user; `active_ago` in milliseconds."""
        ...


class Edus:
    """Takes EDUs in."""

    def __init__(
        self, store: Store, home: ServerName, copies: Copies, typing: Typing, clock: Callable[[], int],
        presence: Presence | None = None,
    ) -> None:
        self._store = store
        self._home = home
        self._copies = copies
        self._typing = typing
        self._clock = clock
        self._presence = presence
        self._durable: Mapping[str, Callable[[ServerName, Mapping[str, Json]], Change]] = {
            "m.direct_to_device": self._message,
            "m.device_list_update": self._device_list,
            "m.signing_key_update": self._signing_keys,
            "m.receipt": self._receipts,
        }
        self._fleeting = {"m.typing": self._types, "m.presence": self._appears}

    async def handle(self, origin: ServerName, edus: Sequence[Mapping[str, Json]]) -> None:
        """Take in EDUs, in order; the durable ones are on disk afterwards."""
        changes: list[Change] = []
        for edu in edus:
            kind, content = edu.get("edu_type"), edu.get("content")
            if not isinstance(kind, str) or not isinstance(content, dict):
                continue
            try:
                canonical.check_canonical(content)
                if kind in self._durable:
                    changes.append(self._durable[kind](origin, content))
                elif kind in self._fleeting:
                    await self._fleeting[kind](origin, content)
            except MatrixError as error:
                log.info("passed over an EDU %s of %s: %s", kind[:64], origin, error.message)
        if changes:
            await self._store.write(_all, changes)
        if any(edu.get("edu_type") == "m.device_list_update" for edu in edus):
            self._copies.nudge()  # one may have shown a gap

    # -- durable ----------------------------------------------------------------------------------------------------

    def _message(self, origin: ServerName, content: Mapping[str, Json]) -> Change:
        sender, kind = _own(origin, content.get("sender")), _text(content, "type")
        message_id, messages = _text(content, "message_id"), content.get("messages")
        if not isinstance(messages, dict) or not all(isinstance(part, dict) for part in messages.values()):
            raise BadJson("messages must be grouped by user and device")
        if sum(map(len, messages.values())) > RECIPIENTS:
            raise InvalidParam("Too many recipients")
        ours = {
            user_id: {device_id: _letter(sender, kind, body) for device_id, body in by_device.items()}
            for user_id, by_device in messages.items()
            if ids.is_user_id(user_id) and ids.server_of(user_id) == self._home
        }
        now = self._clock()

        def deliver(tx: Tx) -> None:
            if inbox.first_time(tx, sender, message_id, now):
                for user_id, by_device in ours.items():
                    to_device.deliver(tx, user_id, by_device)

        return deliver

    def _device_list(self, origin: ServerName, content: Mapping[str, Json]) -> Change:
        user_id, device_id = _own(origin, content.get("user_id")), _text(content, "device_id")
        stream_id, before, name = content.get("stream_id"), content.get("prev_id") or [], content.get(
            "device_display_name"
        )
        if not _number(stream_id) or not isinstance(before, list) or not all(map(_number, before)):
            raise BadJson("stream_id and prev_id must be integers")
        if name is not None and not (isinstance(name, str) and len(name) <= NAME):
            raise BadJson("device_display_name must be a short string")
        device = None
        if not content.get("deleted"):
            device = checked_device(user_id, device_id, content.get("keys"), name)
        number, home, now = int(stream_id or 0), self._home, self._clock()
        self._copies.note(user_id, number)

        def follow(tx: Tx) -> None:
            copy = device_lists.copy(tx, user_id) if device_lists.watched(tx, user_id, home) else None
            if copy is not None and number <= copy.stream_id:
                return
            if copy is None or copy.stale:
                pass_on = device_lists.watched(tx, user_id, home)
            elif not before or max(before) > copy.stream_id:
                device_lists.spoil(tx, user_id, 0, now)
                pass_on = True
            else:
                if device is None:
                    device_lists.remove(tx, user_id, device_id)
                else:
                    device_lists.put(tx, user_id, device)
                device_lists.advance(tx, user_id, number)
                pass_on = True
            if pass_on:
                devices.list_changed(tx, user_id)

        return follow

    def _signing_keys(self, origin: ServerName, content: Mapping[str, Json]) -> Change:
        user_id, home = _own(origin, content.get("user_id")), self._home
        cross = checked_cross_signing(user_id, content)

        def follow(tx: Tx) -> None:
            if cross and device_lists.watched(tx, user_id, home):
                device_lists.set_cross_signing(tx, user_id, cross)
                devices.list_changed(tx, user_id)

        return follow

    def _receipts(self, origin: ServerName, content: Mapping[str, Json]) -> Change:
        found: list[tuple[str, str, str, str, int]] = []
        for room_id, kinds in content.items():
            people = kinds.get(READ) if isinstance(kinds, dict) else None
            for user_id, receipt in (people if isinstance(people, dict) else {}).items():
                found.append((room_id, _own(origin, user_id), *_receipt(receipt)))
        if len(found) > MOST_RECEIPTS:
            raise InvalidParam("Too many receipts at once")

        def move(tx: Tx) -> None:
            for room_id, user_id, event_id, thread_id, ts in found:
                rid = _speaks(tx, room_id, user_id, origin)
                if rid is not None:
                    receipts.put(tx, rid, room_id, user_id, READ, thread_id, event_id, ts)

        return move

    # -- fleeting ---------------------------------------------------------------------------------------------------

    async def _types(self, origin: ServerName, content: Mapping[str, Json]) -> None:
        user_id, room_id = _own(origin, content.get("user_id")), _text(content, "room_id")
        if await self._store.read(_speaks, room_id, user_id, origin) is not None:
            self._typing.set(room_id, user_id, TYPING_MS if content.get("typing") is True else 0)

    async def _appears(self, origin: ServerName, content: Mapping[str, Json]) -> None:
        pushed = content.get("push")
        if self._presence is None or not isinstance(pushed, list):
            return
        for update in pushed[:MOST_PRESENCES]:
            if not isinstance(update, dict) or update.get("presence") not in PRESENCES:
                continue
            user_id = _own(origin, update.get("user_id"))
            status, ago = update.get("status_msg"), update.get("last_active_ago", 0)
            if await self._store.read(device_lists.watched, user_id, self._home):
                status = status[:NAME] if isinstance(status, str) else None
                await self._presence.heard(user_id, update["presence"], status, ago if _number(ago) else 0)


def _all(tx: Tx, changes: Sequence[Change]) -> None:
    for change in changes:
        change(tx)


def _speaks(rx: Rx | Tx, room_id: str, user_id: str, origin: str) -> int | None:
    """Return the room's short id if the user is joined and the room lets their server speak."""
    room = rooms.find(rx, room_id)
    member = rooms.membership(rx, user_id, room.rid) if room is not None else None
    if room is None or member is None or member.membership != "join":
        return None
    rules = events.current_events(rx, room.rid, [("m.room.server_acl", "")])
    return room.rid if all(allowed(rule.event.content, origin) for rule in rules) else None


def _own(origin: ServerName, user_id: object) -> str:
    """Return a user id of the server that speaks: it may speak for nobody else."""
    if not isinstance(user_id, str) or not ids.is_user_id(user_id) or ids.server_of(user_id) != origin:
        raise InvalidParam("A server may speak for its own users only")
    return user_id


def _text(content: Mapping[str, Json], name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str) or not value or not ids.fits(value):
        raise BadJson(f"{name} must be a string of at most 255 bytes")
    return value


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_INTEGER


def _letter(sender: str, kind: str, body: Json) -> bytes:
    if not isinstance(body, dict):
        raise BadJson("The content for a device must be an object")
    raw = canonical.dumps({"content": body, "sender": sender, "type": kind})
    if len(raw) > MESSAGE_BYTES:
        raise TooLarge("The message for a device is too large")
    return raw


def _receipt(receipt: Json) -> tuple[str, str, int]:
    """Return event, thread and time of one receipt."""
    named = receipt.get("event_ids") if isinstance(receipt, dict) else None
    data = receipt.get("data") if isinstance(receipt, dict) else None
    if not isinstance(named, list) or len(named) != 1 or not isinstance(named[0], str) or not isinstance(data, dict):
        raise BadJson("A receipt names one event and its data")
    thread, ts = data.get("thread_id", UNTHREADED), data.get("ts", 0)
    if not isinstance(thread, str) or not ids.fits(thread) or not _number(ts):
        raise BadJson("A receipt has a thread and a time")
    return named[0], thread, int(ts)

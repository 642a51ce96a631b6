"""Events of our own users: draft, check, sign, append.

    draft      what somebody wants to say or change
    follow     the room's tips and the state it must cite                 (head.py)
    build      hash, sign, name                                           (matrix.event)
    check      the room version's authorisation rules                     (matrix.auth)
    policy     the house's own rules, which may refuse more               (the profile)
    append     queue for the writer, move the head on, wait for the disk  (ledger.py)

Everything up to `append` happens under the room's lock and without waiting, as long as the cited events are at hand;
the wait for the disk is outside of it, so that a busy room commits in groups.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from appliance.matrix import auth
from appliance.matrix import event as matrix_event
from appliance.matrix.auth import CREATE
from appliance.matrix.errors import Forbidden, Unknown
from appliance.matrix.event import Event
from appliance.matrix.ids import EventId, ServerName, UserId
from appliance.matrix.signing import SigningKey
from appliance.rooms.head import Head, Heads
from appliance.rooms.ledger import Also, Ledger
from appliance.store import rooms
from appliance.store.append import AlreadySent, New, Stale, sent
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.store.state import Key

Clock = Callable[[], int]
"""Milliseconds since the epoch."""
Policy = Callable[[Event, Mapping[Key, Event]], None]
"""Further rules of the house on a proposed event; raises `Forbidden`."""

ATTEMPTS = 16
REMEMBERED = 10_000


class Draft(msgspec.Struct, frozen=True):
    """What a local user wants to add to a room.
    `prunes` names the target of a redaction that takes effect; `shown` is the stripped state that goes with an
    invitation or a knock.
    """

    type: str
    sender: UserId
    content: Mapping[str, Any]
    state_key: str | None = None
    redacts: EventId | None = None
    prunes: EventId | None = None
    shown: Sequence[Mapping[str, Any]] | None = None


class Ticket(msgspec.Struct, frozen=True):
    """Which device sends, and its transaction id: the same twice is one event (spec: transaction identifiers)."""

    session: int
    txn: str


class Author:
    """Writes the events of this server's users; if it `federates`, other servers in a room are owed each of them."""

    def __init__(self, store: Store, heads: Heads, ledger: Ledger, signer: SigningKey, server: ServerName,
                 clock: Clock, policy: Policy, *, federates: bool = False) -> None:
        self.store = store
        self.heads = heads
        self._ledger = ledger
        self._signer = signer
        self.server = server
        self.clock = clock
        self._policy = policy
        self._home = server if federates else None
        self._sent: OrderedDict[tuple[int, str, str, str, str | None], asyncio.Future[EventId]] = OrderedDict()

    async def head(self, room_id: str) -> Head:
        """Return where a room continues; `Forbidden` for a room that this server does not take part in."""
        head = await self.heads.get(room_id)
        if head is None:
            raise Forbidden("You are not in this room")
        return head

    async def add(self, room_id: str, draft: Draft, ticket: Ticket | None = None) -> EventId:
        """Append one event and return its id once it is on disk.

        Raises `Forbidden` when the rules refuse it. State that says what already holds is not said again: the id of
        the event in force is returned.
        """
        if ticket is None:
            return await self._add(room_id, draft, None)
        key = (ticket.session, ticket.txn, room_id, draft.type, draft.redacts)
        earlier = self._sent.get(key)
        if earlier is not None:
            return await asyncio.shield(earlier)
        future: asyncio.Future[EventId] = asyncio.get_running_loop().create_future()
        self._sent[key] = future
        try:
            event_id = await self._add(room_id, draft, ticket)
        except BaseException as error:
            del self._sent[key]
            if not future.done():
                future.set_exception(error if isinstance(error, Exception) else Unknown("Aborted", status=503))
                future.exception()  # nobody else may be waiting for it
            raise
        future.set_result(event_id)
        self._trim()
        return event_id

    async def _add(self, room_id: str, draft: Draft, ticket: Ticket | None) -> EventId:
        for attempt in range(ATTEMPTS):
            head = await self.head(room_id)
            if attempt and ticket is not None:
                earlier = await self._already_sent(head, draft, ticket)
                if earlier is not None:
                    return earlier
            async with head.lock:
                if head.broken:
                    continue
                event = await self._build(head, draft)
                repeated = await self._in_force(head, draft)
                if repeated is not None:
                    return repeated
                future = self._append(head, event, draft, ticket)
            try:
                return (await future).event.event_id
            except Stale:
                continue  # a predecessor was not committed; the head is read again
            except AlreadySent as error:
                return EventId(error.event_id)
        raise Unknown("The room is too busy at the moment; nothing was sent. Try again.", status=503)

    async def _already_sent(self, head: Head, draft: Draft, ticket: Ticket) -> EventId | None:
        """Return the event of an earlier process that this request repeats.

        Asked only after an attempt failed, so a plain message costs no read. Without it, many devices that repeat
        their requests after a restart would each break the head once more for all the others.
        """
        earlier = await self.store.read(sent, head.rid, ticket.session, ticket.txn, draft.type, draft.redacts)
        return EventId(earlier) if earlier is not None else None

    async def _in_force(self, head: Head, draft: Draft) -> EventId | None:
        """Return the event that already says what the draft says. Asked after the rules allowed it to be said again."""
        if draft.state_key is None:
            return None
        event_id = head.state.get((draft.type, draft.state_key))
        if event_id is None:
            return None
        event = (await self.heads.events([event_id]))[event_id]
        same = event.content == draft.content and event.sender == draft.sender
        return event_id if same else None

    async def _build(self, head: Head, draft: Draft) -> Event:
        keys = auth.auth_keys(head.version, draft.type, draft.sender, draft.state_key, draft.content)
        cited = await self.heads.state_of(head, keys)
        event = matrix_event.build(
            head.version,
            room_id=None if draft.type == "m.room.create" and head.version.room_id_is_hash else head.room_id,
            type=draft.type,
            sender=draft.sender,
            state_key=draft.state_key,
            content=draft.content,
            origin_server_ts=self.clock(),
            depth=max((depth for _, depth in head.tips), default=0) + 1,
            prev_events=[event_id for event_id, _ in head.tips[: matrix_event.MAX_PREV_EVENTS]],
            auth_events=[cited_event.event_id for cited_event in cited.values()],
            redacts=draft.redacts,
            signer=self._signer,
            server=self.server,
        )
        state = cited if CREATE in cited else {**cited, **await self.heads.state_of(head, [CREATE])}
        auth.check(event, state)
        self._policy(event, state)
        return event

    def _append(self, head: Head, event: Event, draft: Draft, ticket: Ticket | None) -> asyncio.Future[Row]:
        new = _new(event, draft, ticket, self._home)
        future = asyncio.ensure_future(self._ledger.append(head.rid, new))
        head.advance(event)
        if event.state_key is not None:
            self.heads.remember(event)
        head.watch(future)
        return future

    def _trim(self) -> None:
        while len(self._sent) > REMEMBERED:
            key, future = next(iter(self._sent.items()))
            if not future.done():
                return
            del self._sent[key]

    async def found(self, head: Head, drafts: AsyncIterable[Draft], also: Also) -> None:
        """Append the first events of a room that nobody else knows yet, all in one transaction (see create.py)."""
        news = []
        async for draft in drafts:
            event = await self._build(head, draft)
            head.room_id = event.room_id  # from the create event on, in versions that name rooms by its hash
            self.heads.remember(event)
            head.advance(event)
            news.append(_new(event, draft, None, self._home))
        rows = await self._ledger.append_all(lambda tx: rooms.insert(tx, head.room_id, head.version.name), news, also)
        head.rid = rows[0].rid
        self.heads.put(head)


def _new(event: Event, draft: Draft, ticket: Ticket | None, home: ServerName | None) -> New:
    if ticket is None:
        return New(event, prunes=draft.prunes, shown=draft.shown, home=home)
    return New(event, prunes=draft.prunes, shown=draft.shown, session=ticket.session, txn=ticket.txn, home=home)

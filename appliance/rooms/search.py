"""Searching messages on the server, as far as it can read them.

Encrypted rooms are not searched (their clients keep an index of their own), and what was said in the clear before a
room became encrypted is not found either. The index is brought up to date when somebody searches and when the house
is idle; sending a message never waits for it.

Source: client-server API, "Server Side Search".
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from appliance.matrix.errors import Forbidden, InvalidParam
from appliance.matrix.requester import Requester
from appliance.rooms.access import reader
from appliance.rooms.event_filter import EVERYTHING, RoomEventFilter
from appliance.rooms.render import Renderer
from appliance.rooms.timeline import senders_of, surroundings
from appliance.store import events, rooms, search
from appliance.store.changes import Commit
from appliance.store.database import Store
from appliance.store.events import Row
from appliance.store.readers import Rx
from appliance.store.search import BODY, NAME, TOPIC, Question

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 50
MAX_TERM: Final = 500
MAX_WORDS: Final = 32
MAX_ROOMS: Final = 1_000
MAX_CONTEXT: Final = 20
MAX_SCAN: Final = 1_000
"""Matches looked at for one page."""
MAX_COUNT: Final = 10_000
KEYS: Final[Mapping[str, str]] = {"content.body": BODY, "content.name": NAME, "content.topic": TOPIC}

STEP: Final = 500
"""Events indexed in one transaction."""
QUIET_SECONDS: Final = 5.0
"""How long nothing must happen before the index is brought up to date unasked."""

_WORD: Final = re.compile(r'"([^"]*)"|([^\s"]+)')
_TOKEN: Final = re.compile(r"([op])(\d{1,18})", re.ASCII)


class Context(msgspec.Struct, frozen=True):
    """How much of what surrounds a result is wanted."""

    before: int
    after: int
    profiles: bool


class Wish(msgspec.Struct, frozen=True):
    """A parsed search. `group_by` holds `room_id` and `sender`; `token` is where to go on."""

    term: str
    kinds: Sequence[str] = (BODY, NAME, TOPIC)
    filter: RoomEventFilter = EVERYTHING
    recent: bool = False
    context: Context | None = None
    include_state: bool = False
    group_by: Sequence[str] = ()
    token: str | None = None


def words_of(term: str) -> list[tuple[str, bool]]:
    """Split a search term into (words, whether it is a quoted phrase); parts without a letter or digit are dropped."""
    found = []
    for match in _WORD.finditer(term.replace("\0", " ")):
        phrase = match[1] is not None
        text = (match[1] if phrase else match[2]).strip()
        if any(character.isalnum() for character in text):
            found.append((text, phrase))
    return found[:MAX_WORDS]


def expression(term: str) -> str:
    """Return the term as an FTS5 expression: every word must occur, at least as the beginning of a word."""
    return " AND ".join(f'"{text}"' if phrase else f'"{text}" *' for text, phrase in words_of(term))


class Search:
    """The search, and the care for its index."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._busy = asyncio.Lock()
        self._changed = asyncio.Event()
        store.changes.listen(self._heard)

    async def search(self, requester: Requester, wish: Wish, now: int) -> dict[str, Any]:
        """Return the `room_events` of a search response; raises `InvalidParam` for a strange token."""
        await self.catch_up()
        return await self._store.read(results, requester, wish, now)

    async def catch_up(self) -> None:
        """Index everything that is on disk."""
        async with self._busy:
            if not await self._store.read(search.behind):
                return
            while await self._store.write(search.advance, STEP):
                pass

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep the index current while the house stands; a failure of the index ends the house."""
        try:
            async with asyncio.TaskGroup() as group:
                keeper = group.create_task(self.run(), name="search-index")
                yield
                keeper.cancel()
        except BaseExceptionGroup as failures:
            if len(failures.exceptions) == 1:  # the group wraps what the house itself raises as well
                raise failures.exceptions[0] from None
            raise

    async def run(self) -> None:
        """Bring the index up to date whenever the house has been quiet for a while. Never returns."""
        while True:
            await self._changed.wait()
            while self._changed.is_set():
                self._changed.clear()
                try:
                    await asyncio.wait_for(self._changed.wait(), QUIET_SECONDS)
                except TimeoutError:
                    break
            await self.catch_up()

    def _heard(self, commit: Commit) -> None:
        if commit.rooms:
            self._changed.set()


def results(rx: Rx, requester: Requester, wish: Wish, now: int) -> dict[str, Any]:
    """Return one page of matches that the requester may see."""
    words = expression(wish.term)
    rids = _searched(rx, requester.user_id, wish.filter) if words else []
    if not rids:
        return _empty(wish)
    renderer = Renderer(rx, requester, now)
    question = _question(wish, words, rids)
    page = _page(rx, renderer, wish, question)
    result: dict[str, Any] = {
        "count": search.count(rx, question, MAX_COUNT),
        "highlights": _highlights(wish.term),
        "results": _worded(rx, renderer, wish, page),
    }
    if page.next is not None:
        result["next_batch"] = page.next
    if wish.group_by:
        result["groups"] = _groups(wish, page)
    if wish.include_state:
        result["state"] = _state(rx, renderer, requester, page)
    return result


def _empty(wish: Wish) -> dict[str, Any]:
    result: dict[str, Any] = {"count": 0, "highlights": [], "results": []}
    if wish.group_by:
        result["groups"] = {key: {} for key in wish.group_by}
    if wish.include_state:
        result["state"] = {}
    return result


def _highlights(term: str) -> list[str]:
    words = (word.casefold() for text, _ in words_of(term) for word in re.findall(r"\w+", text))
    return list(dict.fromkeys(words))


def _searched(rx: Rx, user_id: str, wanted: RoomEventFilter) -> list[int]:
    """Return the rooms to look in: those the user is or was in, unless forgotten, encrypted or filtered out."""
    mine = [m for m in rooms.memberships(rx, user_id) if not m.forgotten and wanted.wants_room(m.room_id)]
    encrypted = search.encrypted(rx, [member.rid for member in mine])
    newest_first = sorted(mine, key=lambda member: member.pos, reverse=True)
    return [member.rid for member in newest_first if member.rid not in encrypted][:MAX_ROOMS]


def _question(wish: Wish, words: str, rids: Sequence[int]) -> Question:
    if wish.token is None:
        return Question(words, rids, wish.kinds, wish.recent)
    match = _TOKEN.fullmatch(wish.token)
    if match is None or (match[1] == "p") != wish.recent:
        raise InvalidParam("Unknown pagination token")
    if wish.recent:
        return Question(words, rids, wish.kinds, True, before=int(match[2]))
    return Question(words, rids, wish.kinds, False, skip=min(int(match[2]), MAX_COUNT))


class _Page(msgspec.Struct, frozen=True):
    rows: list[tuple[Row, float]]
    next: str | None


def _page(rx: Rx, renderer: Renderer, wish: Wish, question: Question) -> _Page:
    limit = min(wish.filter.limit or DEFAULT_LIMIT, MAX_LIMIT)
    matches = search.find(rx, question, MAX_SCAN)
    ignored = renderer.ignored()
    found: list[tuple[Row, float]] = []
    for start in range(0, len(matches), MAX_LIMIT):
        batch = matches[start : start + MAX_LIMIT]
        rows = events.by_eids(rx, [eid for eid, _, _ in batch])
        for number, (eid, pos, rank) in enumerate(batch, start):
            row = rows[eid]
            event = row.event
            if event.sender in ignored or not wish.filter.wants(event):
                continue
            if renderer.sight(row.rid).sees(row):
                if len(found) == limit:
                    return _Page(found, f"p{pos + 1}" if wish.recent else f"o{question.skip + number}")
                found.append((row, rank))
    if len(matches) < MAX_SCAN:
        return _Page(found, None)
    return _Page(found, f"p{matches[-1][1]}" if wish.recent else f"o{question.skip + len(matches)}")


def _worded(rx: Rx, renderer: Renderer, wish: Wish, page: _Page) -> list[dict[str, Any]]:
    rendered = renderer.render([row for row, _ in page.rows])
    entries: list[dict[str, Any]] = []
    for (row, rank), event in zip(page.rows, rendered, strict=True):
        entry: dict[str, Any] = {"rank": rank, "result": event}
        if wish.context is not None:
            entry["context"] = _context(rx, renderer, row, wish.context)
        entries.append(entry)
    return entries


def _context(rx: Rx, renderer: Renderer, row: Row, context: Context) -> dict[str, Any]:
    around = surroundings(rx, renderer, row, context.before, context.after)
    result: dict[str, Any] = {
        "start": around.start,
        "end": around.end,
        "events_before": renderer.render(around.before),
        "events_after": renderer.render(around.after),
    }
    if context.profiles:
        shown = [row, *around.before, *around.after]
        members = senders_of(rx, shown, around.after[-1].sid if around.after else row.sid)
        members += [other for other in shown if other.event.type == "m.room.member"]
        result["profile_info"] = {str(member.event.state_key): _profile(member) for member in members}
    return result


def _profile(member: Row) -> dict[str, str]:
    content = member.event.content
    named = {name: content.get(name) for name in ("displayname", "avatar_url")}
    return {name: value for name, value in named.items() if isinstance(value, str)}


def _groups(wish: Wish, page: _Page) -> dict[str, Any]:
    groups: dict[str, dict[str, Any]] = {key: {} for key in wish.group_by}
    for row, _ in page.rows:
        for key, group in groups.items():
            value = row.event.room_id if key == "room_id" else row.event.sender
            entry = group.setdefault(value, {"order": len(group) + 1, "results": []})
            entry["results"].append(row.event.event_id)
    return groups


def _state(rx: Rx, renderer: Renderer, requester: Requester, page: _Page) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for row, _ in page.rows:
        room_id = row.event.room_id
        if room_id in result:
            continue
        try:
            access = reader(rx, requester.user_id, room_id)
        except Forbidden:  # found in a stretch that is open to everybody, of a room whose present is not
            continue
        result[room_id] = renderer.render(events.events_of(rx, access.sid), bundle=False)
    return result

"""The filter of a sync request, and the shelf of filters that clients stored by number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from appliance.matrix import canonical
from appliance.matrix.errors import BadJson, InvalidParam, MatrixError, NotFound
from appliance.matrix.property_path import path_of
from appliance.rooms.event_filter import EVERYTHING, RoomEventFilter, parse
from appliance.store import filters as stored
from appliance.store.database import Store

DEFAULT_TIMELINE: Final = 20
MAX_TIMELINE: Final = 1000
MAX_FIELDS: Final = 100
MAX_STORED_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class SyncFilter:
    """What a client wants of a sync. `fields` are paths into events (None: all of an event)."""

    presence: RoomEventFilter = EVERYTHING
    account_data: RoomEventFilter = EVERYTHING
    room: RoomEventFilter = EVERYTHING
    """Only its `rooms` and `not_rooms` say something."""
    include_leave: bool = False
    timeline: RoomEventFilter = EVERYTHING
    state: RoomEventFilter = EVERYTHING
    ephemeral: RoomEventFilter = EVERYTHING
    room_account_data: RoomEventFilter = EVERYTHING
    threads: bool = False
    """Whether unread counts are told thread by thread."""
    federation_format: bool = False
    fields: tuple[tuple[str, ...], ...] | None = None
    plain: bool = field(init=False, default=True)
    """Whether events go out in their usual form, whose bytes are shared."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "plain", self.fields is None and not self.federation_format)

    @property
    def limit(self) -> int:
        """Most events in one room's timeline."""
        wanted = self.timeline.limit
        return DEFAULT_TIMELINE if wanted is None else min(wanted, MAX_TIMELINE)

    @property
    def lazy(self) -> bool:
        """Whether only those members are sent that a client needs to show the timeline."""
        return self.state.lazy_load_members or self.timeline.lazy_load_members

    @property
    def redundant(self) -> bool:
        """Whether lazily loaded members are sent again although the client had them."""
        return self.state.include_redundant_members or self.timeline.include_redundant_members


NO_FILTER: Final = SyncFilter()


def sync_filter(body: Mapping[str, Any]) -> SyncFilter:
    """Read a filter definition; raises `BadJson` or `InvalidParam`."""
    room = _object(body, "room")
    timeline = _object(room, "timeline")
    return SyncFilter(
        presence=parse(_object(body, "presence")),
        account_data=parse(_object(body, "account_data")),
        room=parse({name: room[name] for name in ("rooms", "not_rooms") if name in room}),
        include_leave=_boolean(room, "include_leave"),
        timeline=parse(timeline),
        state=parse(_object(room, "state")),
        ephemeral=parse(_object(room, "ephemeral")),
        room_account_data=parse(_object(room, "account_data")),
        threads=_boolean(timeline, "unread_thread_notifications"),
        federation_format=_format(body),
        fields=_fields(body),
    )


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadJson(f"{name} must be an object")
    return value


def _boolean(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise BadJson(f"{name} must be a boolean")
    return bool(value)


def _format(body: Mapping[str, Any]) -> bool:
    value = body.get("event_format")
    if value is None:
        return False
    if value not in ("client", "federation"):
        raise InvalidParam("event_format must be client or federation")
    return bool(value == "federation")


def _fields(body: Mapping[str, Any]) -> tuple[tuple[str, ...], ...] | None:
    value = body.get("event_fields")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadJson("event_fields must be an array of strings")
    if len(value) > MAX_FIELDS or any(len(item) > 255 for item in value):
        raise InvalidParam("event_fields is too long")
    return tuple(path_of(item) for item in value) or None


def pick(event: Mapping[str, Any], paths: tuple[tuple[str, ...], ...]) -> dict[str, Any]:
    """Reduce an event to the given paths."""
    result: dict[str, Any] = {}
    for path in paths:
        source: Any = event
        for name in path:
            if not isinstance(source, Mapping) or name not in source:
                break
            source = source[name]
        else:
            _put(result, path, source)
    return result


def _put(result: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        inner = result.get(name)
        if not isinstance(inner, dict):
            inner = result[name] = {}
        result = inner
    result[path[-1]] = dict(value) if isinstance(value, Mapping) else value


class Filters:
    """Filters by what a client writes into `filter=`: a stored number, or the JSON itself."""

    REMEMBERED: Final = 500

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: OrderedDict[tuple[str, str], SyncFilter] = OrderedDict()

    async def put(self, user_id: str, body: Mapping[str, Any]) -> str:
        """Store a filter definition after checking it; returns its id."""
        sync_filter(body)
        raw = canonical.encode(dict(body))
        if len(raw) > MAX_STORED_BYTES:
            raise InvalidParam("The filter is too large")
        return str(await self._store.write(stored.put, user_id, raw))

    async def get(self, user_id: str, filter_id: str) -> bytes:
        """Return a stored definition as JSON; raises `NotFound`."""
        raw = None
        if filter_id.isascii() and filter_id.isdigit() and len(filter_id) < 10:
            raw = await self._store.read(stored.get, user_id, int(filter_id))
        if raw is None:
            raise NotFound("No such filter")
        return raw

    async def resolve(self, user_id: str, text: str | None) -> SyncFilter:
        """Return the filter a request names; raises `InvalidParam` for an unknown id or a malformed definition."""
        if not text:
            return NO_FILTER
        inline = text.startswith("{")
        key = ("" if inline else user_id, text)
        found = self._read.get(key)
        if found is None:
            found = sync_filter(_inline(text) if inline else await self._stored(user_id, text))
            self._read[key] = found
            if len(self._read) > self.REMEMBERED:
                self._read.popitem(last=False)
        return found

    async def _stored(self, user_id: str, filter_id: str) -> dict[str, Any]:
        try:
            return canonical.decode_object(await self.get(user_id, filter_id))
        except NotFound as error:
            raise InvalidParam("No such filter") from error


def _inline(text: str) -> dict[str, Any]:
    try:
        return canonical.decode_object(text.encode())
    except (MatrixError, UnicodeEncodeError) as error:
        raise InvalidParam("The filter is not a JSON object") from error

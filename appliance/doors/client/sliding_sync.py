"""The simplified sliding sync (MSC4186), under the unstable name that clients use today.

Of the two forms in which clients write a request the one in use is understood: `ranges`, `required_state` as pairs,
`pos` and `timeout` in the query (in the body, where the accepted proposal puts them, they are read as well).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from appliance.doors import fields
from appliance.doors.web import Call, Route
from appliance.matrix.errors import BadJson, InvalidParam
from appliance.sync.sliding import SlidingSync
from appliance.sync.sliding_ask import (
    Extensions,
    LettersAsk,
    ListAsk,
    ListFilter,
    RoomConfig,
    Scope,
    SlidingAsk,
    required_state,
)

PATH: Final = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
MAX_LISTS: Final = 100
MAX_SUBSCRIPTIONS: Final = 100
MAX_RANGES: Final = 100
MAX_STATE: Final = 200
MAX_TIMELINE: Final = 100
MAX_LETTERS: Final = 1000
ALL: Final = "*"

Body = Mapping[str, Any]


def routes(sliding: SlidingSync) -> list[Route]:
    """Return the one operation."""

    async def post_sync(call: Call) -> dict[str, Any]:
        ask = _ask(call, await call.json(optional=True))
        with call.patient():
            return await sliding.answer(ask)

    return [Route("POST", PATH, post_sync, rate="sync")]


def _ask(call: Call, body: Body) -> SlidingAsk:
    user_id = call.requester.user_id
    pos = call.query("pos") or fields.optional_string(body, "pos")
    timeout = fields.optional_integer(body, "timeout") or 0
    return SlidingAsk(
        call.requester,
        conn_id=fields.optional_string(body, "conn_id") or "",
        pos=pos or None,
        timeout=call.query_int("timeout", timeout) if pos else 0,
        presence=call.query_choice("set_presence", ("online", "offline", "unavailable"), "online"),
        lists=_each(body, "lists", MAX_LISTS, lambda item: _list(item, user_id)),
        subscriptions=_each(body, "room_subscriptions", MAX_SUBSCRIPTIONS, lambda item: _config(item, user_id)),
        extensions=_extensions(fields.optional_mapping(body, "extensions") or {}),
    )


def _each(body: Body, name: str, maximum: int, parse: Callable[[Body], Any]) -> dict[str, Any]:
    found = fields.optional_mapping(body, name) or {}
    if len(found) > maximum:
        raise InvalidParam(f"{name} must not have more than {maximum} entries")
    if any(len(key) > fields.SHORT for key in found):
        raise InvalidParam(f"A key in {name} is too long")
    return {key: parse(fields.as_mapping(item, f"{name}.{key}")) for key, item in found.items()}


def _list(item: Body, user_id: str) -> ListAsk:
    return ListAsk(_config(item, user_id), _ranges(item), _filter(fields.optional_mapping(item, "filters") or {}))


def _config(item: Body, user_id: str) -> RoomConfig:
    limit = fields.integer(item, "timeline_limit")
    wanted = fields.array(item, "required_state", maximum=MAX_STATE) if item.get("required_state") is not None else []
    pairs = [(_text(pair[0]), _text(pair[1])) for pair in wanted if _is_pair(pair)]
    return RoomConfig(min(limit, MAX_TIMELINE), required_state(pairs, user_id))


def _is_pair(value: Any) -> bool:
    if not isinstance(value, list) or len(value) != 2:
        raise BadJson("required_state must be an array of pairs")
    return True


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise BadJson("required_state must hold strings")
    return value


def _ranges(item: Body) -> tuple[tuple[int, int], ...] | None:
    if item.get("ranges") is not None:
        ranges = fields.array(item, "ranges", maximum=MAX_RANGES)
    elif item.get("range") is not None:
        ranges = [fields.array(item, "range", maximum=2)]
    else:
        return None
    return tuple(_range(value) for value in ranges)


def _range(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2 or not all(type(end) is int for end in value):
        raise BadJson("A range must be a pair of integers")
    start, end = value
    if not 0 <= start <= end:
        raise InvalidParam("A range must begin at 0 or above and must not end before it begins")
    return start, end


def _filter(item: Body) -> ListFilter:
    tags, spaces = fields.optional_strings(item, "tags"), fields.optional_strings(item, "spaces")
    return ListFilter(
        is_dm=_flag(item, "is_dm"),
        is_encrypted=_flag(item, "is_encrypted"),
        is_invite=_flag(item, "is_invite" if "is_invite" in item else "is_invited"),
        spaces=None if spaces is None else frozenset(spaces),
        room_types=_types(item, "room_types"),
        not_room_types=_types(item, "not_room_types") or frozenset(),
        tags=None if tags is None else frozenset(tags),
        not_tags=frozenset(fields.optional_strings(item, "not_tags") or ()),
    )


def _flag(item: Body, name: str) -> bool | None:
    return None if item.get(name) is None else fields.boolean(item, name)


def _types(item: Body, name: str) -> frozenset[str | None] | None:
    if item.get(name) is None:
        return None
    found = fields.array(item, name)
    if not all(kind is None or isinstance(kind, str) for kind in found):
        raise BadJson(f"{name} must be an array of strings and null")
    return frozenset(found)


def _extensions(item: Body) -> Extensions:
    return Extensions(
        to_device=_letters(_enabled(item, "to_device")),
        e2ee=_enabled(item, "e2ee") is not None,
        account_data=_scope(_enabled(item, "account_data")),
        receipts=_scope(_enabled(item, "receipts")),
        typing=_scope(_enabled(item, "typing")),
    )


def _enabled(item: Body, name: str) -> Body | None:
    wanted = fields.optional_mapping(item, name)
    return wanted if wanted is not None and fields.boolean(wanted, "enabled", False) else None


def _letters(item: Body | None) -> LettersAsk | None:
    if item is None:
        return None
    since = fields.optional_string(item, "since") or "0"
    if not (since.isascii() and since.isdigit() and len(since) <= 18):
        raise InvalidParam("since is not a position of this server")
    limit = fields.optional_integer(item, "limit", minimum=1)
    return LettersAsk(int(since), 100 if limit is None else min(limit, MAX_LETTERS))


def _scope(item: Body | None) -> Scope | None:
    return None if item is None else Scope(_names(item, "lists"), _names(item, "rooms"))


def _names(item: Body, name: str) -> frozenset[str] | None:
    found = fields.optional_strings(item, name)
    return None if found is None or ALL in found else frozenset(found)

"""JSON as Matrix wants it: strict to read, canonical to sign, plain to answer.

Reading is one C parser that refuses NaN, lone surrogates, invalid UTF-8 and byte order marks; we add the nesting limit.
Of a key written twice the last one counts, as with every other homeserver. Canonical form is sorted keys (by code
point, which is the order of the UTF-8 bytes), no white space, integers only.

Source: appendices, "Canonical JSON".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

import orjson

from appliance.matrix.errors import BadJson, NotJson

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
"""Any JSON value; decoded ones are always plain dict, list, str, int, float, bool and None."""

MAX_DEPTH: Final = 64
"""Deepest nesting of arrays and objects that is read."""

MAX_INTEGER: Final = 2**53 - 1
"""Largest absolute value of an integer in canonical JSON."""

_CANONICAL: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


def decode(raw: bytes | bytearray | memoryview | str) -> Json:
    """Parse a JSON text; `NotJson` when it is malformed or nested deeper than 64."""
    try:
        value: Json = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise NotJson("The content is not valid JSON") from error
    if _may_be_deep(raw) and _depth_exceeds(value, MAX_DEPTH):
        raise NotJson("The JSON is nested too deeply")
    return value


def decode_object(raw: bytes | bytearray | memoryview | str) -> dict[str, Json]:
    """Parse a JSON object; `NotJson` when it is malformed, `BadJson` when it is another kind of value."""
    value = decode(raw)
    if not isinstance(value, dict):
        raise BadJson("The content must be a JSON object")
    return value


def _may_be_deep(raw: bytes | bytearray | memoryview | str) -> bool:
    """Rule out deep nesting by counting brackets in C; only a suspicious text is walked."""
    if isinstance(raw, str):
        return raw.count("[") + raw.count("{") > MAX_DEPTH
    text = bytes(raw) if isinstance(raw, memoryview) else raw
    return text.count(b"[") + text.count(b"{") > MAX_DEPTH


def _depth_exceeds(value: Json, limit: int) -> bool:
    level: list[Json] = [value]
    for _ in range(limit):
        level = [child for item in level for child in _children(item)]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)


def _children(item: Json) -> Iterable[Json]:
    if isinstance(item, dict):
        return item.values()
    return item if isinstance(item, list) else ()


def check_canonical(value: Json) -> None:
    """Raise `BadJson` unless every number in the value is an integer within 2^53-1 and every key is a string."""
    stack: list[object] = [value]
    while stack:
        item = stack.pop()
        kind = type(item)
        if kind is str or item is None or kind is bool:
            continue
        if isinstance(item, dict):
            if not all(type(key) is str for key in item):
                raise BadJson("Object keys must be strings")
            stack.extend(item.values())
        elif isinstance(item, list | tuple):
            stack.extend(item)
        elif isinstance(item, int):
            if not -MAX_INTEGER <= item <= MAX_INTEGER:
                raise BadJson("Integers must lie within 2^53-1")
        else:
            raise BadJson("Numbers must be integers")


def encode(value: Json) -> bytes:
    """Return the canonical form; `BadJson` for integers beyond 2^53-1 and text that is not Unicode.

    Floats are not looked for here: what comes from outside goes through `check_canonical` first.
    """
    try:
        return orjson.dumps(value, option=_CANONICAL)
    except TypeError as error:
        raise BadJson("The value has no canonical JSON form") from error


def dumps(value: object) -> bytes:
    """Return the value as compact JSON in its own key order, for answers and for the store."""
    return orjson.dumps(value)

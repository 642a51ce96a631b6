"""Fields of a JSON body, checked one by one.

A missing required field is `MissingParam`, one of the wrong JSON type is `BadJson`, one beyond its limits is
`InvalidParam`. `null` counts as absent for an optional field, because several clients send it that way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from appliance.matrix.canonical import MAX_INTEGER
from appliance.matrix.errors import BadJson, InvalidParam, MissingParam

Body = Mapping[str, Any]

SHORT = 255
"""Characters in an ordinary name or id."""


def _present(body: Body, name: str) -> Any:
    value = body.get(name)
    if value is None:
        raise MissingParam(f"Missing field {name}")
    return value


def _text(value: Any, name: str, maximum: int) -> str:
    if not isinstance(value, str):
        raise BadJson(f"{name} must be a string")
    if len(value) > maximum:
        raise InvalidParam(f"{name} must not be longer than {maximum} characters")
    return value


def string(body: Body, name: str, *, maximum: int = SHORT, minimum: int = 0) -> str:
    """Return a required string of `minimum` to `maximum` characters."""
    value = _text(_present(body, name), name, maximum)
    if len(value) < minimum:
        raise InvalidParam(f"{name} must have at least {minimum} characters")
    return value


def optional_string(body: Body, name: str, *, maximum: int = SHORT) -> str | None:
    """Return a string of at most `maximum` characters, or None when it is absent."""
    value = body.get(name)
    return None if value is None else _text(value, name, maximum)


def boolean(body: Body, name: str, default: bool | None = None) -> bool:
    """Return a boolean; required when there is no default."""
    value = body.get(name)
    if value is None:
        if default is None:
            raise MissingParam(f"Missing field {name}")
        return default
    if not isinstance(value, bool):
        raise BadJson(f"{name} must be a boolean")
    return value


def _number(value: Any, name: str, minimum: int, maximum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise BadJson(f"{name} must be an integer")
    if not minimum <= value <= maximum:
        raise InvalidParam(f"{name} must lie between {minimum} and {maximum}")
    return value


def integer(body: Body, name: str, *, minimum: int = 0, maximum: int = MAX_INTEGER) -> int:
    """Return a required integer within the bounds, both included."""
    return _number(_present(body, name), name, minimum, maximum)


def optional_integer(body: Body, name: str, *, minimum: int = 0, maximum: int = MAX_INTEGER) -> int | None:
    """Return an integer within the bounds, or None when it is absent."""
    value = body.get(name)
    return None if value is None else _number(value, name, minimum, maximum)


def as_mapping(value: Any, name: str) -> dict[str, Any]:
    """Return the value as an object; `name` is for the error."""
    if not isinstance(value, dict):
        raise BadJson(f"{name} must be an object")
    return value


def mapping(body: Body, name: str) -> dict[str, Any]:
    """Return a required object."""
    return as_mapping(_present(body, name), name)


def optional_mapping(body: Body, name: str) -> dict[str, Any] | None:
    """Return an object, or None when it is absent."""
    value = body.get(name)
    return None if value is None else as_mapping(value, name)


def array(body: Body, name: str, *, maximum: int = 1000) -> list[Any]:
    """Return a required array of at most `maximum` items."""
    value = _present(body, name)
    if not isinstance(value, list):
        raise BadJson(f"{name} must be an array")
    if len(value) > maximum:
        raise InvalidParam(f"{name} must not have more than {maximum} items")
    return value


def strings(body: Body, name: str, *, maximum: int = 1000, each: int = SHORT) -> list[str]:
    """Return a required array of at most `maximum` strings of at most `each` characters."""
    return [_text(item, f"{name}[{index}]", each) for index, item in enumerate(array(body, name, maximum=maximum))]


def optional_strings(body: Body, name: str, *, maximum: int = 1000, each: int = SHORT) -> Sequence[str] | None:
    """Return an array of strings, or None when it is absent."""
    return None if body.get(name) is None else strings(body, name, maximum=maximum, each=each)


def choice(body: Body, name: str, choices: Sequence[str], default: str | None = None) -> str:
    """Return a string that is one of `choices`; required when there is no default."""
    value = body.get(name)
    if value is None:
        if default is None:
            raise MissingParam(f"Missing field {name}")
        return default
    text = _text(value, name, SHORT)
    if text not in choices:
        raise InvalidParam(f"{name} must be one of: {', '.join(choices)}")
    return text

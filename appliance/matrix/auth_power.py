"""Rule 9 (10 in room version 12): may the sender change the power levels like this?

Nobody may touch a level above their own, set one above their own, or touch another user who stands as high.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from appliance.matrix.canonical import Json
from appliance.matrix.event import Event
from appliance.matrix.ids import is_user_id
from appliance.matrix.power import DEFAULTS, Power, creators_of, read_level
from appliance.matrix.rules import Rejected
from appliance.matrix.versions import RoomVersion

_NAMES: Final = tuple(DEFAULTS)
_EMPTY: Final[Mapping[str, Json]] = {}


def check_power_levels(event: Event, create: Event, current: Event | None, power: Power) -> None:
    """Apply the power level rules; `current` is the event being replaced, if any. Raises `Rejected`."""
    version, rules, content = event.version, event.version.rules, event.content
    if version.integer_power_levels:
        _check_integers(content, version)
    users = content.get("users", _EMPTY)
    if not isinstance(users, Mapping) or not all(
        is_user_id(user) and read_level(level, version) is not None for user, level in users.items()
    ):
        raise Rejected(rules.power_users, "users must map user ids to power levels")
    if version.privileged_creators and not creators_of(create).isdisjoint(users):
        raise Rejected(rules.power_creators, "a creator's power cannot be written down")
    if current is None:
        return
    _check_changes(event, current.content, power.of(event.sender))


def _check_integers(content: Mapping[str, Json], version: RoomVersion) -> None:
    rules = version.rules
    for name in _NAMES:
        if name in content and type(content[name]) is not int:
            raise Rejected(rules.power_integers, f"{name} must be an integer")
    for name in ("events", "notifications"):
        if name not in content:
            continue
        entries = content[name]
        if not isinstance(entries, dict) or not all(type(level) is int for level in entries.values()):
            raise Rejected(rules.power_integer_maps, f"{name} must map to integers")


def _check_changes(event: Event, old: Mapping[str, Json], level: int) -> None:
    version, rules, new = event.version, event.version.rules, event.content
    for name, before, after in _changes(old, new, _NAMES, version, rules.power_scalars):
        if before is not None and before > level:
            raise Rejected(f"{rules.power_scalars}.1", f"{name} is out of the sender's reach")
        if after is not None and after > level:
            raise Rejected(f"{rules.power_scalars}.2", f"{name} would be above the sender's own power")
    for place in ("events", "notifications"):
        was, becomes = _entries(old, place), _entries(new, place)
        for name, before, after in _changes(was, becomes, {**was, **becomes}, version, rules.power_maps_new):
            if before is not None and before > level:
                raise Rejected(f"{rules.power_maps_old}.1", f"the level of {name} is out of the sender's reach")
            if after is not None and after > level:
                raise Rejected(f"{rules.power_maps_new}.1", f"{name} would be above the sender's own power")
    was, becomes = _entries(old, "users"), _entries(new, "users")
    for user, before, after in _changes(was, becomes, {**was, **becomes}, version, rules.power_users):
        if before is not None and before >= level and user != event.sender:
            raise Rejected(f"{rules.power_users_old}.1", "the sender cannot touch a user of the same power")
        if after is not None and after > level:
            raise Rejected(f"{rules.power_users_new}.1", "the sender cannot raise a user above their own power")


def _entries(content: Mapping[str, Json], place: str) -> Mapping[str, Json]:
    entries = content.get(place)
    return entries if isinstance(entries, dict) else _EMPTY


def _changes(
    old: Mapping[str, Json], new: Mapping[str, Json], names: Iterable[str], version: RoomVersion, rule: str
) -> Iterable[tuple[str, int | None, int | None]]:
    """Yield every level that differs: name, level before and level after, None where there is none.

    A level that cannot be read (before room version 10) counts as absent in the old event; in the new one it is a
    reason to reject, under `rule`, because nobody could tell what it would mean.
    """
    for name in names:
        was, becomes = old.get(name), new.get(name)
        if was == becomes and type(was) is type(becomes) and (was is not None or name not in new or name in old):
            continue
        after = read_level(becomes, version)
        if after is None and name in new:
            raise Rejected(rule, f"{name} is not a power level")
        before = read_level(was, version)
        if before != after:
            yield name, before, after

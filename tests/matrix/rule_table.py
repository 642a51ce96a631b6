"""Tables of authorisation cases: an event, the state it meets, and the rule that refuses it, per room version.

The base state: Alice created the room, stands at 100 (room version 12: without a level), Bob has joined with 50, Carol
has joined with nothing, Dave has never been there; anybody may join. A case changes what it needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.matrix import auth, versions
from appliance.matrix.auth import Key
from appliance.matrix.event import Event
from tests.matrix.room import ALICE, BOB, CAROL, make

POWER_LEVELS: Key = ("m.room.power_levels", "")
JOIN_RULES: Key = ("m.room.join_rules", "")
CREATE: Key = ("m.room.create", "")

ROOM = "!room:a.example"


@dataclass(frozen=True)
class Case:
    """One line of a table. `rule` maps a room version to the refusing rule, valid until the next version named.

    None as the rule means allowed; a version before the first one named is left out.
    """

    name: str
    rule: Mapping[int, str | None]
    sender: str
    type: str
    content: Mapping[str, Any]
    state_key: str | None = None
    state: Mapping[Key, Mapping[str, Any] | None] = field(default_factory=dict)
    prev: str = "$before"
    signed_by: str | None = None

    def expected(self, version: int) -> tuple[str | None] | None:
        """Return the rule for a room version in a tuple, None when the case does not exist there."""
        found = [rule for since, rule in self.rule.items() if since <= version]
        return (found[-1],) if found else None


def base_state(version: versions.RoomVersion, changes: Mapping[Key, Mapping[str, Any] | None]) -> dict[Key, Event]:
    """Build the state events of the base state with the changes (None removes a slot)."""
    old = {"creator": ALICE} if not version.creator_from_sender else {}
    contents: dict[Key, Mapping[str, Any] | None] = {
        CREATE: {"room_version": version.name, **old},
        POWER_LEVELS: levels(version),
        JOIN_RULES: {"join_rule": "public"},
        **{("m.room.member", user): {"membership": "join"} for user in (ALICE, BOB, CAROL)},
    }
    if CREATE in changes:
        contents[CREATE] = {**(contents[CREATE] or {}), **(changes[CREATE] or {})}
    contents.update({key: content for key, content in changes.items() if key != CREATE})
    create_content = contents.pop(CREATE)
    assert create_content is not None
    hashed = version.room_id_is_hash
    create = make(version, "m.room.create", ALICE, create_content, "", room=None if hashed else ROOM, prev=())
    state = {CREATE: create}
    for (type, state_key), content in contents.items():
        if content is not None:
            sender = state_key if type == "m.room.member" and state_key else ALICE
            state[(type, state_key)] = make(version, type, sender, content, state_key, room=create.room_id)
    return state


def levels(version: versions.RoomVersion, **changes: Any) -> dict[str, Any]:
    """Return the power levels of the base state with changes; Alice has none where creators cannot have one."""
    own: dict[str, Any] = {} if version.privileged_creators else {ALICE: 100}
    return {"users": {**own, BOB: 50, **changes.pop("users", {})}, **changes}


def everywhere(*tables: Sequence[Case]) -> list[tuple[Case, str, str | None]]:
    """Return every case with every room version in which it exists and the refusing rule there."""
    return [
        (case, name, expected[0])
        for table in tables
        for case in table
        for name in versions.KNOWN
        if (expected := case.expected(int(name))) is not None
    ]


def title(value: object) -> str | None:
    """Name a case in the list of tests."""
    return value.name if isinstance(value, Case) else None


def judge(case: Case, name: str) -> str | None:
    """Return the rule that refuses the event of a case, None when it is allowed."""
    event, state = build_case(case, versions.get(name))
    try:
        auth.check(event, state)
    except auth.Rejected as refusal:
        assert refusal.errcode == "M_FORBIDDEN" and refusal.status == 403
        return refusal.rule
    return None


def build_case(case: Case, version: versions.RoomVersion) -> tuple[Event, dict[Key, Event]]:
    """Return the event of a case and the state it meets."""
    state = base_state(version, case.state)
    create = state[CREATE]
    prev = {"create": [create.event_id], "none": []}.get(case.prev, [case.prev])
    event = make(
        version,
        case.type,
        case.sender,
        case.content,
        case.state_key,
        room=create.room_id,
        prev=prev,
        signed_by=case.signed_by,
    )
    return event, state

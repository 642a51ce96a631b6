"""History visibility against a naive transcription of the specification, over random lives of a room."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.matrix.errors import Forbidden, MatrixError, NotFound
from appliance.matrix.event import Event
from appliance.matrix.ids import RoomId
from appliance.matrix.requester import Requester
from appliance.matrix.tokens import timeline_point
from appliance.rooms import invite, leave, timeline
from appliance.rooms.timeline import Page
from appliance.store import events, rooms
from appliance.store.readers import Rx
from tests.rooms.reading import NOW, put_state
from tests.world.rooms import Ward, ward

SETTINGS = ("world_readable", "shared", "invited", "joined")
STEPS = 40


@dataclass(frozen=True)
class Moment:
    """An event and what held for ben before and after it."""

    event: Event
    visibility: tuple[str, str]
    membership: tuple[str, str]


def _line(rx: Rx, room_id: str) -> list[Event]:
    room = rooms.find(rx, room_id)
    assert room is not None
    rows = events.timeline(rx, room.rid, after=0, upto=2**40, limit=10_000, backwards=False)
    return [row.event for row in rows]


def _moments(line: list[Event], user_id: str) -> Iterator[Moment]:
    visibility, membership = "shared", "leave"
    for event in line:
        before = visibility, membership
        if event.type == "m.room.history_visibility":
            visibility = str(event.content["history_visibility"])
        if event.type == "m.room.member" and event.state_key == user_id:
            membership = str(event.content["membership"])
        yield Moment(event, (before[0], visibility), (before[1], membership))


def _expected(line: list[Event], user_id: str) -> list[str]:
    moments = list(_moments(line, user_id))
    found: list[str] = []
    for index, moment in enumerate(moments):
        joins_later = any(later.membership[1] == "join" for later in moments[index + 1 :])
        event = moment.event
        visibilities = set(moment.visibility) if event.type == "m.room.history_visibility" else {moment.visibility[1]}
        own = event.type == "m.room.member" and event.state_key == user_id
        memberships = set(moment.membership) if own else {moment.membership[1]}
        if any(_allow(v, m, joins_later) for v in visibilities for m in memberships):
            found.append(event.event_id)
    return found


def _allow(visibility: str, membership: str, joins_later: bool) -> bool:
    if visibility == "world_readable" or membership == "join":
        return True
    if visibility == "shared" and joins_later:
        return True
    # "In all cases except world_readable, a user needs to join a room to view events in that room."
    return visibility == "invited" and membership == "invite" and joins_later


async def _live(w: Ward, dice: random.Random, ada: Requester, ben: Requester, room_id: RoomId) -> None:
    steps: list[Callable[[], Awaitable[Any]]] = [
        lambda: w.say(ada, room_id, "word"),
        lambda: w.say(ada, room_id, "word"),
        lambda: put_state(
            w, ada, room_id, "m.room.history_visibility", {"history_visibility": dice.choice(SETTINGS)}
        ),
        lambda: put_state(w, ada, room_id, "m.room.topic", {"topic": str(dice.random())}),
        lambda: invite.invite(w.author, ada, room_id, ben.user_id),
        lambda: w.join(ben, room_id),
        lambda: leave.leave(w.author, w.members, ben, room_id),
        lambda: leave.kick(w.author, ada, room_id, ben.user_id, None),
        lambda: leave.ban(w.author, ada, room_id, ben.user_id, None),
        lambda: leave.unban(w.author, ada, room_id, ben.user_id, None),
    ]
    for _ in range(dice.randrange(STEPS)):
        try:
            await dice.choice(steps)()
        except MatrixError:
            continue  # not possible from where ben stands now


async def _pages(w: Ward, who: Requester, room_id: str, backwards: bool) -> list[str]:
    found: list[str] = []
    start = None
    while True:
        page = await w.store.read(timeline.messages, who, room_id, Page(backwards, start, limit=7), NOW)
        found += [event["event_id"] for event in page["chunk"]]
        if "end" not in page:
            return found[::-1] if backwards else found
        start = timeline_point(page["end"])


@pytest.mark.parametrize("seed", range(40))
async def test_ben_finds_what_the_specification_says(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await _live(w, dice, ada, ben, room_id)
        line = await w.store.read(_line, room_id)
        expected = _expected(line, ben.user_id)
        ever_joined = any(moment.membership[1] == "join" for moment in _moments(line, ben.user_id))
        if ever_joined or list(_moments(line, ben.user_id))[-1].visibility[1] == "world_readable":
            assert await _pages(w, ben, room_id, True) == expected
            assert await _pages(w, ben, room_id, False) == expected
        else:
            with pytest.raises(Forbidden):
                await _pages(w, ben, room_id, True)
        for event in line:
            reading = w.store.read(timeline.one_event, ben, room_id, event.event_id, NOW)
            if event.event_id in expected:
                await reading
            else:
                with pytest.raises(NotFound):
                    await reading

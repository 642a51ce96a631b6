"""History visibility: every setting, every way of standing to a room, every endpoint.

The same scene each time: ben is invited, joins, leaves; between these steps ada says something. Who finds which of
her words?
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from appliance.matrix.errors import MatrixError
from appliance.matrix.ids import EventId, RoomId
from appliance.matrix.requester import Requester
from appliance.rooms import invite, leave, relation_pages, state_reading, threads, timeline
from appliance.rooms.event_filter import EVERYTHING
from appliance.rooms.relation_pages import Kin
from appliance.rooms.search import Search, Wish
from appliance.rooms.timeline import Page
from tests.rooms.reading import NOW, bodies, put_state, relate
from tests.world.rooms import Ward, ward

WORDS = ("before", "invited", "joined", "gone")

# visibility -> what ben sees as (stranger, invited, joined, left)
EXPECTED: dict[str, tuple[str | None, str | None, str, str]] = {
    "world_readable": ("before", "before invited", "before invited joined", "before invited joined gone"),
    "shared": (None, None, "before invited joined", "before invited joined"),
    "invited": (None, None, "invited joined", "invited joined"),
    "joined": (None, None, "joined", "joined"),
    "nonsense": (None, None, "before invited joined", "before invited joined"),
}
STANDINGS = ("stranger", "invited", "joined", "left")


@dataclass
class Scene:
    """A room and what was said in it, in the order of `WORDS`, each with a child that relates to the first message."""

    w: Ward
    ada: Requester
    ben: Requester
    room_id: RoomId
    said: dict[str, EventId]


async def _scene(w: Ward, visibility: str, standing: str) -> Scene:
    ada, ben = await w.person("ada"), await w.person("ben")
    state = [("m.room.history_visibility", "", {"history_visibility": visibility})]
    room_id = await w.room(ada, "private_chat", initial_state=state)
    scene = Scene(w, ada, ben, room_id, {})
    steps: dict[str, Callable[[], Awaitable[Any]]] = {
        "invited": lambda: invite.invite(w.author, ada, room_id, ben.user_id),
        "joined": lambda: w.join(ben, room_id),
        "left": lambda: leave.leave(w.author, w.members, ben, room_id),
    }
    for number, step in enumerate(STANDINGS[: STANDINGS.index(standing) + 1]):
        if step in steps:
            await steps[step]()
        word = WORDS[number]
        scene.said[word] = await w.say(ada, room_id, word)
    return scene


async def _refused(attempt: Awaitable[Any]) -> str | None:
    try:
        await attempt
    except MatrixError as error:
        return f"{error.status} {error.errcode}"
    return None


@pytest.mark.parametrize("visibility", EXPECTED)
@pytest.mark.parametrize("standing", STANDINGS)
async def test_everybody_finds_what_the_table_says(tmp_path: Path, visibility: str, standing: str) -> None:
    expected = EXPECTED[visibility][STANDINGS.index(standing)]
    async with ward(tmp_path) as w:
        scene = await _scene(w, visibility, standing)
        seen = expected.split() if expected is not None else []
        await _messages(scene, seen, expected is None)
        await _single_events(scene, seen)
        await _contexts(scene, seen, expected is None)
        await _search(scene, seen, standing in ("joined", "left"))
        await _relations(scene, seen, expected is None)
        await _state(scene, expected is None)


async def _messages(scene: Scene, seen: list[str], refused: bool) -> None:
    w, ben, room_id = scene.w, scene.ben, scene.room_id
    if refused:
        page = Page(True)
        assert await _refused(w.store.read(timeline.messages, ben, room_id, page, NOW)) == "403 M_FORBIDDEN"
        return
    assert await bodies(w, ben, room_id) == seen
    assert await bodies(w, ben, room_id, backwards=False) == seen


async def _single_events(scene: Scene, seen: list[str]) -> None:
    for word, event_id in scene.said.items():
        reading = scene.w.store.read(timeline.one_event, scene.ben, scene.room_id, event_id, NOW)
        if word in seen:
            assert (await reading)["content"]["body"] == word
        else:
            assert await _refused(reading) == "404 M_NOT_FOUND"


async def _contexts(scene: Scene, seen: list[str], refused: bool) -> None:
    for word, event_id in scene.said.items():
        reading = scene.w.store.read(timeline.context, scene.ben, scene.room_id, event_id, 50, EVERYTHING, NOW)
        if refused:
            assert await _refused(reading) == "403 M_FORBIDDEN"
        elif word not in seen:
            assert await _refused(reading) == "404 M_NOT_FOUND"
        else:
            found = await reading
            around = [*found["events_before"][::-1], found["event"], *found["events_after"]]
            assert [event["content"]["body"] for event in around if event["type"] == "m.room.message"] == seen


async def _search(scene: Scene, seen: list[str], member: bool) -> None:
    """Search covers rooms one is or was in; an invitation is none of these, whatever the room's visibility."""
    finder = Search(scene.w.store)
    for word in scene.said:
        found = await finder.search(scene.ben, Wish(word), NOW)
        texts = [result["result"]["content"]["body"] for result in found["results"]]
        if member:
            assert texts == ([word] if word in seen else [])
        else:
            assert texts in ([], [word] if word in seen else [])


async def _relations(scene: Scene, seen: list[str], refused: bool) -> None:
    """Children said now, after everything: only `world_readable` lets somebody who left see them."""
    w, first = scene.w, scene.said["before"]
    standing_in = not refused and "before" in seen
    await relate(w, scene.ada, scene.room_id, first, "m.thread", "later")
    visible_now = standing_in and (("gone" in scene.said and "gone" in seen) or "gone" not in scene.said)
    reading = w.store.read(relation_pages.page, scene.ben, scene.room_id, Kin(first), NOW)
    if refused:
        assert await _refused(reading) == "403 M_FORBIDDEN"
        assert (
            await _refused(w.store.read(threads.listing, scene.ben, scene.room_id, threads.Wanted(), NOW))
            == "403 M_FORBIDDEN"
        )
        return
    if not standing_in:
        assert await _refused(reading) == "404 M_NOT_FOUND"
        return
    assert [event["content"]["body"] for event in (await reading)["chunk"]] == (["later"] if visible_now else [])
    listed = await w.store.read(threads.listing, scene.ben, scene.room_id, threads.Wanted(), NOW)
    assert len(listed["chunk"]) == int(visible_now)
    root = await w.store.read(timeline.one_event, scene.ben, scene.room_id, first, NOW)
    assert ("m.relations" in root["unsigned"]) == visible_now


async def _state(scene: Scene, refused: bool) -> None:
    w = scene.w
    await put_state(w, scene.ada, scene.room_id, "m.room.topic", {"topic": "set at the very end"})
    for reading in (
        w.store.read(state_reading.whole, scene.ben, scene.room_id, NOW),
        w.store.read(state_reading.members, scene.ben, scene.room_id, None, None, None, NOW),
        w.store.read(state_reading.one, scene.ben, scene.room_id, ("m.room.create", ""), False, NOW),
    ):
        assert await _refused(reading) == ("403 M_FORBIDDEN" if refused else None)


async def test_the_setting_at_the_time_counts_not_the_one_of_today(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await put_state(w, ada, room_id, "m.room.history_visibility", {"history_visibility": "joined"})
        await w.say(ada, room_id, "secret")
        await put_state(w, ada, room_id, "m.room.history_visibility", {"history_visibility": "shared"})
        await w.say(ada, room_id, "open")
        await w.join(ben, room_id)
        assert await bodies(w, ben, room_id) == ["open"]
        chunk = (await w.store.read(timeline.messages, ben, room_id, Page(True, limit=100), NOW))["chunk"]
        # Both changes of the setting are shown: one of their sides is open to ben.
        assert [event["content"] for event in chunk if event["type"] == "m.room.history_visibility"] == [
            {"history_visibility": "shared"},
            {"history_visibility": "joined"},
            {"history_visibility": "shared"},
        ]


async def test_ones_own_comings_and_goings_are_always_visible(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        state = [("m.room.history_visibility", "", {"history_visibility": "joined"})]
        room_id = await w.room(ada, "public_chat", initial_state=state)
        await w.join(ben, room_id)
        await leave.kick(w.author, ada, room_id, ben.user_id, None)
        await w.say(ada, room_id, "between")
        await w.join(ben, room_id)
        await w.say(ada, room_id, "again")
        chunk = (await w.store.read(timeline.messages, ben, room_id, Page(True, limit=100), NOW))["chunk"]
        mine = [event["content"]["membership"] for event in chunk if event.get("state_key") == ben.user_id]
        assert mine == ["join", "leave", "join"]
        assert [event["content"]["body"] for event in chunk if event["type"] == "m.room.message"] == ["again"]
        assert [event["unsigned"]["membership"] for event in chunk[:3]] == ["join", "join", "leave"]


async def test_a_forgotten_room_is_closed(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        event_id = await w.say(ada, room_id, "seen")
        await leave.leave(w.author, w.members, ben, room_id)
        assert await bodies(w, ben, room_id) == ["seen"]
        await leave.forget(w.author, w.members, ben, room_id)
        assert await _refused(w.store.read(timeline.messages, ben, room_id, Page(True), NOW)) == "403 M_FORBIDDEN"
        assert await _refused(w.store.read(timeline.one_event, ben, room_id, event_id, NOW)) == "404 M_NOT_FOUND"


async def test_an_event_is_not_found_through_another_room(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        secret, mine = await w.room(ada), await w.room(ben)
        event_id = await w.say(ada, secret, "secret")
        assert await _refused(w.store.read(timeline.one_event, ben, mine, event_id, NOW)) == "404 M_NOT_FOUND"
        reading = w.store.read(timeline.context, ben, mine, event_id, 5, EVERYTHING, NOW)
        assert await _refused(reading) == "404 M_NOT_FOUND"
        assert await _refused(w.store.read(relation_pages.page, ben, mine, Kin(event_id), NOW)) == "404 M_NOT_FOUND"


async def test_somebody_who_left_reads_the_state_of_that_moment(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben, eve = await w.person("ada"), await w.person("ben"), await w.person("eve")
        room_id = await w.room(ada, "public_chat", name="old name")
        await w.join(ben, room_id)
        await leave.ban(w.author, ada, room_id, ben.user_id, None)
        await put_state(w, ada, room_id, "m.room.name", {"name": "new name"})
        await w.join(eve, room_id)
        key = ("m.room.name", "")
        assert await w.store.read(state_reading.one, ben, room_id, key, False, NOW) == {"name": "old name"}
        assert await w.store.read(state_reading.one, ada, room_id, key, False, NOW) == {"name": "new name"}
        members = await w.store.read(state_reading.members, ben, room_id, None, None, None, NOW)
        assert {event["state_key"] for event in members["chunk"]} == {ada.user_id, ben.user_id}
        late = await w.store.read(state_reading.members, ben, room_id, w.store.changes.position, None, None, NOW)
        assert {event["state_key"] for event in late["chunk"]} == {ada.user_id, ben.user_id}
        whole = await w.store.read(state_reading.whole, ben, room_id, NOW)
        assert [event["content"] for event in whole if event["type"] == "m.room.name"] == [{"name": "old name"}]
        assert await _refused(w.store.read(state_reading.joined_members, ben, room_id)) == "403 M_FORBIDDEN"
        assert await _refused(w.store.read(state_reading.one, ada, room_id, ("x", ""), False, NOW)) == "404 M_NOT_FOUND"

"""Paging, context, filters, and what stands in `unsigned`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from appliance.matrix.errors import InvalidParam, NotFound
from appliance.matrix.requester import Requester
from appliance.matrix.tokens import timeline_point
from appliance.rooms import event_filter, leave, send, timeline
from appliance.rooms.event_filter import EVERYTHING, RoomEventFilter
from appliance.rooms.render import render
from appliance.rooms.timeline import Page
from appliance.store import account_data, events
from appliance.store.readers import Rx
from tests.rooms.reading import NOW, bodies, history, put_state
from tests.world.rooms import Ward, ward


async def _pages(w: Ward, who: Requester, room_id: str, **page: Any) -> list[list[dict[str, Any]]]:
    pages, start = [], None
    while True:
        found = await history(w, who, room_id, **page, start=start)
        pages.append(found["chunk"])
        if "end" not in found:
            return pages
        assert timeline_point(found["end"]) != start
        start = timeline_point(found["end"])


@pytest.mark.parametrize("backwards", [True, False])
@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_pages_together_are_the_whole_room_once(tmp_path: Path, backwards: bool, limit: int) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        other = await w.room(ada)
        said = []
        for number in range(12):
            said.append(await w.say(ada, room_id, str(number)))
            await w.say(ada, other, "elsewhere")
        pages = await _pages(w, ada, room_id, backwards=backwards, limit=limit)
        assert all(len(page) <= limit for page in pages)
        found = [event["event_id"] for page in pages for event in page]
        assert len(found) == len(set(found))
        line = found[::-1] if backwards else found
        assert line[-12:] == said
        first = pages[-1][-1] if backwards else pages[0][0]
        assert first["type"] == "m.room.create"
        assert len(line) == 12 + len(await w.store.read(_states, room_id))


def _states(rx: Rx, room_id: str) -> list[Any]:
    return rx.execute(
        "SELECT eid FROM event e JOIN room r ON r.rid=e.rid WHERE room_id=? AND sk IS NOT NULL", (room_id,)
    ).fetchall()


async def test_from_and_to_name_points_between_events(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        points = []
        for number in range(6):
            points.append(w.store.changes.position)
            await w.say(ada, room_id, str(number))
        between = await bodies(w, ada, room_id, backwards=True, start=points[5], stop=points[2])
        assert between == ["2", "3", "4"]
        assert await bodies(w, ada, room_id, backwards=False, start=points[2], stop=points[5]) == ["2", "3", "4"]
        assert await bodies(w, ada, room_id, backwards=True, start=points[2], stop=points[5]) == []
        first = await history(w, ada, room_id, backwards=True, limit=2)
        assert timeline_point(first["start"]) == w.store.changes.position
        await w.say(ada, room_id, "later")
        again = await history(w, ada, room_id, backwards=True, limit=2, start=timeline_point(first["start"]))
        assert [event["event_id"] for event in again["chunk"]] == [event["event_id"] for event in first["chunk"]]


async def test_a_sparse_filter_goes_on_with_bounded_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "MAX_SCAN", 20)
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        needle = await put_state(w, ada, room_id, "needle", {"url": "mxc://x/y"})
        for number in range(60):
            await w.say(ada, room_id, str(number))
        pages = await _pages(w, ada, room_id, filter=RoomEventFilter(types=("need*",)), limit=5)
        assert [event["event_id"] for page in pages for event in page] == [needle]
        assert len(pages) > 3


async def test_filters_say_yes_and_no(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        await w.say(ada, room_id, "from ada")
        await w.say(ben, room_id, "with url", url="mxc://x/y")

        async def found(text: str) -> list[str]:
            return await bodies(w, ada, room_id, filter=event_filter.parse_text(text))

        assert await found('{"types": ["m.room.message"]}') == ["from ada", "with url"]
        assert await found('{"types": ["m.room.*"], "not_types": ["*.message"]}') == []
        assert await found(orjson.dumps({"senders": [ben.user_id]}).decode()) == ["with url"]
        assert await found(orjson.dumps({"not_senders": [ben.user_id]}).decode()) == ["from ada"]
        assert await found('{"contains_url": true}') == ["with url"]
        assert await found('{"contains_url": false}') == ["from ada"]
        assert await found(orjson.dumps({"not_rooms": [room_id]}).decode()) == []
        for bad in ("[]", "x", '{"types": 3}', '{"limit": -1}', '{"contains_url": "yes"}', '{"senders": [3]}'):
            with pytest.raises(InvalidParam):
                event_filter.parse_text(bad)


def test_wildcards_cost_no_backtracking() -> None:
    wanted = event_filter.parse({"types": ["*a" * 100 + "b", "m.*.end"]})
    assert not wanted.wants_kind("a" * 255)
    assert wanted.wants_kind("m.x.end") and wanted.wants_kind("m..end") and not wanted.wants_kind("m.end")


async def test_lazy_loading_gives_the_senders_only(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben, eve = await w.person("ada"), await w.person("ben"), await w.person("eve")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        await w.join(eve, room_id)
        await w.say(ben, room_id, "hello")
        event_id = await w.say(ben, room_id, "again")
        lazy = RoomEventFilter(lazy_load_members=True)
        found = await history(w, ada, room_id, limit=2, filter=lazy)
        assert [event["state_key"] for event in found["state"]] == [ben.user_id]
        assert "state" not in await history(w, ada, room_id, limit=2)
        around = await w.store.read(timeline.context, ada, room_id, event_id, 2, lazy, NOW)
        members = [event["state_key"] for event in around["state"] if event["type"] == "m.room.member"]
        assert set(members) == {ben.user_id}
        assert ("m.room.create", "") in {(event["type"], event["state_key"]) for event in around["state"]}


async def test_context_tokens_lead_on_in_both_directions(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        said = [await w.say(ada, room_id, str(number)) for number in range(11)]
        found = await w.store.read(timeline.context, ada, room_id, said[5], 5, EVERYTHING, NOW)
        assert [event["content"]["body"] for event in found["events_before"]] == ["4", "3", "2"]
        assert [event["content"]["body"] for event in found["events_after"]] == ["6", "7"]
        earlier = await bodies(w, ada, room_id, backwards=True, start=timeline_point(found["start"]))
        later = await bodies(w, ada, room_id, backwards=False, start=timeline_point(found["end"]))
        assert (earlier, later) == (["0", "1"], ["8", "9", "10"])
        alone = await w.store.read(timeline.context, ada, room_id, said[10], 0, EVERYTHING, NOW)
        assert alone["events_before"] == alone["events_after"] == []
        assert alone["event"]["event_id"] == said[10]
        assert (await bodies(w, ada, room_id, start=timeline_point(alone["start"])))[-1] == "9"


async def test_the_event_nearest_to_a_moment(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        w.clock.now = 1_750_000_000_000
        early = await w.say(ada, room_id, "early")
        w.clock.now = 1_760_000_000_000
        late = await w.say(ada, room_id, "late")

        async def nearest(ts: int, forwards: bool) -> str:
            return str((await w.store.read(timeline.nearest, ada, room_id, ts, forwards))["event_id"])

        assert await nearest(1_755_000_000_000, False) == early
        assert await nearest(1_755_000_000_000, True) == late
        with pytest.raises(NotFound):
            await nearest(1_770_000_000_000, True)
        with pytest.raises(NotFound):
            await nearest(1, False)


async def test_unsigned_is_made_for_its_reader(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat", name="one")
        await put_state(w, ada, room_id, "m.room.name", {"name": "two"})
        await w.join(ben, room_id)
        event_id = await send.message(w.author, ada, room_id, "m.room.message", {"body": "x"}, "my-txn")

        async def one(who: Requester, wanted: str) -> dict[str, Any]:
            return await w.store.read(timeline.one_event, who, room_id, wanted, NOW)

        mine, theirs = await one(ada, event_id), await one(ben, event_id)
        assert mine["unsigned"]["transaction_id"] == "my-txn"
        assert "transaction_id" not in theirs["unsigned"]
        assert "transaction_id" not in (await one(Requester(ada.user_id, ada.device_id, 99), event_id))["unsigned"]
        assert mine["unsigned"]["age"] == NOW - mine["origin_server_ts"]
        assert mine["unsigned"]["membership"] == theirs["unsigned"]["membership"] == "join"
        assert mine["room_id"] == room_id
        chunk = (await history(w, ben, room_id))["chunk"]
        renamed = next(event for event in chunk if event["content"].get("name") == "two")
        assert renamed["unsigned"]["prev_content"] == {"name": "one"}
        assert renamed["unsigned"]["replaces_state"].startswith("$")
        assert renamed["unsigned"]["membership"] == "leave"


async def test_previous_content_that_one_may_not_see_is_not_shown(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        state = [("m.room.history_visibility", "", {"history_visibility": "joined"})]
        room_id = await w.room(ada, "public_chat", name="secret", initial_state=state)
        await w.join(ben, room_id)
        await put_state(w, ada, room_id, "m.room.name", {"name": "public"})
        newest = (await history(w, ben, room_id, limit=1))["chunk"][0]
        assert "prev_content" not in newest["unsigned"] and "replaces_state" in newest["unsigned"]


async def test_a_redacted_event_is_shown_without_content_and_with_its_reason(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        event_id = await w.say(ada, room_id, "secret")
        redaction = await send.redact(w.author, ada, room_id, event_id, {"reason": "mistake"}, "r1")
        found = await w.store.read(timeline.one_event, ada, room_id, event_id, NOW)
        assert found["content"] == {}
        because = found["unsigned"]["redacted_because"]
        assert because["event_id"] == redaction and because["content"]["reason"] == "mistake"
        assert because["redacts"] == event_id


async def test_ignored_people_are_not_heard_but_their_state_counts(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        await w.say(ben, room_id, "noise")
        await w.say(ada, room_id, "music")
        ignored = orjson.dumps({"ignored_users": {ben.user_id: {}, ada.user_id: {}}})
        await w.store.write(account_data.put, ada.user_id, "", "m.ignored_user_list", ignored)
        assert await bodies(w, ada, room_id) == ["music"]
        assert await bodies(w, ben, room_id) == ["noise", "music"]
        chunk = (await history(w, ada, room_id))["chunk"]
        assert ben.user_id in {event.get("state_key") for event in chunk}


async def test_rendering_is_the_same_for_rows_of_several_rooms(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        one, two = await w.room(ada), await w.room(ada, "public_chat")
        await w.join(ben, two)
        ids = [await w.say(ada, one, "a"), await w.say(ada, two, "b")]

        def both(rx: Rx) -> list[dict[str, Any]]:
            found = events.fetch(rx, ids)
            return render(rx, [found[event_id] for event_id in ids], ada, NOW, room_id=False, bundle=False)

        first, second = await w.store.read(both)
        assert "room_id" not in first and first["content"]["body"] == "a" and second["content"]["body"] == "b"
        await leave.leave(w.author, w.members, ben, two)
        assert await bodies(w, ben, two) == ["b"]
        await w.say(ada, two, "c")
        assert await bodies(w, ben, two) == ["b"]
        assert await bodies(w, ben, two, backwards=False) == ["b"]
        page = Page(True, start=w.store.changes.position, limit=5)
        assert (await w.store.read(timeline.messages, ben, two, page, NOW))["chunk"][0]["type"] == "m.room.member"

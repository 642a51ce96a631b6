"""Relations, threads and what is bundled with an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from appliance.matrix.errors import MatrixError, NotFound
from appliance.matrix.requester import Requester
from appliance.matrix.tokens import timeline_point
from appliance.rooms import leave, relation_pages, send, threads, timeline
from appliance.rooms.relation_pages import Kin
from appliance.store import account_data
from tests.rooms.reading import NOW, edit, history, relate
from tests.world.rooms import Ward, ward


async def _bundle(w: Ward, who: Requester, room_id: str, event_id: str) -> dict[str, Any]:
    found = await w.store.read(timeline.one_event, who, room_id, event_id, NOW)
    return dict(found["unsigned"].get("m.relations", {}))


async def _children(w: Ward, who: Requester, room_id: str, parent: str, **kin: Any) -> list[str]:
    found = await w.store.read(relation_pages.page, who, room_id, Kin(parent, **kin), NOW)
    return [event["event_id"] for event in found["chunk"]]


async def _ignore(w: Ward, who: Requester, whom: Requester) -> None:
    content = orjson.dumps({"ignored_users": {whom.user_id: {}}})
    await w.store.write(account_data.put, who.user_id, "", "m.ignored_user_list", content)


async def test_the_newest_valid_edit_is_bundled(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        original = await w.say(ada, room_id, "cake")
        assert await _bundle(w, ada, room_id, original) == {}
        first = await edit(w, ada, room_id, original, "good cake")
        second = await edit(w, ada, room_id, original, "very good cake")
        await edit(w, ben, room_id, original, "not ben's to say")
        await relate(w, ada, room_id, original, "m.replace", "no new content")
        reaction = {"m.relates_to": {"rel_type": "m.replace", "event_id": original}, "m.new_content": {"body": "x"}}
        await send.message(w.author, ada, room_id, "m.other", reaction, "another type")
        bundled = await _bundle(w, ben, room_id, original)
        assert bundled["m.replace"]["event_id"] == second
        assert bundled["m.replace"]["content"]["m.new_content"] == {"body": "very good cake"}
        shown = await w.store.read(timeline.one_event, ben, room_id, original, NOW)
        assert shown["content"]["body"] == "cake", "the original stays as it was"
        await send.redact(w.author, ada, room_id, second, {}, "r1")
        assert (await _bundle(w, ben, room_id, original))["m.replace"]["event_id"] == first
        await edit(w, ada, room_id, first, "an edit of an edit")
        assert await _bundle(w, ben, room_id, first) == {}
        await send.redact(w.author, ada, room_id, original, {}, "r2")
        assert await _bundle(w, ben, room_id, original) == {}


async def test_the_later_timestamp_wins_whatever_the_order_of_arrival(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        original = await w.say(ada, room_id, "cake")
        w.clock.now += 1_000_000
        later = await edit(w, ada, room_id, original, "by its clock the later")
        w.clock.now -= 900_000
        await edit(w, ada, room_id, original, "arrived later")
        assert (await _bundle(w, ada, room_id, original))["m.replace"]["event_id"] == later


async def test_references_are_listed(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        root = await w.say(ada, room_id, "root")
        ids = [await relate(w, ada, room_id, root, "m.reference") for _ in range(3)]
        assert await _bundle(w, ada, room_id, root) == {
            "m.reference": {"chunk": [{"event_id": event_id} for event_id in ids]}
        }


async def test_a_thread_is_summed_up_for_each_reader(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben, eve = await w.person("ada"), await w.person("ben"), await w.person("eve")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        await w.join(eve, room_id)
        root = await w.say(ada, room_id, "root")
        await relate(w, ben, room_id, root, "m.thread", "one")
        last = await relate(w, ben, room_id, root, "m.thread", "two")
        corrected = await edit(w, ben, room_id, last, "second")
        thread = (await _bundle(w, ben, room_id, root))["m.thread"]
        assert (thread["count"], thread["current_user_participated"]) == (2, True)
        assert thread["latest_event"]["event_id"] == last
        assert thread["latest_event"]["unsigned"]["m.relations"]["m.replace"]["event_id"] == corrected
        assert (await _bundle(w, ada, room_id, root))["m.thread"]["current_user_participated"] is True
        assert (await _bundle(w, eve, room_id, root))["m.thread"]["current_user_participated"] is False
        noise = await relate(w, eve, room_id, root, "m.thread", "three")
        await _ignore(w, ada, eve)
        assert (await _bundle(w, ben, room_id, root))["m.thread"]["latest_event"]["event_id"] == noise
        quiet = (await _bundle(w, ada, room_id, root))["m.thread"]
        assert (quiet["count"], quiet["latest_event"]["event_id"]) == (2, last)
        await send.redact(w.author, eve, room_id, noise, {}, "r1")
        assert (await _bundle(w, ben, room_id, root))["m.thread"]["count"] == 2


async def test_state_events_get_no_bundle(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada, name="name")
        chunk = (await history(w, ada, room_id))["chunk"]
        name = next(event["event_id"] for event in chunk if event["type"] == "m.room.name")
        await relate(w, ada, room_id, name, "m.reference")
        assert await _bundle(w, ada, room_id, name) == {}
        assert len(await _children(w, ada, room_id, name)) == 1


async def test_children_are_found_by_kind_and_direction(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id, other = await w.room(ada), await w.room(ada)
        root = await w.say(ada, room_id, "root")
        message = await relate(w, ada, room_id, root, "m.thread")
        like = {"m.relates_to": {"rel_type": "m.annotation", "event_id": root, "key": "+"}}
        reaction = await send.message(w.author, ada, room_id, "m.reaction", like, "reaction")
        await relate(w, ada, other, root, "m.thread", "from another room")
        redacted = await relate(w, ada, room_id, root, "m.thread")
        await send.redact(w.author, ada, room_id, redacted, {}, "r")
        assert await _children(w, ada, room_id, root) == [reaction, message]
        assert await _children(w, ada, room_id, root, backwards=False) == [message, reaction]
        assert await _children(w, ada, room_id, root, rel_type="m.thread") == [message]
        assert await _children(w, ada, room_id, root, rel_type="m.annotation", type="m.reaction") == [reaction]
        assert await _children(w, ada, room_id, root, rel_type="m.annotation", type="m.room.message") == []
        with pytest.raises(NotFound):
            await _children(w, ada, other, root)
        with pytest.raises(NotFound):
            await _children(w, ada, room_id, "$nothing")


@pytest.mark.parametrize("backwards", [True, False])
async def test_pages_of_children_are_complete_and_without_doubles(tmp_path: Path, backwards: bool) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        root = await w.say(ada, room_id, "root")
        ids = [await relate(w, ada, room_id, root, "m.thread", str(number)) for number in range(10)]
        found: list[str] = []
        start = None
        while True:
            kin = Kin(root, limit=3, backwards=backwards, start=start)
            page = await w.store.read(relation_pages.page, ada, room_id, kin, NOW)
            assert ("prev_batch" in page) == (start is not None)
            found += [event["event_id"] for event in page["chunk"]]
            if "next_batch" not in page:
                break
            start = timeline_point(page["next_batch"])
        assert found == (ids[::-1] if backwards else ids)


async def test_recursion_reaches_three_levels_and_ends_in_loops(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        root = await w.say(ada, room_id, "root")
        ids, parent = [], root
        for _ in range(4):
            parent = await relate(w, ada, room_id, parent, "m.reference")
            ids.append(parent)
        assert await _children(w, ada, room_id, root, backwards=False) == ids[:1]
        assert await _children(w, ada, room_id, root, backwards=False, recurse=True) == ids[:3]
        page = await w.store.read(relation_pages.page, ada, room_id, Kin(root, recurse=True), NOW)
        assert page["recursion_depth"] == 3


async def test_a_thread_cannot_hang_under_a_child(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        root = await w.say(ada, room_id, "root")
        child = await relate(w, ada, room_id, root, "m.thread")
        reply = await w.say(ada, room_id, "reply", **{"m.relates_to": {"m.in_reply_to": {"event_id": root}}})
        with pytest.raises(MatrixError) as refused:
            await relate(w, ada, room_id, child, "m.thread")
        assert (refused.value.status, refused.value.errcode) == (400, "M_UNKNOWN")
        await relate(w, ada, room_id, reply, "m.thread")
        await relate(w, ada, room_id, "$not known here", "m.thread")


async def test_threads_are_listed_by_their_latest_event(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        roots = [await w.say(ada, room_id, f"root {number}") for number in range(5)]
        for root in roots:
            await relate(w, ada, room_id, root, "m.thread")
        await relate(w, ben, room_id, roots[1], "m.thread")
        order = [roots[1], roots[4], roots[3], roots[2], roots[0]]

        async def listed(who: Requester, **wanted: Any) -> list[str]:
            found: list[str] = []
            while True:
                page = await w.store.read(threads.listing, who, room_id, threads.Wanted(**wanted), NOW)
                found += [event["event_id"] for event in page["chunk"]]
                assert all("m.thread" in event["unsigned"]["m.relations"] for event in page["chunk"])
                if "next_batch" not in page:
                    return found
                wanted["start"] = timeline_point(page["next_batch"])

        assert await listed(ada) == order
        assert await listed(ada, limit=2) == order
        assert await listed(ada, participated=True, limit=1) == order
        assert await listed(ben, participated=True) == [roots[1]]
        await _ignore(w, ben, ada)
        page = await w.store.read(threads.listing, ben, room_id, threads.Wanted(limit=1), NOW)
        assert [event["content"] for event in page["chunk"]] == [{}], "roots of ignored people come without content"
        everything = await w.store.read(threads.listing, ben, room_id, threads.Wanted(), NOW)
        assert [event["event_id"] for event in everything["chunk"]] == [roots[1]], "the other threads are empty for ben"
        await leave.leave(w.author, w.members, ben, room_id)
        await relate(w, ada, room_id, roots[0], "m.thread", "later")
        assert (await listed(ada))[0] == roots[0]

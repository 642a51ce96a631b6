"""Server-side search: what is found, in which order, and what has left the index."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis.strategies import text

from appliance.matrix.errors import InvalidParam
from appliance.matrix.requester import Requester
from appliance.rooms import invite, search, send
from appliance.rooms.event_filter import RoomEventFilter
from appliance.rooms.search import Context, Search, Wish
from appliance.store.readers import Rx
from appliance.store.search import BODY, NAME, TOPIC, Question
from tests.rooms.reading import NOW, put_state
from tests.world.rooms import Ward, ward


async def _find(w: Ward, who: Requester, term: str, **wish: Any) -> dict[str, Any]:
    return await Search(w.store).search(who, Wish(term, **wish), NOW)


async def _texts(w: Ward, who: Requester, term: str, **wish: Any) -> list[str]:
    found = await _find(w, who, term, **wish)
    return [str(result["result"]["content"].get("body")) for result in found["results"]]


async def test_words_are_found_without_regard_to_case_accents_and_endings(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        await w.say(ada, room_id, "Die Übergabe beginnt um sieben")
        await w.say(ada, room_id, "Um sieben wird nicht übergeben")
        assert await _texts(w, ada, "ubergabe") == ["Die Übergabe beginnt um sieben"]
        assert len(await _texts(w, ada, "ÜBERG")) == 2
        assert await _texts(w, ada, '"um sieben wird"') == ["Um sieben wird nicht übergeben"]
        assert await _texts(w, ada, "sieben beginnt") == ["Die Übergabe beginnt um sieben"]
        assert await _texts(w, ada, "acht") == []
        found = await _find(w, ada, "Sieben")
        assert found["count"] == 2 and found["highlights"] == ["sieben"]


STRANGE = ['"', '""', "* OR scope:r1", "body:x", "NEAR(a b)", "'; DROP", "-a", "^", "!!!", "", "AND", "\0", "a\0b"]


@pytest.mark.parametrize("term", STRANGE)
async def test_no_term_is_a_program(tmp_path: Path, term: str) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        await w.say(ada, await w.room(ada), "harmless")
        assert await _texts(w, ada, term) == []


@given(text())
def test_every_text_is_a_valid_question(term: str) -> None:
    words = search.expression(term)
    if words:
        index = sqlite3.connect(":memory:")
        index.execute("CREATE VIRTUAL TABLE t USING fts5 (scope, body, tokenize='unicode61 remove_diacritics 2')")
        question = Question(words, [1], (BODY,), False)
        assert index.execute("SELECT * FROM t WHERE t MATCH ?", (question.expression,)).fetchall() == []
        index.close()


async def test_only_asked_for_kinds_of_text_are_searched(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada, name="word name", topic="word topic")
        await w.say(ada, room_id, "word body")
        for kind, type in ((BODY, "m.room.message"), (NAME, "m.room.name"), (TOPIC, "m.room.topic")):
            found = await _find(w, ada, "word", kinds=(kind,))
            assert [result["result"]["type"] for result in found["results"]] == [type]
        assert (await _find(w, ada, "word"))["count"] == 3


async def test_redacted_texts_leave_the_index(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        early = await w.say(ada, room_id, "secret one")
        assert await _texts(w, ada, "secret") == ["secret one"]
        await send.redact(w.author, ada, room_id, early, {}, "r1")
        late = await w.say(ada, room_id, "secret two")
        await send.redact(w.author, ada, room_id, late, {}, "r2")
        assert await _texts(w, ada, "secret") == []
        assert await w.store.read(_indexed, "secret") == 0


def _indexed(rx: Rx, word: str) -> int:
    return int(rx.execute("SELECT count(*) FROM search_text WHERE search_text MATCH ?", (word,)).fetchone()[0])


async def test_encrypted_rooms_are_not_searched(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        await w.say(ada, room_id, "said in the clear")
        assert len(await _texts(w, ada, "clear")) == 1
        await put_state(w, ada, room_id, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})
        assert await _texts(w, ada, "clear") == []


async def test_nothing_is_found_in_the_rooms_of_others(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        public = await w.room(ada, "public_chat")
        await w.say(ada, await w.room(ada), "word in private")
        await w.say(ada, public, "word in public")
        assert await _texts(w, ben, "word") == []
        await w.join(ben, public)
        assert await _texts(w, ben, "word") == ["word in public"]
        assert await _texts(w, ada, "word", filter=RoomEventFilter(rooms=frozenset({public}))) == ["word in public"]
        elsewhere = RoomEventFilter(not_rooms=frozenset({public}))
        assert await _texts(w, ada, "word", filter=elsewhere) == ["word in private"]
        assert await _texts(w, ben, "word", filter=RoomEventFilter(senders=frozenset({ben.user_id}))) == []


async def test_what_was_once_open_to_all_is_found_without_the_state_of_today(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        state = [("m.room.history_visibility", "", {"history_visibility": "world_readable"})]
        room_id = await w.room(ada, initial_state=state)
        await w.say(ada, room_id, "open word")
        await put_state(w, ada, room_id, "m.room.history_visibility", {"history_visibility": "shared"})
        await w.say(ada, room_id, "closed word")
        await invite.invite(w.author, ada, room_id, ben.user_id)
        found = await _find(w, ben, "word", include_state=True)
        assert [result["result"]["content"]["body"] for result in found["results"]] == ["open word"]
        assert found["state"] == {}


@pytest.mark.parametrize("recent", [True, False])
async def test_pages_are_complete_and_in_order(tmp_path: Path, recent: bool) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        said = [f"word {'word ' * (number % 3)}{number}" for number in range(25)]
        for text in said:
            await w.say(ada, room_id, text)
        texts: list[str] = []
        ranks: list[float] = []
        token = None
        while True:
            found = await _find(w, ada, "word", recent=recent, filter=RoomEventFilter(limit=7), token=token)
            texts += [result["result"]["content"]["body"] for result in found["results"]]
            ranks += [result["rank"] for result in found["results"]]
            token = found.get("next_batch")
            if token is None:
                break
        assert sorted(texts) == sorted(said)
        if recent:
            assert texts == said[::-1]
        else:
            assert ranks == sorted(ranks, reverse=True) and ranks[0] > ranks[-1]
        with pytest.raises(InvalidParam):
            await _find(w, ada, "word", recent=recent, token="o3" if recent else "p3")


async def test_context_groups_and_state_come_on_request(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada", "Ada"), await w.person("ben")
        one, two = await w.room(ada, "public_chat"), await w.room(ada)
        await w.join(ben, one)
        for text in ("a", "b", "needle one", "c", "d"):
            await w.say(ada, one, text)
        mine = await w.say(ben, one, "needle of ben")
        await w.say(ada, two, "needle two")
        found = await _find(
            w, ada, "needle one", context=Context(2, 1, True), include_state=True, group_by=("room_id", "sender")
        )
        context = found["results"][0]["context"]
        assert [event["content"]["body"] for event in context["events_before"]] == ["b", "a"]
        assert [event["content"]["body"] for event in context["events_after"]] == ["c"]
        assert context["profile_info"] == {ada.user_id: {"displayname": "Ada"}}
        assert set(found["state"]) == {one}
        groups = (await _find(w, ada, "needle", recent=True, group_by=("room_id", "sender")))["groups"]
        assert set(groups["room_id"]) == {one, two}
        assert groups["sender"][ben.user_id]["results"] == [mine]
        assert len(groups["room_id"][one]["results"]) == 2


async def test_somebody_in_a_thousand_rooms_can_search(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        await w.say(ada, await w.room(ada), "word")
        await Search(w.store).catch_up()
        rids = list(range(1, 1001))

        def ask(rx: Rx) -> int:
            question = Question(search.expression("w o r d e f g h " * 4), rids, (BODY, NAME), False)
            sql = "SELECT count(*) FROM search_text WHERE search_text MATCH ?"
            return int(rx.execute(sql, (question.expression,)).fetchone()[0])

        assert await w.store.read(ask) == 0


async def test_errors_pass_through_the_keeper_of_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ward(tmp_path) as w:
        with pytest.raises(OSError, match="port in use"):
            async with Search(w.store).kept():
                raise OSError("port in use")
        finder = Search(w.store)

        async def broken() -> None:
            raise RuntimeError("index broken")

        monkeypatch.setattr(finder, "run", broken)
        with pytest.raises(RuntimeError, match="index broken"):
            async with finder.kept():
                await asyncio.Event().wait()


async def test_the_index_follows_when_the_house_is_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "QUIET_SECONDS", 0.05)
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        room_id = await w.room(ada)
        finder, done = Search(w.store), asyncio.Event()
        catch_up = finder.catch_up

        async def watched() -> None:
            await catch_up()
            done.set()

        monkeypatch.setattr(finder, "catch_up", watched)
        async with finder.kept():
            await w.say(ada, room_id, "overnight")
            await asyncio.wait_for(done.wait(), 5)
            assert await w.store.read(_indexed, "overnight") == 1

"""Unread counts: what raises them, what lowers them, and that following and working out anew always agree."""

from __future__ import annotations

import random
from pathlib import Path

import orjson

from appliance.matrix.ids import RoomId
from appliance.matrix.requester import Requester
from appliance.push.editing import Wish
from appliance.push.unread import Judged
from appliance.rooms import leave, profiles
from appliance.store import account_data
from appliance.store import profiles as faces
from appliance.store.profiles import Profile
from tests.push.post import Office, office
from tests.rooms.reading import edit, relate


async def company(o: Office, *names: str) -> tuple[list[Requester], RoomId]:
    people = [await o.person(name) for name in names]
    room_id = await o.room(people[0])
    await o.bring(people[0], room_id, *people[1:])
    return people, room_id


async def test_messages_of_others_count_and_a_receipt_clears_them(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        (ada, ben, cem), room = await company(o, "ada", "ben", "cem")
        assert await o.numbers(ben, room) == (0, 0)
        first = await o.say(ada, room, "one")
        await o.say(ada, room, "two", **{"m.mentions": {"user_ids": [ben.user_id]}})
        await o.say(ben, room, "mine")
        assert await o.numbers(ben, room) == (2, 1)
        assert await o.numbers(cem, room) == (3, 0)
        await o.read(ben, room, first)
        assert await o.numbers(ben, room) == (1, 1)
        last = await o.say(ada, room, "three")
        await o.read(ben, room, last, kind="m.read.private")
        assert await o.numbers(ben, room) == (0, 0)
        assert await o.numbers(cem, room) == (4, 0)


async def test_the_more_advanced_receipt_counts(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        (ada, ben), room = await company(o, "ada", "ben")
        sent = [await o.say(ada, room, str(number)) for number in range(4)]
        await o.read(ben, room, sent[2])
        await o.read(ben, room, sent[0], kind="m.read.private")
        assert await o.numbers(ben, room) == (1, 0)
        await o.read(ben, room, sent[3], kind="m.read.private")
        assert await o.numbers(ben, room) == (0, 0)


async def test_threads_are_counted_and_read_by_themselves(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        (ada, ben), room = await company(o, "ada", "ben")
        root = await o.say(ada, room, "root")
        inside = [await relate(o, ada, room, root, "m.thread", str(number)) for number in range(3)]
        await relate(o, ada, room, inside[0], "m.reference", "about one in the thread")
        main = await o.say(ada, room, "main")
        await o.numbers(ben, room)
        counts = await o.counts(ben, room)
        assert (counts.notification, counts.main, dict(counts.threads)) == (6, (2, 0), {root: (4, 0)})
        await o.read(ben, room, main, thread="main")
        await o.numbers(ben, room)
        counts = await o.counts(ben, room)
        assert (counts.main, dict(counts.threads)) == ((0, 0), {root: (4, 0)}), "a main receipt leaves threads alone"
        await o.read(ben, room, inside[1], thread=root)
        assert (await o.counts(ben, room)).threads == {root: (2, 0)}
        await o.read(ben, room, main)
        assert await o.numbers(ben, room) == (0, 0)


async def test_edits_and_reactions_do_not_count_and_redactions_take_back(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        (ada, ben), room = await company(o, "ada", "ben")
        said = await o.say(ada, room, "one")
        await edit(o, ada, room, said, "won")
        assert await o.numbers(ben, room) == (1, 0)
        await o.redact(ada, room, said)
        assert await o.numbers(ben, room) == (0, 0)


async def test_nothing_from_before_the_person_came_counts(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        (ada, ben), room = await company(o, "ada", "ben")
        await o.say(ada, room, "unread")
        await leave.leave(o.author, o.members, ben, room)
        assert await o.numbers(ben, room) == (0, 0)
        await o.say(ada, room, "while away")
        await o.bring(ada, room, ben)
        assert await o.numbers(ben, room) == (0, 0)
        await o.say(ada, room, "back")
        await o.store.write(faces.put, Profile(ben.user_id, "Dr. Ben", None))
        await profiles.profile_changed(o.author, o.members, ben.user_id)
        assert await o.numbers(ben, room) == (1, 0), "a new name is no new beginning"
        await o.say(ada, room, "where is dr. ben?")
        assert await o.numbers(ben, room) == (2, 1)


async def test_changed_rules_and_ignored_people_count_from_then_on_and_back(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        (ada, ben, cem), room = await company(o, "ada", "ben", "cem")
        await o.say(ada, room, "coffee?")
        await o.say(cem, room, "yes")
        assert await o.numbers(ben, room) == (2, 0)
        await o.rules.put(ben.user_id, "content", Wish("c", {
            "pattern": "coffee", "actions": ["notify", {"set_tweak": "highlight"}]}))
        assert await o.numbers(ben, room) == (2, 1)
        ignored = orjson.dumps({"ignored_users": {ada.user_id: {}}})
        await o.store.write(account_data.put, ben.user_id, "", "m.ignored_user_list", ignored)
        assert await o.numbers(ben, room) == (1, 0)
        await o.rules.put(ben.user_id, "room", Wish(room, {"actions": []}))
        assert await o.numbers(ben, room) == (0, 0)


async def test_two_people_become_three(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        (ada, ben), room = await company(o, "ada", "ben")
        await o.rules.enable(ben.user_id, "underride", ".m.rule.message", False)
        await o.say(ada, room, "just us")
        assert (await o.counts(ben, room)).notification == 1
        await o.bring(ada, room, await o.person("cem"))
        await o.say(ada, room, "not alone")
        assert (await o.counts(ben, room)).notification == 1


async def test_a_room_nobody_knows_has_nothing_unread(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        ada = await o.person("ada")
        assert await o.numbers(ada, "!nowhere:test.example") == (0, 0)
        assert await o.numbers(ada, await o.room(await o.person("ben"))) == (0, 0)


async def test_random_lives_agree_with_a_fresh_start(tmp_path: Path) -> None:
    dice = random.Random(11)
    async with office(tmp_path) as o:
        people, room = await company(o, "ada", "ben", "cem")
        sent = [await o.say(people[0], room, "first")]
        for _ in range(150):
            who = dice.choice(people)
            act = dice.random()
            if act < 0.5:
                sent.append(await o.say(who, room, dice.choice(["hello", "ben!", "@room"])))
            elif act < 0.65:
                sent.append(await relate(o, who, room, sent[0], "m.thread"))
            elif act < 0.85:
                await o.read(who, room, dice.choice(sent), dice.choice(["m.read", "m.read.private"]))
            elif act < 0.9 and len(sent) > 4:
                await o.redact(people[0], room, sent.pop(dice.randrange(3, len(sent))))
            await o.numbers(dice.choice(people), room)


async def test_the_list_of_notifications_is_read_from_the_timelines_page_by_page(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        (ada, ben), room = await company(o, "ada", "ben")
        other = await o.room(ada)
        await o.bring(ada, other, ben)
        sent = []
        for number in range(12):
            loud = {"m.mentions": {"user_ids": [ben.user_id]}} if number % 4 == 0 else {}
            sent.append(await o.say(ada, (room, other)[number % 2], str(number), **loud))
            await o.say(ben, room, "mine")
        await o.read(ben, room, sent[4])
        found: list[Judged] = []
        below: int | None = 2**53
        while below is not None:
            page = await o.history.page(ben.user_id, below, 5, False)
            assert len(page.items) <= 5
            found += page.items
            below = page.below
        assert [judged.row.event.event_id for judged in found] == sent[::-1]
        assert [judged.row.event.event_id for judged in found if judged.read] == [sent[4], sent[2], sent[0]]
        page = await o.history.page(ben.user_id, 2**53, 50, True)
        assert [judged.row.event.event_id for judged in page.items] == [sent[8], sent[4], sent[0]]

"""What no timeline holds: who types, who read what, who is online."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.matrix.requester import Requester
from appliance.store.receipts import PRIVATE, READ
from tests.sync.station import Station, joined, station

PRESENCE: dict[str, Any] = {"presence": {}}


def of_kind(answer: Any, room_id: str, kind: str) -> list[Any]:
    events = joined(answer, room_id).get("ephemeral", {"events": []})["events"]
    return [event["content"] for event in events if event["type"] == kind]


async def pair(w: Station) -> tuple[Requester, Requester, Any]:
    """Make two people in one room."""
    ada, bob = await w.person("ada"), await w.person("bob")
    room_id = await w.room(ada, "public_chat")
    await w.join(bob, room_id)
    return ada, bob, room_id


async def test_typing_is_told_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob, room_id = await pair(w)
        token = await w.token(bob)
        w.typing.set(room_id, ada.user_id, 30_000)
        answer = await w.sync(bob, token)
        assert of_kind(answer, room_id, "m.typing") == [{"user_ids": [ada.user_id]}]
        assert of_kind(await w.sync(bob), room_id, "m.typing") == [{"user_ids": [ada.user_id]}]
        token = answer["next_batch"]
        assert "rooms" not in await w.sync(bob, token)
        await w.say(ada, room_id, "done")
        answer = await w.sync(bob, token)
        assert of_kind(answer, room_id, "m.typing") == [{"user_ids": []}]
        w.typing.set(room_id, ada.user_id, 30_000)
        none = await w.sync(bob, answer["next_batch"], filter={"room": {"ephemeral": {"types": []}}})
        assert "rooms" not in none


async def test_typing_survives_a_clock_that_was_set_back(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob, room_id = await pair(w)
        later = f"s{w.store.changes.position}_{w.ephemeral.serial + 10**9}"
        w.typing.set(room_id, ada.user_id, 30_000)
        assert of_kind(await w.sync(bob, later), room_id, "m.typing") == [{"user_ids": [ada.user_id]}]


async def test_typing_of_somebody_ignored_is_not_told(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob, room_id = await pair(w)
        await w.put(bob, "m.ignored_user_list", {"ignored_users": {ada.user_id: {}}})
        token = await w.token(bob)
        w.typing.set(room_id, ada.user_id, 30_000)
        assert of_kind(await w.sync(bob, token), room_id, "m.typing") == [{"user_ids": []}]


async def test_receipts_come_once_and_private_ones_only_to_their_owner(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob, room_id = await pair(w)
        said = await w.say(ada, room_id, "hello")
        tokens = [await w.token(ada), await w.token(bob)]
        await w.read(bob, room_id, said, PRIVATE)
        found = [await w.sync(ada, tokens[0]), await w.sync(bob, tokens[1])]
        assert "rooms" not in found[0]
        assert list(of_kind(found[1], room_id, "m.receipt")[0][said]) == [PRIVATE]
        await w.read(bob, room_id, said, READ)
        for person, answer in zip((ada, bob), found, strict=True):
            answer = await w.sync(person, answer["next_batch"])
            assert of_kind(answer, room_id, "m.receipt")[0][said][READ][bob.user_id]["ts"] == 1
            assert "rooms" not in await w.sync(person, answer["next_batch"])


async def test_unread_counts_fall_with_a_receipt(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob, room_id = await pair(w)
        token = await w.token(bob)
        said = [await w.say(ada, room_id, str(number)) for number in range(3)]
        answer = await w.sync(bob, token)
        assert joined(answer, room_id)["unread_notifications"]["notification_count"] == 3
        await w.read(bob, room_id, said[1])
        answer = await w.sync(bob, answer["next_batch"])
        assert joined(answer, room_id)["unread_notifications"]["notification_count"] == 1


async def test_presence_is_told_to_those_who_share_a_room(tmp_path: Path) -> None:
    async with station(tmp_path) as w:
        ada, bob, _ = await pair(w)
        eve = await w.person("eve")
        tokens = {who: (await w.sync(who, filter=PRESENCE))["next_batch"] for who in (bob, eve)}
        await w.sync(ada, presence="online")
        heard = await w.sync(bob, tokens[bob], filter=PRESENCE)
        assert [(e["sender"], e["content"]["presence"]) for e in heard["presence"]["events"]] == [
            (ada.user_id, "online")
        ]
        assert "presence" not in await w.sync(eve, tokens[eve], filter=PRESENCE)
        assert "presence" not in await w.sync(bob, heard["next_batch"], filter=PRESENCE)
        await w.presence.put(ada.user_id, "unavailable", "In theatre")
        heard = await w.sync(bob, heard["next_batch"], filter=PRESENCE)
        assert heard["presence"]["events"][0]["content"]["status_msg"] == "In theatre"
        w.clock.now += 61_000
        w.presence.sweep()
        heard = await w.sync(bob, heard["next_batch"], filter=PRESENCE)
        assert heard["presence"]["events"][0]["content"]["presence"] == "offline"


async def test_presence_can_be_off(tmp_path: Path) -> None:
    async with station(tmp_path, presence=False) as w:
        ada, bob, _ = await pair(w)
        await w.sync(ada, presence="online")
        assert "presence" not in await w.sync(bob, filter=PRESENCE)

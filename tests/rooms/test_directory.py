"""Aliases, the public directory, summaries, spaces, and finding people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from appliance.matrix import event as matrix_event
from appliance.matrix import signing, versions
from appliance.matrix.errors import Forbidden, InvalidParam, MatrixError, NotFound
from appliance.matrix.ids import RoomId, ServerName, UserId
from appliance.matrix.requester import Requester
from appliance.rooms import directory, hierarchy, invite, leave, state_reading, summary, user_directory
from appliance.rooms.directory import Listing
from appliance.rooms.hierarchy import Walk
from appliance.store import accounts, append, profiles, rooms
from appliance.store.profiles import Profile
from appliance.store.writer import Tx
from tests.rooms.reading import put_state
from tests.world.rooms import SERVER, Ward, ward

ALIAS = f"#ward:{SERVER}"


async def test_aliases_are_made_by_members_and_removed_by_their_makers(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben, eve = await w.person("ada"), await w.person("ben"), await w.person("eve")
        room_id, other = await w.room(ada, "public_chat"), await w.room(eve)
        with pytest.raises(Forbidden):
            await w.store.write(directory.add, ben, ALIAS, room_id, 1)
        await w.join(ben, room_id)
        await w.store.write(directory.add, ben, ALIAS, room_id, 1)
        with pytest.raises(MatrixError) as taken:
            await w.store.write(directory.add, eve, ALIAS, other, 1)
        assert (taken.value.status, taken.value.errcode) == (409, "M_UNKNOWN")
        assert await w.store.read(directory.resolve, ALIAS, SERVER) == {"room_id": room_id, "servers": [SERVER]}
        assert await w.store.read(state_reading.aliases, ada, room_id) == {"aliases": [ALIAS]}
        with pytest.raises(Forbidden):
            await w.store.read(state_reading.aliases, eve, room_id)
        with pytest.raises(Forbidden):
            await w.store.write(directory.remove, eve, ALIAS)
        await w.store.write(directory.remove, ben, ALIAS)
        for attempt in (
            w.store.read(directory.resolve, ALIAS, SERVER),
            w.store.write(directory.remove, ben, ALIAS),
        ):
            with pytest.raises(NotFound):
                await attempt
        await w.store.write(directory.add, ben, ALIAS, room_id, 1)
        await w.store.write(directory.remove, ada, ALIAS)  # who may change the canonical alias


async def test_publishing_needs_power_in_the_room(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.join(ben, room_id)
        assert await w.store.read(directory.visibility, room_id) == {"visibility": "private"}
        with pytest.raises(Forbidden):
            await w.store.write(directory.set_visibility, ben, room_id, True)
        await w.store.write(directory.set_visibility, ada, room_id, True)
        assert await w.store.read(directory.visibility, room_id) == {"visibility": "public"}
        await w.store.write(directory.set_visibility, ada, room_id, False)
        assert (await w.store.read(directory.published, Listing()))["chunk"] == []
        with pytest.raises(NotFound):
            await w.store.read(directory.visibility, f"!nothing:{SERVER}")


async def test_the_directory_is_paged_sorted_and_filtered(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        names = [f"Room {number}" for number in range(7)]
        ids = [await w.room(ada, "public_chat", name=name, public=True) for name in names]
        space = await w.room(ada, "public_chat", public=True, creation_content={"type": "m.space"}, topic="Übergabe")
        await w.room(ada, "public_chat", name="not listed")
        await w.join(ben, ids[4])
        found: list[str] = []
        since = None
        while True:
            page = await w.store.read(directory.published, Listing(limit=3, since=since))
            assert page["total_room_count_estimate"] == 8
            assert ("prev_batch" in page) == (since is not None)
            found += [entry["room_id"] for entry in page["chunk"]]
            since = page.get("next_batch")
            if since is None:
                break
        assert found == [ids[4], *ids[:4], *ids[5:], space]
        first = (await w.store.read(directory.published, Listing(limit=1)))["chunk"][0]
        assert (first["name"], first["num_joined_members"], first["join_rule"]) == ("Room 4", 2, "public")
        assert (first["world_readable"], first["guest_can_join"]) == (False, False)

        async def filtered(**wanted: Any) -> list[str]:
            page = await w.store.read(directory.published, Listing(**wanted))
            return [entry["room_id"] for entry in page["chunk"]]

        assert await filtered(term="room 3") == [ids[3]]
        assert await filtered(term="ÜBERgabe") == [space]
        assert await filtered(room_types=["m.space"]) == [space]
        assert len(await filtered(room_types=[None])) == 7
        assert await filtered(room_types=[]) == []
        with pytest.raises(InvalidParam):
            await filtered(since="x")


async def test_a_summary_is_for_those_who_could_come_in(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        private = await w.room(ada, name="private", topic="plain")
        await put_state(w, ada, private, "m.room.encryption", {"algorithm": "m.megolm.v1.aes-sha2"})

        async def seen(who: Requester | None, room: str) -> dict[str, Any] | None:
            try:
                return await w.store.read(summary.preview, who.user_id if who else None, room)
            except NotFound:
                return None

        assert await seen(ben, private) is None and await seen(None, private) is None
        mine = await seen(ada, private)
        assert mine == {
            "room_id": private, "num_joined_members": 1, "world_readable": False, "guest_can_join": True,
            "join_rule": "invite", "name": "private", "topic": "plain", "room_version": "11",
            "encryption": "m.megolm.v1.aes-sha2", "membership": "join",
        }  # fmt: skip
        await invite.invite(w.author, ada, private, ben.user_id)
        assert (await seen(ben, private) or {})["membership"] == "invite"
        await leave.leave(w.author, w.members, ben, private)
        assert await seen(ben, private) is None
        public = await w.room(ada, "public_chat")
        anonymous = await seen(None, public)
        assert anonymous is not None and "membership" not in anonymous
        assert (await seen(ben, public) or {})["membership"] == "leave"
        knock = await w.room(ada, initial_state=[("m.room.join_rules", "", {"join_rule": "knock"})])
        assert await seen(ben, knock) is not None
        rule = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": public}]}
        restricted = await w.room(ada, initial_state=[("m.room.join_rules", "", rule)])
        assert await seen(ben, restricted) is None and await seen(None, restricted) is None
        await w.join(ben, public)
        assert (await seen(ben, restricted) or {})["allowed_room_ids"] == [public]
        await leave.ban(w.author, ada, public, ben.user_id, None)
        assert await seen(ben, public) is None
        assert await seen(ada, f"#unknown:{SERVER}") is None


async def _space(w: Ward, who: Requester, children: Sequence[str], **wish: Any) -> RoomId:
    space = await w.room(who, "public_chat", creation_content={"type": "m.space"}, **wish)
    for child in children:
        await put_state(w, who, space, "m.space.child", {"via": [SERVER]}, child)
    return space


async def _walk(w: Ward, who: Requester, space: str, **walk: Any) -> list[str]:
    found: list[str] = []
    token = None
    while True:
        wanted = hierarchy.resume(Walk(**walk), token)
        page = await w.store.read(hierarchy.hierarchy, who.user_id, space, wanted)
        found += [entry["room_id"] for entry in page["rooms"]]
        token = page.get("next_batch")
        if token is None:
            return found


async def test_a_space_is_walked_depth_first_without_what_is_hidden(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        leaf, hidden, last = await w.room(ada, "public_chat"), await w.room(ada), await w.room(ada, "public_chat")
        inner = await _space(w, ada, [leaf])
        top = await _space(w, ada, [inner, hidden, last])
        await put_state(w, ada, inner, "m.space.child", {"via": [SERVER]}, top)  # a loop
        await put_state(w, ada, top, "m.space.child", {}, leaf)  # not a child without `via`
        assert await _walk(w, ada, top) == [top, inner, leaf, hidden, last]
        assert await _walk(w, ben, top) == [top, inner, leaf, last]
        for limit in (1, 2, 3):
            assert await _walk(w, ben, top, limit=limit) == [top, inner, leaf, last]
        assert await _walk(w, ada, top, max_depth=1) == [top, inner, hidden, last]
        assert await _walk(w, ada, top, max_depth=0) == [top]
        page = await w.store.read(hierarchy.hierarchy, ben.user_id, top, Walk(limit=1))
        children = page["rooms"][0]["children_state"]
        assert [child["state_key"] for child in children] == [inner, hidden, last]
        assert set(children[0]) == {"type", "state_key", "content", "sender", "origin_server_ts"}
        with pytest.raises(InvalidParam):
            hierarchy.resume(Walk(max_depth=3), page["next_batch"])
        with pytest.raises(InvalidParam):
            hierarchy.resume(Walk(), "nonsense")
        with pytest.raises(Forbidden):
            await w.store.read(hierarchy.hierarchy, ben.user_id, hidden, Walk())


async def test_children_have_the_specified_order_and_can_be_suggested(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada")
        rooms = [await w.room(ada, "public_chat") for _ in range(5)]
        space = await _space(w, ada, [])
        orders: list[dict[str, Any]] = [{}, {"order": "first"}, {"order": "aaaa"}, {"order": " "}, {"order": "\x7f"}]
        for room_id, order in zip(rooms, orders, strict=True):
            await put_state(w, ada, space, "m.space.child", {"via": [SERVER], **order}, room_id)
        assert await _walk(w, ada, space) == [space, rooms[3], rooms[2], rooms[1], rooms[0], rooms[4]]
        await put_state(w, ada, space, "m.space.child", {"via": [SERVER], "suggested": True}, rooms[1])
        assert await _walk(w, ada, space, suggested_only=True) == [space, rooms[1]]


def _arrive(tx: Tx, room_id: str, name: str) -> None:
    """Let a person of another server be in a room."""
    room = rooms.find(tx, room_id)
    assert room is not None
    user_id, server = UserId("@remote:other.example"), ServerName("other.example")
    event = matrix_event.build(
        versions.get(room.version), room_id=room.room_id, type="m.room.member", sender=user_id, state_key=user_id,
        content={"membership": "join", "displayname": name}, origin_server_ts=1, depth=99, prev_events=[],
        auth_events=[], signer=signing.generate("x", b"\1" * 32), server=server,
    )  # fmt: skip
    append.append(tx, room.rid, append.New(event))


async def test_people_of_other_servers_are_found_where_one_could_meet_them(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat")
        await w.store.write(_arrive, room_id, "Ørsted")

        async def found(who: Requester, term: str) -> list[dict[str, str]]:
            return (await w.store.read(user_directory.search, who.user_id, SERVER, term, 10))["results"]

        shown = [{"user_id": "@remote:other.example", "display_name": "Ørsted"}]
        assert await found(ada, "ørst") == await found(ada, "remote") == shown
        assert await found(ben, "ørst") == []
        await w.store.write(directory.set_visibility, ada, room_id, True)
        assert await found(ben, "ørst") == shown
        await w.store.write(directory.add, ada, ALIAS, room_id, 1)
        assert (await w.store.read(directory.resolve, ALIAS, SERVER))["servers"] == [SERVER, "other.example"]


async def test_people_are_found_by_the_beginning_of_their_names(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada = await w.person("ada", "Ada Müller")
        for name, shown in (("mueller.b", "Bernd MÜLLER"), ("x1", "Élodie Petit"), ("gone", "Müller (gone)")):
            await w.store.write(profiles.put, Profile(f"@{name}:{SERVER}", shown, None))
        for name in ("ada", "mueller.b", "x1", "gone"):
            await w.store.write(accounts.insert, f"@{name}:{SERVER}", None, False, 1)
        await w.store.write(accounts.deactivate, f"@gone:{SERVER}", False)

        async def found(term: str, limit: int = 10) -> list[str]:
            answer = await w.store.read(user_directory.search, ada.user_id, SERVER, term, limit)
            return [entry["user_id"] for entry in answer["results"]]

        assert await found("muller") == [f"@mueller.b:{SERVER}"]
        assert await found("MÜLL ber") == [f"@mueller.b:{SERVER}"]
        assert await found("elo") == await found("@x1") == await found(f"@x1:{SERVER}") == [f"@x1:{SERVER}"]
        assert await found("  ") == await found("nobody") == []
        assert await found("ada") == [], "nobody looks for themself"
        answer = await w.store.read(user_directory.search, ada.user_id, SERVER, "e", 1)
        assert answer["limited"] is True and len(answer["results"]) == 1

"""People of another server join, leave and knock over HTTP, with this server as the resident."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from appliance.doors.federation import joins
from appliance.doors.federation.entry import PeerRoute
from appliance.matrix import event as matrix_event
from appliance.matrix import versions
from appliance.matrix.event import Event
from appliance.matrix.ids import RoomId, UserId
from appliance.rooms import invite, leave, send
from appliance.rooms.author import Draft
from appliance.rooms.handshakes import Handshakes
from appliance.rooms.imported import import_join
from appliance.store import outbox
from tests.doors.federation_site import V1, V2, Site, serving
from tests.world.federation import RemoteWard, V, meeting, town


def routes(ward: RemoteWard) -> list[PeerRoute]:
    return joins.routes(Handshakes(ward.receiver, ward.author, ward.key), ward.server)


def complete(ward: RemoteWard, template: Mapping[str, Any], **changes: Any) -> Event:
    """Sign a template as its user's server does."""
    pdu = {**template["event"], **changes}
    return matrix_event.build(
        versions.get(template["room_version"]), signer=ward.key, server=ward.server,
        **{name: pdu[name] for name in (
            "room_id", "type", "sender", "state_key", "content", "origin_server_ts", "depth", "prev_events",
            "auth_events")},
    )  # fmt: skip


def make(kind: str, room_id: RoomId, user_id: UserId) -> str:
    known = "&".join(f"ver={n}" for n in range(6, 13))
    return f"{V1}/make_{kind}/{quote(room_id, safe='')}/{quote(user_id)}?{known}"


def give(kind: str, event: Event, base: str = V2) -> str:
    return f"{base}/send_{kind}/{quote(event.room_id, safe='')}/{quote(event.event_id)}"


async def entered(site: Site, guest: RemoteWard, room_id: RoomId, user_id: UserId) -> Event:
    """Join through the site and take the room in."""
    status, template = await site.ask(guest, "GET", make("join", room_id, user_id))
    assert status == 200, template
    join = complete(guest, template)
    status, found = await site.ask(guest, "PUT", give("join", join), join.pdu)
    assert status == 200, found
    V[room_id] = join.version.name
    receiver = guest.receiver
    await import_join(
        receiver, room_id, join.version, found["event"], found["state"], found["auth_chain"], site.home.server
    )
    return join


@pytest.mark.parametrize("version", ["9", "10", "11", "12"])
async def test_a_join_ends_in_the_same_room_on_both(tmp_path: Path, version: str) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, "public_chat", version=version, name="Station")
        async with serving(a, routes(a)) as site:
            join = await entered(site, b, room_id, ben.user_id)
            assert await a.state(room_id) == await b.state(room_id)
            assert await a.tips(room_id) == await b.tips(room_id) == {join.event_id}
            # The same once more, as after a lost answer, is the same room.
            status, again = await site.ask(b, "PUT", give("join", join), join.pdu)
            assert status == 200 and len(again["state"]) == len(await a.state(room_id)) - 1


@pytest.mark.parametrize("version", ["9", "12"])
async def test_a_restricted_join_carries_our_word(tmp_path: Path, version: str) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        m = await meeting([a, b], version)
        ada, ben = m.people
        rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": m.room_id}]}
        room_id = await a.room(ada, version=version)
        await send.state(a.author, ada, room_id, "m.room.join_rules", "", rules)
        stranger = await b.person("stranger")
        async with serving(a, routes(a)) as site:
            join = await entered(site, b, room_id, ben.user_id)
            assert join.content["join_authorised_via_users_server"] == ada.user_id
            assert await a.state(room_id) == await b.state(room_id)
            status, answer = await site.ask(b, "GET", make("join", room_id, stranger.user_id))
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
            elsewhere = {**rules, "allow": [{"type": "m.room_membership", "room_id": "!far:c.example"}]}
            await send.state(a.author, ada, room_id, "m.room.join_rules", "", elsewhere)
            status, answer = await site.ask(b, "GET", make("join", room_id, stranger.user_id))
            assert (status, answer["errcode"]) == (400, "M_UNABLE_TO_AUTHORISE_JOIN")


async def test_a_forged_word_of_ours_is_not_signed(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, version="11")
        open_room = await a.room(ada, "public_chat", version="11")
        rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": open_room}]}
        await send.state(a.author, ada, room_id, "m.room.join_rules", "", rules)
        content = {"membership": "join", "join_authorised_via_users_server": ada.user_id}
        join = await b.make(a, room_id, ben.user_id, "m.room.member", content, ben.user_id)
        async with serving(a, routes(a)) as site:
            status, answer = await site.ask(b, "PUT", give("join", join), join.pdu)
            assert (status, answer["errcode"]) == (403, "M_FORBIDDEN")
        assert ("m.room.member", ben.user_id) not in await a.state(room_id)


async def test_without_members_their_servers_are_named(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        m = await meeting([a, b])
        late = await c.person("late")
        async with serving(a, routes(a)) as site:
            _, template = await site.ask(c, "GET", make("join", m.room_id, late.user_id))
            join = complete(c, template)
            status, found = await site.ask(c, "PUT", give("join", join) + "?omit_members=true", join.pdu)
            assert status == 200 and found["members_omitted"] is True
            assert found["servers_in_room"] == [a.server, b.server]
            assert not [pdu for pdu in found["state"] if pdu["type"] == "m.room.member"]
            version = versions.get("11")
            chain = {matrix_event.event_id_of(pdu, version) for pdu in found["auth_chain"]}
            assert set(join.auth_events) <= chain
        # The third server in the room is owed the join, the one that brought it is not.
        assert await a.store.read(outbox.owed, b.server) == 1 and await a.store.read(outbox.owed, c.server) == 0


async def test_an_invitation_is_refused_and_a_member_leaves(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada)
        head = await a.author.head(room_id)
        shown = await invite.shown_state(a.author, head, ada.user_id)
        draft = Draft("m.room.member", ada.user_id, {"membership": "invite"}, ben.user_id, shown=shown)
        await a.author.add(room_id, draft)
        async with serving(a, routes(a)) as site:
            status, template = await site.ask(b, "GET", make("leave", room_id, ben.user_id))
            assert status == 200
            event = complete(b, template)
            assert await site.ask(b, "PUT", give("leave", event), event.pdu) == (200, {})
            assert (await a.state(room_id))["m.room.member", ben.user_id] == event.event_id
            assert (await site.ask(b, "GET", make("leave", room_id, ben.user_id)))[0] == 403


async def test_a_knock(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b") as (a, b):
        ada, ben = await a.person("ada"), await b.person("ben")
        room_id = await a.room(ada, name="Station")
        async with serving(a, routes(a)) as site:
            assert (await site.ask(b, "GET", make("knock", room_id, ben.user_id)))[0] == 403
            await send.state(a.author, ada, room_id, "m.room.join_rules", "", {"join_rule": "knock"})
            _, template = await site.ask(b, "GET", make("knock", room_id, ben.user_id))
            event = complete(b, template)
            status, found = await site.ask(b, "PUT", give("knock", event, V1), event.pdu)
            assert status == 200
            assert "Station" in [one["content"].get("name") for one in found["knock_room_state"]]
            assert (await a.state(room_id))["m.room.member", ben.user_id] == event.event_id


async def test_who_may_not_come_in(tmp_path: Path) -> None:
    async with town(tmp_path, "a", "b", "c") as (a, b, c):
        ada, ben = await a.person("ada"), await b.person("ben")
        private, public = await a.room(ada), await a.room(ada, "public_chat", version="11")
        async with serving(a, routes(a)) as site:
            assert (await site.ask(b, "GET", make("join", private, ben.user_id)))[0] == 403
            assert (await site.ask(b, "GET", make("join", RoomId("!x:a.example"), ben.user_id)))[0] == 404
            assert (await site.ask(c, "GET", make("join", public, ben.user_id)))[0] == 403
            old = make("join", public, ben.user_id).split("?")[0]
            status, answer = await site.ask(b, "GET", old)
            assert (status, answer["errcode"], answer["room_version"]) == (400, "M_INCOMPATIBLE_ROOM_VERSION", "11")
            _, template = await site.ask(b, "GET", make("join", public, ben.user_id))
            good = complete(b, template)
            wrong = complete(b, template, content={"membership": "leave"})
            other = complete(b, template, sender="@x:c.example", state_key="@x:c.example")
            about = complete(b, template, state_key="@y:b.example")
            for event, status in ((wrong, 400), (other, 403), (about, 400)):
                assert (await site.ask(b, "PUT", give("join", event), event.pdu))[0] == status
            assert (await site.ask(b, "PUT", give("join", wrong), good.pdu))[0] == 400
            assert (await site.ask(b, "PUT", give("join", good), {**good.pdu, "signatures": {}}))[0] == 400
            assert (await site.ask(b, "PUT", give("join", good), {}))[0] == 400
            await leave.ban(a.author, ada, public, ben.user_id, None)
            assert (await site.ask(b, "GET", make("join", public, ben.user_id)))[0] == 403
            assert (await site.ask(b, "PUT", give("join", good), good.pdu))[0] == 403
            await send.state(a.author, ada, public, "m.room.server_acl", "", {"allow": ["a.*", "c.*"]})
            assert (await site.ask(b, "PUT", give("join", good), good.pdu))[0] == 403

"""Everything else that matrix-nio can ask of a server: each call answers as nio expects it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from nio import EnableEncryptionBuilder, ErrorResponse, MessageDirection, PushRuleKind
from nio.api import RoomPreset, RoomVisibility
from nio.responses import Response, RoomThreadsResponse

from tests.clients.telephone import Telephone
from tests.world.client import PASSWORD, Client, session, transaction_id
from tests.world.server import Homeserver, homeserver


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homeserver]:
    server = homeserver(tmp_path_factory.mktemp("tour") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def pair(server: Homeserver, tmp_path: Path) -> AsyncIterator[tuple[Telephone, Telephone]]:
    phones = []
    async with session() as http:
        for name in ("ada", "bob"):
            one = await Client(http, server.base).register(f"{name}{transaction_id()}")
            phones.append(Telephone(server.base, one.user_id, tmp_path / name))
            await phones[-1].log_in(PASSWORD, name)
    yield phones[0], phones[1]
    for phone in phones:
        await phone.leave_the_line()
        assert not phone.unknown_endpoints()


async def good(call: Any) -> Any:
    """Await one nio call and see that it is not an error."""
    answer = await call
    assert isinstance(answer, Response)
    assert not isinstance(answer, ErrorResponse), answer
    return answer


async def test_rooms(pair: tuple[Telephone, Telephone]) -> None:
    ada, bob = (phone.client for phone in pair)
    domain = ada.user_id.split(":", 1)[1]
    alias = f"tour{transaction_id()}"
    made = await good(ada.room_create(visibility=RoomVisibility.public, alias=alias, preset=RoomPreset.public_chat))
    room = made.room_id
    await good(bob.join(f"#{alias}:{domain}"))
    await pair[0].sees_joining(room, bob.user_id)
    sent = await good(ada.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "tour"}))
    for call in (
        ada.room_get_event(room, sent.event_id),
        ada.room_context(room, sent.event_id),
        ada.room_get_state(room),
        ada.room_get_state_event(room, "m.room.create"),
        ada.room_put_state(room, "m.room.topic", {"topic": "x"}),
        ada.update_room_topic(room, "y"),
        ada.room_messages(room, ada.next_batch, limit=5),
        ada.room_messages(room, "", limit=5),
        ada.room_messages(room, ada.next_batch, limit=5, direction=MessageDirection.front),
        ada.room_typing(room, True, 3000),
        ada.room_read_markers(room, sent.event_id, sent.event_id),
        ada.update_receipt_marker(room, sent.event_id),
        ada.joined_members(room),
        ada.joined_rooms(),
        ada.list_public_rooms(limit=3),
        ada.room_get_visibility(room),
        ada.room_resolve_alias(f"#{alias}:{domain}"),
        ada.room_put_alias(f"#{alias}2:{domain}", room),
        ada.room_delete_alias(f"#{alias}2:{domain}"),
        ada.space_get_hierarchy(room),
        ada.room_redact(room, sent.event_id, "tour over"),
        ada.room_kick(room, bob.user_id, "tour"),
        ada.room_ban(room, bob.user_id),
        ada.room_unban(room, bob.user_id),
        ada.room_invite(room, bob.user_id),
        bob.join(room),
        bob.room_leave(room),
        bob.room_forget(room),
        ada.room_enable_knocking(room),
        bob.room_knock(room, "may I?"),
    ):
        await good(call)


async def test_relations(pair: tuple[Telephone, Telephone]) -> None:
    ada = pair[0].client
    room = (await good(ada.room_create())).room_id
    await pair[0].sees_joining(room, ada.user_id)
    root = (await good(ada.room_send(room, "m.room.message", {"msgtype": "m.text", "body": "root"}))).event_id
    inside = {"msgtype": "m.text", "body": "inside", "m.relates_to": {"rel_type": "m.thread", "event_id": root}}
    child = (await good(ada.room_send(room, "m.room.message", inside))).event_id
    assert [event.event_id async for event in ada.room_get_event_relations(room, root)] == [child]
    threads = [event async for event in ada.room_get_threads(room)]
    assert not isinstance(threads, RoomThreadsResponse)
    assert [event.event_id for event in threads] == [root]


async def test_the_account(pair: tuple[Telephone, Telephone]) -> None:
    ada, bob = (phone.client for phone in pair)
    for call in (
        ada.whoami(),
        ada.set_displayname("Ada"),
        ada.set_avatar("mxc://localhost/abc"),
        bob.get_profile(ada.user_id),
        bob.get_displayname(ada.user_id),
        bob.get_avatar(ada.user_id),
        ada.set_presence("unavailable", "in theatre"),
        bob.get_presence(bob.user_id),
        ada.devices(),
        ada.update_device(ada.device_id, {"display_name": "new"}),
        ada.get_openid_token(ada.user_id),
        ada.content_repository_config(),
        ada.upload_filter(room={"timeline": {"limit": 3}}),
        ada.login_info(),
        ada.discovery_info(),
        ada.set_pushrule("global", PushRuleKind.content, "stat", actions=[], pattern="stat"),
        ada.enable_pushrule("global", PushRuleKind.content, "stat", False),
        ada.set_pushrule_actions("global", PushRuleKind.content, "stat", []),
        ada.delete_pushrule("global", PushRuleKind.content, "stat"),
    ):
        await good(call)


async def test_devices_are_deleted_and_logged_out(pair: tuple[Telephone, Telephone]) -> None:
    phone, other = pair
    second = Telephone(phone.base, phone.user_id, phone.store.parent / "second")
    device = await second.log_in(PASSWORD, "second")
    await second.leave_the_line()
    asked = await phone.client.delete_devices([device])
    auth = {"type": "m.login.password", "session": asked.session, "password": PASSWORD}
    auth["identifier"] = {"type": "m.id.user", "user": phone.user_id}
    await good(phone.client.delete_devices([device], auth))
    await good(other.client.logout())


async def test_an_encrypted_room_from_the_start(pair: tuple[Telephone, Telephone]) -> None:
    ada = pair[0]
    state = [EnableEncryptionBuilder().as_dict()]
    room = (await good(ada.client.room_create(initial_state=state, invite=[pair[1].user_id]))).room_id
    await pair[1].accept(room)
    await ada.sees_member(room, pair[1].user_id)
    await ada.say(room, "hello")
    await pair[1].read(room, "hello")

"""Real clients (matrix-nio with vodozemac): two people, two devices each, end-to-end encrypted."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from nio import MegolmEvent, RoomMemberEvent, RoomMessageText
from PIL import Image

from tests.clients.key_backup import Safe
from tests.clients.telephone import Telephone
from tests.world.client import PASSWORD, Client, session, transaction_id
from tests.world.server import Homeserver, homeserver


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homeserver]:
    server = homeserver(tmp_path_factory.mktemp("clients") / "data")
    server.start()
    yield server
    server.stop()


@dataclass(slots=True)
class Ward:
    """Ada and Bob, and whatever telephones they have taken out."""

    server: Homeserver
    folder: Path
    ada: str
    bob: str
    phones: list[Telephone] = field(default_factory=list)

    def take(self, user_id: str, name: str) -> Telephone:
        phone = Telephone(self.server.base, user_id, self.folder / user_id[1:].split(":")[0] / name)
        self.phones.append(phone)
        return phone

    async def phone(self, user_id: str, name: str) -> Telephone:
        """Take out a new telephone and log in with it."""
        phone = self.take(user_id, name)
        await phone.log_in(PASSWORD, name)
        return phone

    async def room(self, first: Telephone, second: Telephone) -> str:
        """Open an encrypted room between two telephones and wait until the first knows the second's devices."""
        room = await first.open_encrypted_room("Station 3", second.user_id)
        await second.accept(room)
        await first.sees_member(room, second.user_id)
        await second.sees_member(room, second.user_id)
        return room


@pytest.fixture
async def ward(server: Homeserver, tmp_path: Path) -> AsyncIterator[Ward]:
    async with session() as http:
        ada, bob = [(await Client(http, server.base).register(f"{n}{transaction_id()}")) for n in ("ada", "bob")]
    ward = Ward(server, tmp_path, ada.user_id, bob.user_id)
    yield ward
    for phone in ward.phones:
        await phone.leave_the_line()
    unknown = [call for phone in ward.phones for call in phone.unknown_endpoints()]
    assert not unknown, f"the client asked for endpoints that the server does not know: {unknown}"


async def test_two_people_with_two_devices_each_read_everything(ward: Ward) -> None:
    ada, ada2 = await ward.phone(ward.ada, "phone"), await ward.phone(ward.ada, "tablet")
    bob, bob2 = await ward.phone(ward.bob, "phone"), await ward.phone(ward.bob, "tablet")
    room = await ward.room(ada, bob)
    for phone in (ada2, bob2):
        await phone.heard(RoomMemberEvent, room, lambda event: event.state_key == ward.bob)
    for number, phone in enumerate((ada, bob2, ada2, bob)):
        text = f"message {number}"
        await phone.say(room, text)
        for reader in (ada, ada2, bob, bob2):
            if reader is not phone:
                event = await reader.read(room, text)
                assert event.decrypted
                assert event.sender == phone.user_id
    assert not [event for phone in ward.phones for event in phone.undecrypted(room)]


async def test_a_rotated_key_reaches_everybody_who_is_still_there(ward: Ward) -> None:
    ada, bob = await ward.phone(ward.ada, "phone"), await ward.phone(ward.bob, "phone")
    room = await ward.room(ada, bob)
    await ada.say(room, "before")
    await bob.read(room, "before")
    first = ada.session_id(room)
    await ada.throw_away_session(room)
    await ada.say(room, "after")
    assert ada.session_id(room) != first
    await bob.read(room, "after")
    tablet = await ward.phone(ward.bob, "tablet")  # a new device: the next session is shared with it, too
    await ada.hears_of_device(tablet)
    await ada.throw_away_session(room)
    await ada.say(room, "with the tablet")
    await tablet.read(room, "with the tablet")
    await bob.client.room_leave(room)
    await ada.heard(RoomMemberEvent, room, lambda event: event.state_key == ward.bob and event.membership == "leave")
    await ada.say(room, "without bob")
    assert ada.session_id(room) != first
    assert (ward.bob, str(bob.client.device_id)) not in ada.client.olm.outbound_group_sessions[room].users_shared_with


async def test_a_late_device_reads_history_from_the_backup(ward: Ward) -> None:
    ada, bob = await ward.phone(ward.ada, "phone"), await ward.phone(ward.bob, "phone")
    room = await ward.room(ada, bob)
    said = []
    for number in range(6):
        speaker, listener = (ada, bob) if number % 2 else (bob, ada)
        if number == 3:
            await ada.throw_away_session(room)
        said.append(f"history {number}")
        await speaker.say(room, said[-1])
        await listener.read(room, said[-1])
    safe = Safe(ada, PASSWORD)
    await safe.set_up()
    assert await safe.put_in() == 3
    late = await ward.phone(ward.ada, "late tablet")
    locked = await late.read_back(room, lambda events: len([e for e in events if isinstance(e, MegolmEvent)]) >= 6)
    assert not [event for event in locked if isinstance(event, RoomMessageText)], "the late device has no key yet"
    assert await safe.open_with(late) == 3
    events = await late.read_back(room, lambda events: len([e for e in events if isinstance(e, RoomMessageText)]) >= 6)
    assert [event.body for event in events if isinstance(event, RoomMessageText)][::-1] == said


async def test_a_picture_arrives_and_the_server_holds_only_its_cipher(ward: Ward) -> None:
    ada, bob = await ward.phone(ward.ada, "phone"), await ward.phone(ward.bob, "phone")
    room = await ward.room(ada, bob)
    out = io.BytesIO()
    Image.linear_gradient("L").resize((320, 200)).save(out, "PNG")
    await ada.show(room, "x-ray.png", out.getvalue(), (320, 200))
    assert await bob.look(room, "x-ray.png") == out.getvalue()
    files = [path for path in ward.server.data.rglob("*") if path.is_file()]
    assert not [path for path in files if out.getvalue()[16:80] in path.read_bytes()], "the picture lies there in clear"


async def test_closing_the_lid_loses_nothing(ward: Ward) -> None:
    ada, bob = await ward.phone(ward.ada, "phone"), await ward.phone(ward.bob, "phone")
    room = await ward.room(ada, bob)
    await ada.say(room, "before the lid")
    await bob.read(room, "before the lid")
    known = await bob.close_the_lid()
    said = [f"in the dark {number}" for number in range(40)]
    for number, text in enumerate(said):
        if number in (10, 20):
            await ada.throw_away_session(room)  # two new keys wait for the closed telephone as to-device messages
        await ada.say(room, text)
    again = ward.take(ward.bob, "phone")
    await again.open_the_lid(*known)
    await again.read(room, said[-1])
    live = again.texts(room)
    missing = len(said) - len(live)
    earlier: list[str] = []
    if missing > 0:
        assert room in again.gaps, "a shortened timeline says so (limited)"
        back = await again.read_back(room, lambda events: len(events) >= missing)
        earlier = [event.body for event in back if isinstance(event, RoomMessageText)][:missing][::-1]
    assert earlier + live == said
    assert not again.undecrypted(room)
    await again.say(room, "back again")
    await ada.read(room, "back again")


async def test_a_telephone_that_comes_and_goes_gets_every_message_once(ward: Ward) -> None:
    ada, bob = await ward.phone(ward.ada, "phone"), await ward.phone(ward.bob, "phone")
    room = await ward.room(ada, bob)
    said, got = [], []
    for turn in range(4):
        known = await bob.close_the_lid()
        for number in range(3):
            said.append(f"turn {turn} message {number}")
            await ada.say(room, said[-1])
        bob = ward.take(ward.bob, "phone")
        await bob.open_the_lid(*known)
        await bob.read(room, said[-1])
        got += bob.texts(room)
    assert got == said

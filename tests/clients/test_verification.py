"""Two people compare seven pictures (SAS verification): to-device messages both ways, in order, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nio import (
    KeyVerificationAccept,
    KeyVerificationCancel,
    KeyVerificationEvent,
    KeyVerificationKey,
    KeyVerificationMac,
    KeyVerificationStart,
)

from tests.clients.telephone import Telephone
from tests.world.client import PASSWORD, Client, session, transaction_id
from tests.world.people import PATIENCE
from tests.world.server import Homeserver, homeserver


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homeserver]:
    server = homeserver(tmp_path_factory.mktemp("verification") / "data")
    server.start()
    yield server
    server.stop()


class Verifier:
    """One side of a verification: answers each step as a telephone does while its owner watches."""

    def __init__(self, phone: Telephone) -> None:
        self.phone, self.client = phone, phone.client
        self.steps: list[str] = []
        self.pictures: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self.transaction = ""
        self.finished = asyncio.Event()
        self.client.add_to_device_callback(self._step, KeyVerificationEvent)

    async def _step(self, event: KeyVerificationEvent) -> None:
        self.steps.append(type(event).__name__)
        self.transaction = event.transaction_id
        match event:
            case KeyVerificationStart():
                await self.client.accept_key_verification(event.transaction_id)
            case KeyVerificationAccept():
                await self.client.send_to_device_messages()
            case KeyVerificationKey():
                await self.client.send_to_device_messages()
                self.pictures.set_result(self._sas.get_emoji())
            case KeyVerificationMac():
                self.finished.set()
            case KeyVerificationCancel():
                self.pictures.cancel(f"cancelled: {event.reason}")

    @property
    def _sas(self) -> Any:
        return self.client.key_verifications[self.transaction]

    async def agree(self) -> None:
        await self.client.confirm_short_auth_string(self.transaction)


async def test_two_people_compare_pictures(server: Homeserver, tmp_path: Path) -> None:
    phones = []
    async with session() as http:
        for name in ("ada", "bob"):
            one = await Client(http, server.base).register(f"{name}{transaction_id()}")
            phones.append(Telephone(server.base, one.user_id, tmp_path / name))
            await phones[-1].log_in(PASSWORD, name)
    ada, bob = phones
    room = await ada.open_encrypted_room("verify", bob.user_id)
    await bob.accept(room)
    await ada.sees_member(room, bob.user_id)
    await bob.sees_member(room, bob.user_id)
    await ada.say(room, "hello")
    await bob.read(room, "hello")
    left, right = Verifier(ada), Verifier(bob)
    device = ada.client.device_store[bob.user_id][str(bob.client.device_id)]
    await ada.client.start_key_verification(device)
    async with asyncio.timeout(PATIENCE):
        assert await left.pictures == await right.pictures
        await asyncio.gather(left.agree(), right.agree())
        await asyncio.gather(left.finished.wait(), right.finished.wait())
    assert ada.client.device_store[bob.user_id][str(bob.client.device_id)].verified
    assert bob.client.device_store[ada.user_id][str(ada.client.device_id)].verified
    assert left.steps == ["KeyVerificationAccept", "KeyVerificationKey", "KeyVerificationMac"]
    assert right.steps == ["KeyVerificationStart", "KeyVerificationKey", "KeyVerificationMac"]
    for phone in phones:
        await phone.leave_the_line()
        assert not phone.unknown_endpoints()

"""People with real encrypted clients (matrix-nio with vodozemac): what a nurse's telephone does, without the telephone.

A `Person` keeps listening in the background as an app does. Waiting for something is `await person.heard(...)`: it
returns when the thing has arrived *and was decrypted by this person's own device*.
"""

import asyncio
import hashlib
import hmac
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from nio import (
    AsyncClient,
    AsyncClientConfig,
    Event,
    InviteMemberEvent,
    JoinError,
    LoginResponse,
    MegolmEvent,
    RoomCreateResponse,
    RoomEncryptedImage,
    RoomMessageText,
    RoomSendResponse,
    UploadResponse,
)
from nio.api import RoomPreset
from nio.crypto import decrypt_attachment

E = TypeVar("E")
PATIENCE = 30  # seconds; far beyond anything a healthy house on loopback needs


class Refused(RuntimeError):
    """The server answered a client with an error; the message carries that answer."""


async def provision(base: str, secret: str, localpart: str, password: str, display_name: str) -> str:
    """Create an account with the laboratory's shared secret (nonce and HMAC-SHA1); return the user id."""
    url = f"{base}/_synapse/admin/v1/register"
    async with aiohttp.ClientSession() as http:
        async with http.get(url) as answer:
            nonce = (await answer.json())["nonce"]
        signed = b"\x00".join(part.encode() for part in (nonce, localpart, password, "notadmin"))
        body = {
            "nonce": nonce,
            "username": localpart,
            "displayname": display_name,
            "password": password,
            "admin": False,
            "mac": hmac.new(secret.encode(), signed, hashlib.sha1).hexdigest(),
        }
        async with http.post(url, json=body) as answer:
            if answer.status != 200:
                raise Refused(f"{localpart}: HTTP {answer.status} {await answer.text()}")
            return str((await answer.json())["user_id"])


class Person:
    """One person with one encrypted device."""

    def __init__(self, base: str, user_id: str, store: Path) -> None:
        store.mkdir(parents=True, exist_ok=True)
        config = AsyncClientConfig(encryption_enabled=True, store_sync_tokens=True)
        self.base = base
        self.user_id = user_id
        self.client = AsyncClient(base, user_id, store_path=str(store), config=config)
        self._heard: list[tuple[str, Any]] = []
        self._news = asyncio.Condition()
        self._listening: asyncio.Task[None] | None = None

    async def log_in(self, password: str, device_name: str) -> str:
        """Log in as a new device, publish its keys and begin to listen; return the device id."""
        answer = await self.client.login(password, device_name=device_name)
        if not isinstance(answer, LoginResponse):
            raise Refused(str(answer))
        for kind in (Event, InviteMemberEvent):
            self.client.add_event_callback(self._remember, kind)
        await self.client.sync(timeout=0, full_state=True)
        if self.client.should_upload_keys:
            await self.client.keys_upload()
        self._listening = asyncio.create_task(self.client.sync_forever(timeout=10_000))
        return str(self.client.device_id)

    async def leave_the_line(self) -> None:
        """Stop listening and close the connections; the device keeps its keys."""
        if self._listening:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        await self.client.close()

    async def _remember(self, room: Any, event: Any) -> None:
        async with self._news:
            self._heard.append((room.room_id, event))
            self._news.notify_all()

    async def heard(self, kind: type[E], room_id: str, fits: Callable[[E], bool] = lambda event: True) -> E:
        """Wait until an event of this kind has arrived (and was decrypted) in the room; return it."""

        def found() -> E | None:
            return next((e for room, e in self._heard if room == room_id and isinstance(e, kind) and fits(e)), None)

        try:
            async with asyncio.timeout(PATIENCE), self._news:
                await self._news.wait_for(found)
        except TimeoutError:
            locked = sum(isinstance(event, MegolmEvent) for _, event in self._heard)
            ended = self._listening.exception() if self._listening and self._listening.done() else None
            missed = f"{self.user_id} waited {PATIENCE} s for {kind.__name__}; undecryptable events: {locked}"
            raise Refused(missed) from ended
        event = found()
        assert event is not None
        return event

    async def find(self, term: str) -> list[dict[str, str]]:
        """Search the user directory; return the results as the server gives them."""
        url = f"{self.base}/_matrix/client/v3/user_directory/search"
        headers = {"Authorization": f"Bearer {self.client.access_token}"}
        async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json={"search_term": term}) as answer:
            if answer.status != 200:
                raise Refused(f"user directory: HTTP {answer.status} {await answer.text()}")
            return list((await answer.json())["results"])

    async def open_encrypted_room(self, name: str, other: str) -> str:
        """Create a private encrypted room with one other person invited; return the room id."""
        encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
        answer = await self.client.room_create(
            name=name,
            is_direct=True,
            preset=RoomPreset.trusted_private_chat,
            invite=[other],
            initial_state=[encryption],
        )
        if not isinstance(answer, RoomCreateResponse):
            raise Refused(str(answer))
        return str(answer.room_id)

    async def accept(self, room_id: str) -> None:
        """Wait for the invitation to a room and accept it."""
        await self.heard(InviteMemberEvent, room_id, lambda event: event.state_key == self.user_id)
        answer = await self.client.join(room_id)
        if isinstance(answer, JoinError):
            raise Refused(str(answer))

    async def sees_member(self, room_id: str, other: str) -> None:
        """Wait until this device has seen the other join, in an encrypted room, and knows the other's devices."""

        def joined(event: Any) -> bool:
            return bool(getattr(event, "state_key", None) == other and getattr(event, "membership", None) == "join")

        await self.heard(Event, room_id, joined)
        if self.client.should_query_keys:
            await self.client.keys_query()
        if not self.client.rooms[room_id].encrypted:
            raise Refused(f"{self.user_id} sees {room_id} without encryption")

    async def _send(self, room_id: str, content: dict[str, Any]) -> str:
        answer = await self.client.room_send(room_id, "m.room.message", content, ignore_unverified_devices=True)
        if not isinstance(answer, RoomSendResponse):
            raise Refused(str(answer))
        return str(answer.event_id)

    async def say(self, room_id: str, text: str) -> str:
        """Encrypt and send a text; return the event id."""
        return await self._send(room_id, {"msgtype": "m.text", "body": text})

    async def read(self, room_id: str, text: str) -> RoomMessageText:
        """Wait until this text has arrived and was decrypted with a key this device received."""
        return await self.heard(RoomMessageText, room_id, lambda event: event.decrypted and event.body == text)

    async def show(self, room_id: str, name: str, picture: bytes, size: tuple[int, int]) -> str:
        """Encrypt a PNG, upload it and send it; return the event id."""
        answer, keys = await self.client.upload(
            io.BytesIO(picture), content_type="image/png", filename=name, encrypt=True, filesize=len(picture)
        )
        if not isinstance(answer, UploadResponse) or keys is None:
            raise Refused(str(answer))
        info = {"mimetype": "image/png", "size": len(picture), "w": size[0], "h": size[1]}
        file = {**keys, "url": answer.content_uri}
        return await self._send(room_id, {"msgtype": "m.image", "body": name, "info": info, "file": file})

    async def look(self, room_id: str, name: str) -> bytes:
        """Wait for a picture, download it and decrypt it; return the bytes the sender had."""
        event = await self.heard(RoomEncryptedImage, room_id, lambda event: event.body == name)
        answer = await self.client.download(mxc=event.url)
        if not hasattr(answer, "body") or not isinstance(answer.body, bytes):
            raise Refused(str(answer))
        clear = decrypt_attachment(answer.body, event.key["k"], event.hashes["sha256"], event.iv)
        return bytes(clear)

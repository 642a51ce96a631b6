"""Server-side key backup and cross-signing with real cryptography, as a client that knows them does it.

matrix-nio has neither, so its room keys are taken out of its store, encrypted to the backup's public key
(m.megolm_backup.v1.curve25519-aes-sha2) and put on the server; a late device of the same person takes them from there
into its own nio store. Only what the recovery key opens leaves the server readable.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

import vodozemac
from nacl.signing import VerifyKey
from nio.crypto import InboundGroupSession

from tests.clients.telephone import Telephone
from tests.world.client import Client, session
from tests.world.keys import CrossSigning

ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
MEGOLM = "m.megolm.v1.aes-sha2"


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """What the person writes down: the private key of the backup."""

    private: vodozemac.PkDecryption

    @property
    def public(self) -> str:
        return str(self.private.public_key.to_base64())


def sealed(phone: Telephone, key: RecoveryKey) -> dict[str, Any]:
    """Return every room key of a device as the `rooms` of a backup."""
    assert phone.client.olm is not None
    rooms: dict[str, Any] = {}
    seal = vodozemac.PkEncryption.from_key(key.private.public_key)
    for room_key in phone.client.olm.inbound_group_store:
        clear = {
            "algorithm": MEGOLM,
            "sender_key": room_key.sender_key,
            "sender_claimed_keys": {"ed25519": room_key.ed25519},
            "forwarding_curve25519_key_chain": room_key.forwarding_chain,
            "session_key": room_key.export_session(room_key.first_known_index),
        }
        ciphertext, mac, ephemeral = seal.encrypt(json.dumps(clear).encode()).to_base64()
        rooms.setdefault(room_key.room_id, {"sessions": {}})["sessions"][room_key.id] = {
            "first_message_index": room_key.first_known_index,
            "forwarded_count": len(room_key.forwarding_chain),
            "is_verified": True,
            "session_data": {"ciphertext": ciphertext, "mac": mac, "ephemeral": ephemeral},
        }
    return rooms


def opened(data: dict[str, str], key: RecoveryKey) -> dict[str, Any]:
    """Return the clear text of one backed-up room key."""
    message = vodozemac.Message.from_base64(data["ephemeral"], data["mac"], data["ciphertext"])
    clear = json.loads(key.private.decrypt(message))
    assert isinstance(clear, dict)
    return clear


def take_in(phone: Telephone, rooms: dict[str, Any], key: RecoveryKey) -> int:
    """Put the room keys of a backup into the device's store; return how many were new to it."""
    olm, new = phone.client.olm, 0
    assert olm is not None
    for room_id, room in rooms.items():
        for room_key in room["sessions"].values():
            clear = opened(room_key["session_data"], key)
            claimed = clear["sender_claimed_keys"]["ed25519"]
            got = InboundGroupSession.import_session(clear["session_key"], claimed, clear["sender_key"], room_id)
            if olm.inbound_group_store.get(room_id, got.sender_key, got.id) is None:
                olm.inbound_group_store.add(got)
                olm.save_inbound_group_session(got)
                new += 1
    return new


def verify(value: dict[str, Any], user: str, public: str) -> None:
    """Raise if the object is not signed by this Ed25519 key of the user."""
    bare = {name: part for name, part in value.items() if name not in ("signatures", "unsigned")}
    raw = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    signature = value["signatures"][user][f"ed25519:{public}"]
    VerifyKey(base64.b64decode(public + "==")).verify(raw, base64.b64decode(signature + "=="))


class Safe:
    """One person's cross-signing identity and backup, driven through the endpoints with one device's token."""

    def __init__(self, phone: Telephone, password: str) -> None:
        self.phone, self.password = phone, password
        self.identity = CrossSigning(phone.user_id)
        self.key = RecoveryKey(vodozemac.PkDecryption())
        self.version = ""

    def _client(self, http: Any, phone: Telephone) -> Client:
        client = Client(http, phone.base)
        client.token, client.user_id = str(phone.client.access_token), phone.user_id
        return client

    async def set_up(self) -> None:
        """Publish the cross-signing keys, sign the own device, make a backup version signed by the master key."""
        async with session() as http:
            client = self._client(http, self.phone)
            await client.call("POST", "/v3/keys/device_signing/upload", self.identity.upload())
            query: dict[str, Any] = {"device_keys": {self.phone.user_id: []}}
            devices = (await client.call("POST", "/v3/keys/query", query))["device_keys"][self.phone.user_id]
            device_id = str(self.phone.client.device_id)
            signed = self.identity.signed({**devices[device_id]}, "self_signing")
            signed.pop("unsigned", None)
            upload = {self.phone.user_id: {device_id: signed}}
            assert not (await client.call("POST", "/v3/keys/signatures/upload", upload)).get("failures")
            auth = self.identity.signed({"public_key": self.key.public}, "master")
            made = await client.call("POST", "/v3/room_keys/version", {"algorithm": ALGORITHM, "auth_data": auth})
            self.version = str(made["version"])

    async def put_in(self) -> int:
        """Back up every room key the telephone has; return how many the server now holds."""
        async with session() as http:
            client = self._client(http, self.phone)
            rooms = sealed(self.phone, self.key)
            params = {"version": self.version}
            got = await client.call("PUT", "/v3/room_keys/keys", {"rooms": rooms}, params=params)
        return int(got["count"])

    async def open_with(self, phone: Telephone) -> int:
        """Let another device of the person check the backup's signature and take the keys in."""
        async with session() as http:
            client = self._client(http, phone)
            query = await client.call("POST", "/v3/keys/query", {"device_keys": {phone.user_id: []}})
            master = next(iter(query["master_keys"][phone.user_id]["keys"].values()))
            current = await client.call("GET", "/v3/room_keys/version")
            verify(current["auth_data"], phone.user_id, master)
            device = query["device_keys"][phone.user_id][str(self.phone.client.device_id)]
            own = next(iter(query["self_signing_keys"][phone.user_id]["keys"].values()))
            verify(query["self_signing_keys"][phone.user_id], phone.user_id, master)
            verify(device, phone.user_id, own)
            params = {"version": current["version"]}
            got = await client.call("GET", "/v3/room_keys/keys", params=params)
        return take_in(phone, got["rooms"], self.key)

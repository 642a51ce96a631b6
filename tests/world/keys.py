"""A device's encryption keys as a client publishes them: real Ed25519 and Curve25519 keys, really signed."""

from __future__ import annotations

import base64
import json
from typing import Any

from nacl.public import PrivateKey
from nacl.signing import SigningKey

ALGORITHMS = ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"]


def unpadded(raw: bytes) -> str:
    """Return unpadded base64, as the specification writes keys and signatures."""
    return base64.b64encode(raw).decode().rstrip("=")


def sign(value: dict[str, Any], user: str, key_name: str, key: SigningKey) -> dict[str, Any]:
    """Return the object with one more signature over its canonical form (appendices, Signing JSON)."""
    bare = {name: part for name, part in value.items() if name not in ("signatures", "unsigned")}
    raw = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    theirs = {**value.get("signatures", {})}
    theirs[user] = {**theirs.get(user, {}), f"ed25519:{key_name}": unpadded(key.sign(raw).signature)}
    return {**value, "signatures": theirs}


class DeviceKeys:
    """The identity of one device and the one-time keys it makes."""

    def __init__(self, user_id: str, device_id: str) -> None:
        self.user_id, self.device_id = user_id, device_id
        self.ed25519 = SigningKey.generate()
        self.curve25519 = PrivateKey.generate()
        self._made = 0

    def device_keys(self) -> dict[str, Any]:
        keys = {
            f"curve25519:{self.device_id}": unpadded(bytes(self.curve25519.public_key)),
            f"ed25519:{self.device_id}": unpadded(bytes(self.ed25519.verify_key)),
        }
        body = {"user_id": self.user_id, "device_id": self.device_id, "algorithms": ALGORITHMS, "keys": keys}
        return sign(body, self.user_id, self.device_id, self.ed25519)

    def one_time_keys(self, count: int, *, fallback: bool = False) -> dict[str, Any]:
        """Return that many new signed keys by their key id; no id is ever used twice."""
        made = {}
        for _ in range(count):
            self._made += 1
            key: dict[str, Any] = {"key": unpadded(bytes(PrivateKey.generate().public_key))}
            if fallback:
                key["fallback"] = True
            made[f"signed_curve25519:K{self._made:06d}"] = sign(key, self.user_id, self.device_id, self.ed25519)
        return made


class CrossSigning:
    """The three keys of one user: master, self-signing and user-signing."""

    def __init__(self, user_id: str) -> None:
        self.user_id = user_id
        self.keys = {usage: SigningKey.generate() for usage in ("master", "self_signing", "user_signing")}

    def public(self, usage: str) -> str:
        return unpadded(bytes(self.keys[usage].verify_key))

    def upload(self) -> dict[str, Any]:
        """Return the body of /keys/device_signing/upload, without `auth`."""
        body = {}
        for usage in self.keys:
            key = {
                "user_id": self.user_id,
                "usage": [usage],
                "keys": {f"ed25519:{self.public(usage)}": self.public(usage)},
            }
            signed = key if usage == "master" else self.signed(key, "master")
            body[f"{usage}_key"] = signed
        return body

    def signed(self, value: dict[str, Any], usage: str) -> dict[str, Any]:
        """Return the object signed with one of the three keys."""
        return sign(value, self.user_id, self.public(usage), self.keys[usage])

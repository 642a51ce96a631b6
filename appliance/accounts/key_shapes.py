"""The form of uploaded public keys, checked once so that what is stored can be served as it is.

Source: client-server API, "End-to-end encryption": DeviceKeys, OneTimeKeys, CrossSigningKey.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appliance.matrix import canonical
from appliance.matrix.errors import BadJson, InvalidParam, TooLarge
from appliance.store.keys import StoredKey

KEY_BYTES: Final = 65_536
NAME: Final = 255


def device_keys(value: Any, user_id: str, device_id: str) -> bytes:
    """Return a device's identity keys in canonical form without `unsigned`; they must name this user and device."""
    keys = _object(value, "device_keys")
    if keys.get("user_id") != user_id or keys.get("device_id") != device_id:
        raise InvalidParam("device_keys must carry the user and device that upload them")
    algorithms = keys.get("algorithms")
    if not isinstance(algorithms, list) or not all(isinstance(name, str) for name in algorithms):
        raise BadJson("device_keys.algorithms must be an array of strings")
    _strings(keys.get("keys"), "device_keys.keys")
    _signatures(keys.get("signatures"), "device_keys.signatures")
    return encoded({name: part for name, part in keys.items() if name != "unsigned"}, "device_keys")


def keys_by_id(value: Any, what: str, maximum: int) -> list[StoredKey]:
    """Return one-time or fallback keys from an object `algorithm:id -> key`, sorted by key id."""
    found = []
    for name, key in _object(value, what).items():
        algorithm, colon, key_id = name.partition(":")
        if not colon or not algorithm or not key_id or len(name) > NAME:
            raise InvalidParam(f"{what}: a key is named algorithm:id")
        if isinstance(key, dict):
            if not isinstance(key.get("key"), str):
                raise BadJson(f"{what}: a key object needs a string `key`")
            _signatures(key.get("signatures", {}), f"{what}.signatures")
        elif not isinstance(key, str):
            raise BadJson(f"{what}: a key is a string or an object")
        found.append(StoredKey(algorithm, key_id, encoded(key, what)))
    if len(found) > maximum:
        raise InvalidParam(f"{what}: at most {maximum} keys at once")
    return sorted(found, key=lambda key: (key.algorithm, key.key_id))


def cross_signing_key(value: Any, user_id: str, usage: str) -> dict[str, Any]:
    """Return a cross-signing key object: of this user, for this usage, with exactly one Ed25519 key."""
    key = _object(value, f"{usage} key")
    if key.get("user_id") != user_id:
        raise InvalidParam("A cross-signing key must carry the user who uploads it")
    uses = key.get("usage")
    if not isinstance(uses, list) or usage not in uses:
        raise InvalidParam(f"The key is not meant for {usage}")
    names = _strings(key.get("keys"), "keys")
    if len(names) != 1 or not all(name == f"ed25519:{public}" for name, public in names.items()):
        raise InvalidParam("A cross-signing key holds exactly one key, named ed25519:<the key>")
    _signatures(key.get("signatures", {}), "signatures")
    encoded(key, "cross-signing key")
    return key


def public_key(key: Mapping[str, Any]) -> str:
    """Return the public half of a checked cross-signing key, as its unpadded base64."""
    return str(next(iter(key["keys"].values())))


def _signatures(value: Any, what: str) -> None:
    for user, entry in _object(value, what).items():
        _strings(entry, f"{what}.{user[:NAME]}")


def _strings(value: Any, what: str) -> dict[str, str]:
    entries = _object(value, what)
    if not all(isinstance(entry, str) and len(name) <= NAME for name, entry in entries.items()):
        raise BadJson(f"{what} must be an object of strings")
    return entries


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadJson(f"{what} must be an object")
    return value


def encoded(value: Any, what: str) -> bytes:
    """Return the canonical form of a checked value; raises `TooLarge` beyond 64 KiB."""
    canonical.check_canonical(value)
    raw = canonical.encode(value)
    if len(raw) > KEY_BYTES:
        raise TooLarge(f"{what} must not exceed {KEY_BYTES} bytes")
    return raw

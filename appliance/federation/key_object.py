"""What a server publishes about its signing keys, read with suspicion.

A key object is signed by its own keys, which proves nothing about who they belong to: that comes from the TLS
certificate of the server it was fetched from, or from the signature of a notary that we trust.

Source: server-server API, "Publishing Keys"; room version 5, "Signing key validity period".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from appliance.matrix.canonical import Json, check_canonical
from appliance.matrix.errors import MatrixError
from appliance.matrix.ids import ServerName
from appliance.matrix.signing import BadSignature, decode_base64, verify_json

WEEK_MS: Final = 7 * 24 * 3600 * 1000
MOST_KEYS: Final = 100
"""Keys in one object, current and old; a server with more is not believed."""

_KEY_ID: Final = re.compile(r"ed25519:[a-zA-Z0-9_]{1,64}")
_KEY_BYTES: Final = 32


class BadKeys(Exception):
    """The object is not a key object of that server."""


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """One public key. It signs events dated up to `until` (milliseconds), and requests now if it is not `old`."""

    key: bytes
    until: int
    old: bool = False


@dataclass(frozen=True, slots=True)
class KeyObject:
    """A checked key object: the keys, and until when the object may be relied on (at most a week from its arrival)."""

    server: ServerName
    keys: Mapping[str, VerifyKey]
    until: int
    json: Mapping[str, Json]
    """As it was received, with all its signatures: what a notary hands on."""


def read(value: Json, server: ServerName, now: int) -> KeyObject:
    """Check form, name, and that a current Ed25519 key signed it and none did so wrongly; raises `BadKeys`."""
    if not isinstance(value, Mapping) or value.get("server_name") != server:
        raise BadKeys("not the keys of this server")
    valid_until = value.get("valid_until_ts")
    if type(valid_until) is not int:
        raise BadKeys("valid_until_ts is not an integer")
    until = min(valid_until, now + WEEK_MS)
    current = _current(value.get("verify_keys"), until)
    old = _old(value.get("old_verify_keys", {}))
    if not current or len(current) + len(old) > MOST_KEYS:
        raise BadKeys("no usable key, or too many")
    signatures = value.get("signatures")
    own = signatures.get(server) if isinstance(signatures, Mapping) else None
    signing = current.keys() & own.keys() if isinstance(own, Mapping) else frozenset()
    if not signing:
        raise BadKeys("not signed by its own keys")
    try:
        check_canonical(value)
        for key_id in signing:
            verify_json(value, server, key_id, current[key_id].key)
    except (BadSignature, MatrixError) as error:
        raise BadKeys("not signed by its own keys") from error
    return KeyObject(server, {**old, **current}, until, value)


def _current(entries: Json, until: int) -> dict[str, VerifyKey]:
    return {key_id: VerifyKey(_key(entry), until) for key_id, entry in _entries(entries)}


def _old(entries: Json) -> dict[str, VerifyKey]:
    found = {}
    for key_id, entry in _entries(entries):
        expired = entry.get("expired_ts")
        if type(expired) is not int:
            raise BadKeys("expired_ts is not an integer")
        found[key_id] = VerifyKey(_key(entry), expired, old=True)
    return found


def _entries(entries: Json) -> list[tuple[str, Mapping[str, Json]]]:
    """Return the Ed25519 entries; algorithms of the future are passed over."""
    if not isinstance(entries, Mapping):
        raise BadKeys("the keys are not an object")
    if len(entries) > MOST_KEYS:
        raise BadKeys("too many keys")
    found = []
    for key_id, entry in entries.items():
        if _KEY_ID.fullmatch(key_id) is None:
            continue
        if not isinstance(entry, Mapping):
            raise BadKeys("a key is not an object")
        found.append((key_id, entry))
    return found


def _key(entry: Mapping[str, Json]) -> bytes:
    text = entry.get("key")
    try:
        raw = decode_base64(text) if isinstance(text, str) else b""
    except ValueError as error:
        raise BadKeys("a key is not base64") from error
    if len(raw) != _KEY_BYTES:
        raise BadKeys("a key has the wrong length")
    return raw

"""Ed25519 signatures over canonical JSON, and the signing key that never shows itself.

Source: appendices, "Signing JSON"; server-server API, "Signing events".
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Mapping
from typing import Final, NoReturn

from nacl import bindings
from nacl.exceptions import BadSignatureError

from appliance.matrix.canonical import Json, encode
from appliance.matrix.errors import MatrixError
from appliance.matrix.ids import ServerName

_KEY_VERSION: Final = re.compile(r"[a-zA-Z0-9_]{1,64}")
_SIGNATURE_BYTES: Final = 64
_KEY_BYTES: Final = 32
_URL_SAFE: Final = str.maketrans("-_", "+/")


class BadSignature(MatrixError):
    """A signature is missing, malformed or wrong."""

    status, errcode = 400, "M_INVALID_SIGNATURE"


def encode_base64(raw: bytes) -> str:
    """Return unpadded standard base64."""
    return binascii.b2a_base64(raw, newline=False).rstrip(b"=").decode()


def decode_base64(text: str) -> bytes:
    """Read base64 of either alphabet, padded or not; `ValueError` when it is neither."""
    bare = text.rstrip("=").translate(_URL_SAFE)
    return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)


class SigningKey:
    """A server's Ed25519 key; it cannot be printed, copied by pickle or compared."""

    __slots__ = ("_secret", "key_id", "verify_key")

    def __init__(self, version: str, seed: bytes) -> None:
        if _KEY_VERSION.fullmatch(version) is None or len(seed) != _KEY_BYTES:
            raise ValueError("a signing key needs a version of letters, digits and underscores and a 32 byte seed")
        self.verify_key, self._secret = bindings.crypto_sign_seed_keypair(seed)
        self.key_id = f"ed25519:{version}"

    @property
    def verify_key_b64(self) -> str:
        """The public half as peers see it."""
        return encode_base64(self.verify_key)

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of signature over the message."""
        return bindings.crypto_sign(message, self._secret)[:_SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"SigningKey({self.key_id})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a signing key is not for copying")


def generate(version: str, seed: bytes) -> SigningKey:
    """Make the key `ed25519:<version>` from 32 fresh random bytes (the caller's: there is no chance on this floor)."""
    return SigningKey(version, seed)


def load(text: str) -> SigningKey:
    """Read a key written by `dump`; `ValueError` when it is not one."""
    parts = text.split()
    if len(parts) != 3 or parts[0] != "ed25519":
        raise ValueError("not a signing key: expected 'ed25519 VERSION SEED'")
    return SigningKey(parts[1], decode_base64(parts[2]))


def dump(key: SigningKey) -> str:
    """Return the key as the usual line `ed25519 VERSION SEED` for its file. Secret."""
    seed = bindings.crypto_sign_ed25519_sk_to_seed(key._secret)
    return f"ed25519 {key.key_id.partition(':')[2]} {encode_base64(seed)}"


def signed_bytes(obj: Mapping[str, Json]) -> bytes:
    """Return what a signature over the object covers: its canonical form without `signatures` and `unsigned`."""
    return encode({key: value for key, value in obj.items() if key not in ("signatures", "unsigned")})


def merge_signature(signatures: Json, server: str, key_id: str, signature: bytes) -> dict[str, Json]:
    """Return a copy of a `signatures` object with one more signature in it."""
    merged: dict[str, Json] = dict(signatures) if isinstance(signatures, Mapping) else {}
    entry = merged.get(server)
    merged[server] = {**(entry if isinstance(entry, Mapping) else {}), key_id: encode_base64(signature)}
    return merged


def sign_json(obj: Mapping[str, Json], server: ServerName, key: SigningKey) -> dict[str, Json]:
    """Return a copy of the object signed by the server; other signatures and `unsigned` stay."""
    signature = key.sign(signed_bytes(obj))
    return {**obj, "signatures": merge_signature(obj.get("signatures"), server, key.key_id, signature)}


def verify_json(obj: Mapping[str, Json], server: str, key_id: str, verify_key: bytes | str) -> None:
    """Check the signature that `server` (or, for device keys, a user) made with `key_id`.

    `verify_key` is the public key, raw or base64. Raises `BadSignature`.
    """
    verify_bytes(signed_bytes(obj), signature_of(obj, server, key_id), verify_key)


def signature_of(obj: Mapping[str, Json], server: str, key_id: str) -> bytes:
    """Return the signature that stands in the object under the name and key id; `BadSignature` when there is none."""
    signatures = obj.get("signatures")
    entry = signatures.get(server) if isinstance(signatures, Mapping) else None
    text = entry.get(key_id) if isinstance(entry, Mapping) else None
    if not isinstance(text, str):
        raise BadSignature(f"No signature by {server} with {key_id}")
    return _decoded(text)


def verify_bytes(message: bytes, signature: bytes, verify_key: bytes | str) -> None:
    """Check a detached signature over bytes; `BadSignature` when it does not hold."""
    key = _decoded(verify_key) if isinstance(verify_key, str) else verify_key
    if len(key) != _KEY_BYTES or len(signature) != _SIGNATURE_BYTES:
        raise BadSignature("The key or the signature has the wrong length")
    try:
        bindings.crypto_sign_open(signature + message, key)
    except BadSignatureError as error:
        raise BadSignature("The signature does not match") from error


def _decoded(text: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as error:
        raise BadSignature("The key or the signature is not base64") from error

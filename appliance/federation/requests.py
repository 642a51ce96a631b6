"""X-Matrix: every request between servers is signed by the sender, for this receiver, over method, target and body.

The signed object is `{content, destination, method, origin, uri}`. Its keys are in canonical order as they stand, so a
body that is already canonical is spliced in and never encoded a second time.

Source: server-server API, "Request Authentication"; RFC 9110, 11.4 and 5.6.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.matrix import canonical, ids
from appliance.matrix.errors import MatrixError
from appliance.matrix.ids import ServerName
from appliance.matrix.signing import BadSignature, SigningKey, decode_base64, encode_base64, verify_bytes

MOST_HEADERS: Final = 4
"""Signatures (each in an Authorization header of its own) that one request may carry."""
HEADER_CHARACTERS: Final = 4096

_SCHEME: Final = re.compile(r"x-matrix[ \t]+", re.IGNORECASE)
_PARAMETER: Final = re.compile(
    r"[ \t,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*"
    r'(?:"((?:[^"\\]|\\.)*)"|([^\s",\\]+))[ \t]*(?:,[ \t,]*|\Z)'
)
_ESCAPED: Final = re.compile(r"\\(.)")
_KEY_ID: Final = re.compile(r"ed25519:[a-zA-Z0-9_]{1,64}")


class Unauthorized(MatrixError):
    """The request does not prove where it comes from."""

    status, errcode = 401, "M_UNAUTHORIZED"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request claims: who sends it, to whom, and signatures by key id (Ed25519 only; others are left out)."""

    origin: ServerName
    destination: ServerName | None
    signatures: Mapping[str, bytes]


def authorization(
    key: SigningKey, origin: ServerName, destination: ServerName, method: str, target: str, content: bytes | None
) -> str:
    """Return the Authorization header of a request of ours; `content` is the body in canonical form, if it has one."""
    signature = encode_base64(key.sign(signed_form(origin, destination, method, target, content)))
    return f'X-Matrix origin="{origin}",destination="{destination}",key="{key.key_id}",sig="{signature}"'


def signed_form(origin: str, destination: str | None, method: str, target: str, content: bytes | None) -> bytes:
    """Return the canonical JSON that the signature covers; `target` is path and query as they stand in the request."""
    rest: dict[str, canonical.Json] = {"method": method, "origin": origin, "uri": target}
    if destination is not None:
        rest["destination"] = destination
    encoded = canonical.encode(rest)
    return encoded if content is None else b'{"content":' + content + b"," + encoded[1:]


def credentials(headers: Sequence[str], name: ServerName) -> Credentials:
    """Read the Authorization headers of a request to us; `Unauthorized` when they prove nothing or name another."""
    ours = [header for header in headers if _SCHEME.match(header)]
    if not ours:
        raise Unauthorized("Missing X-Matrix authorization")
    if len(ours) > MOST_HEADERS or any(len(header) > HEADER_CHARACTERS for header in ours):
        raise Unauthorized("Too much X-Matrix authorization")
    read = [_parameters(header) for header in ours]
    origins = {_server(parameters, "origin") for parameters in read}
    destinations = {_server(p, "destination") if "destination" in p else None for p in read}
    if len(origins) != 1 or len(destinations) != 1:
        raise Unauthorized("The signatures disagree about who speaks to whom")
    destination = destinations.pop()
    if destination is not None and destination != name:
        raise Unauthorized("The request is meant for another server")
    return Credentials(origins.pop(), destination, _signatures(read))


def verify(claim: Credentials, method: str, target: str, content: bytes | None, keys: Mapping[str, bytes]) -> None:
    """Check the request against the origin's current keys: one signature must hold, none may be wrong.

    `content` is the body in canonical form. Raises `Unauthorized`.
    """
    message = signed_form(claim.origin, claim.destination, method, target, content)
    known = claim.signatures.keys() & keys.keys()
    if not known:
        raise Unauthorized("The key of the signature is not known to be valid now")
    for key_id in known:
        try:
            verify_bytes(message, claim.signatures[key_id], keys[key_id])
        except BadSignature as error:
            raise Unauthorized("The signature of the request does not match") from error


def _parameters(header: str) -> dict[str, str]:
    """Read the name=value pairs of one header, names in lower case, quotes and backslashes removed."""
    opening = _SCHEME.match(header)
    position = opening.end() if opening else len(header)
    found: dict[str, str] = {}
    text = header.rstrip(" \t")
    while position < len(text):
        pair = _PARAMETER.match(text, position)
        if pair is None:
            raise Unauthorized("The X-Matrix authorization cannot be read")
        name = pair[1].lower()
        if name in found:
            raise Unauthorized(f"The X-Matrix authorization has two values for {name}")
        found[name] = pair[3] if pair[2] is None else _ESCAPED.sub(r"\1", pair[2])
        position = pair.end()
    return found


def _server(parameters: Mapping[str, str], name: str) -> ServerName:
    try:
        return ids.server_name(parameters.get(name))
    except MatrixError as error:
        raise Unauthorized(f"The X-Matrix authorization has no valid {name}") from error


def _signatures(read: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for parameters in read:
        key_id = parameters.get("key", "")
        if _KEY_ID.fullmatch(key_id) is None:
            continue
        try:
            found[key_id] = decode_base64(parameters.get("sig", ""))
        except ValueError as error:
            raise Unauthorized("The signature is not base64") from error
    if not found:
        raise Unauthorized("The request carries no Ed25519 signature")
    return found

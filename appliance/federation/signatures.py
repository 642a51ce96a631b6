"""Whose signatures an event needs, and whether they hold: pure, so that a thread can do many at once.

Source: server-server API, "Validating hashes and signatures on received events".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from appliance.federation.key_object import VerifyKey
from appliance.matrix.canonical import Json
from appliance.matrix.errors import MatrixError
from appliance.matrix.event import Event, redact, signers
from appliance.matrix.ids import ServerName, server_name
from appliance.matrix.signing import BadSignature, decode_base64, signed_bytes, verify_bytes

MOST_PER_SERVER: Final = 4
"""Signatures of one server on one event that are looked at."""
_KEY_ID: Final = re.compile(r"ed25519:[a-zA-Z0-9_]{1,64}")


class KeyUnknown(BadSignature):
    """The key could not be had, so nobody can say whether the signature holds; it may be asked again later."""


@dataclass(frozen=True, slots=True)
class Claims:
    """The signatures that an event needs and has: base64 by server and key id. An event is as old as it says: `ts`."""

    ts: int
    signatures: Mapping[ServerName, Mapping[str, str]]


def claims(event: Event) -> Claims:
    """Gather the signatures of those servers that must have signed; a missing one is an empty entry."""
    signatures = event.pdu.get("signatures")
    entries: Mapping[str, Json] = signatures if isinstance(signatures, Mapping) else {}
    return Claims(event.origin_server_ts, {server: _of(entries.get(server)) for server in signers(event)})


def _of(entry: Json) -> dict[str, str]:
    if not isinstance(entry, Mapping):
        return {}
    usable = (
        (key_id, text) for key_id, text in entry.items() if isinstance(text, str) and _KEY_ID.fullmatch(key_id)
    )  # fmt: skip
    return dict(islice(usable, MOST_PER_SERVER))


def check_all(
    events: Sequence[Event], found: Sequence[Claims], keys: Mapping[ServerName, Mapping[str, VerifyKey]]
) -> list[BadSignature | None]:
    """Return for each event what is wrong with its signatures, or None."""
    return [_check(event, claim, keys) for event, claim in zip(events, found, strict=True)]


def _check(
    event: Event, claim: Claims, keys: Mapping[ServerName, Mapping[str, VerifyKey]]
) -> BadSignature | None:
    try:
        message = signed_bytes(redact(event.pdu, event.version))
        for server, signatures in claim.signatures.items():
            server_name(server)
            _check_one(server, signatures, message, claim.ts, keys.get(server, {}))
    except BadSignature as problem:
        return problem
    except MatrixError as problem:
        return BadSignature(problem.message)
    return None


def _check_one(
    server: ServerName, signatures: Mapping[str, str], message: bytes, ts: int, keys: Mapping[str, VerifyKey]
) -> None:
    """One good signature is enough; raises what was wrong with the last one."""
    problem: BadSignature = BadSignature(f"No signature by {server}")
    for key_id, text in signatures.items():
        key = keys.get(key_id)
        if key is None:
            problem = KeyUnknown(f"The key {key_id} of {server} could not be had")
        elif key.until < ts:
            problem = BadSignature(f"The key {key_id} of {server} was not valid when the event was made")
        else:
            try:
                return verify_bytes(message, _decoded(text), key.key)
            except BadSignature as error:
                problem = error
    raise problem


def _decoded(text: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError as error:
        raise BadSignature("A signature is not base64") from error

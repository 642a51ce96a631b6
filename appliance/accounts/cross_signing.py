"""Cross-signing: one's own three keys, and signatures over devices and over other people's master keys.

Who may sign what (everything else is refused key by key):

    own device            by the own self-signing key
    own master key        by one of the own devices
    another's master key  by the own user-signing key; only the signer ever sees that signature

Source: client-server API, "Cross-signing"; MSC3967 for the first upload without user-interactive authentication.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from appliance.accounts import key_shapes
from appliance.accounts.uia import PASSWORD, Uia
from appliance.matrix import canonical, ids
from appliance.matrix.errors import BadJson, Forbidden, InvalidParam, MatrixError, MissingParam, NotFound
from appliance.matrix.requester import Requester
from appliance.matrix.signing import BadSignature, verify_json
from appliance.store import devices, keys
from appliance.store.database import Store
from appliance.store.keys import Signature
from appliance.store.readers import Rx
from appliance.store.writer import Tx

USAGES: Final = ("master", "self_signing", "user_signing")
TARGETS: Final = 1_000
"""Keys that may be signed with one request."""

Keys = Mapping[str, dict[str, Any]]


class CrossSigning:
    """The cross-signing keys of the users of this server."""

    def __init__(self, store: Store, uia: Uia) -> None:
        self._store = store
        self._uia = uia

    async def upload(self, requester: Requester, given: Mapping[str, Any], auth: Mapping[str, Any] | None) -> None:
        """Publish the keys in `given` (by usage).

        Replacing or adding keys needs the password; the first set and a repetition do not.
        """
        user_id = requester.user_id
        new = {usage: key_shapes.cross_signing_key(given[usage], user_id, usage) for usage in USAGES if usage in given}
        there = await self._store.read(_cross_signing, user_id)
        _check(new, there, user_id)
        confirmed = "master" in there and not _repeats(new, there)
        if confirmed:
            await self._uia.confirm(auth, [[PASSWORD]], "keys/device_signing/upload", user_id)
        await self._store.write(_put, user_id, new, confirmed)

    async def sign(self, requester: Requester, given: Mapping[str, Any]) -> dict[str, dict[str, object]]:
        """Keep the signatures in `given` (user -> key id -> signed object); returns the refused ones."""
        count = 0
        for user_id, objects in given.items():
            ids.user_id(user_id)
            if not isinstance(objects, dict):
                raise BadJson("Signatures are grouped by user and key")
            count += len(objects)
        if count > TARGETS:
            raise InvalidParam(f"At most {TARGETS} keys can be signed at once")
        return await self._store.write(_sign, requester.user_id, given)


def _cross_signing(rx: Rx | Tx, user_id: str) -> dict[str, dict[str, Any]]:
    return {usage: canonical.decode_object(raw) for usage, raw in keys.cross_signing(rx, user_id).items()}


def _check(new: Keys, there: Keys, user_id: str) -> None:
    """Check that the other keys are signed by the master key that is to hold."""
    master = new.get("master") or there.get("master")
    if master is None:
        raise MissingParam("There is no master signing key")
    public = key_shapes.public_key(master)
    for usage in ("self_signing", "user_signing"):
        if usage in new:
            verify_json(new[usage], user_id, f"ed25519:{public}", public)


def _repeats(new: Keys, there: Keys) -> bool:
    return all(usage in there and there[usage].get("keys") == key.get("keys") for usage, key in new.items())


def _put(tx: Tx, user_id: str, new: Keys, confirmed: bool) -> None:
    there = _cross_signing(tx, user_id)
    if "master" in there and not confirmed and not _repeats(new, there):
        raise Forbidden("Another device has just published other keys")
    for key in new.values():
        if devices.find(tx, user_id, key_shapes.public_key(key)) is not None:
            raise Forbidden("A key must not have the id of a device")
    replaced = [
        key_shapes.public_key(there[usage]) for usage, key in new.items()
        if usage in there and there[usage]["keys"] != key["keys"]
    ]
    keys.drop_signatures(tx, user_id, replaced)
    encoded = {usage: canonical.encode(key) for usage, key in new.items()}
    if any(usage not in there or canonical.encode(there[usage]) != raw for usage, raw in encoded.items()):
        keys.put_cross_signing(tx, user_id, encoded)
        devices.list_changed(tx, user_id)


def _sign(tx: Tx, signer: str, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, object]]:
    failures: dict[str, dict[str, object]] = {}
    own = _cross_signing(tx, signer)
    for user_id, objects in given.items():
        kept: list[Signature] = []
        for target, signed in objects.items():
            try:
                kept.extend(_checked(tx, signer, own, user_id, target, signed))
            except MatrixError as error:
                failures.setdefault(user_id, {})[target] = error.body()
        if kept:
            keys.put_signatures(tx, kept)
            if user_id == signer:
                devices.list_changed(tx, user_id)
            else:
                devices.seen_differently(tx, user_id, signer)
    return failures


def _checked(tx: Tx, signer: str, own: Keys, user_id: str, target: str, signed: Any) -> list[Signature]:
    """Return the new signatures over one key after checking each of them."""
    if not isinstance(signed, dict):
        raise BadJson("The signed key must be an object")
    canonical.check_canonical(signed)
    stored, allowed = _target(tx, signer, own, user_id, target)
    if _bare(stored) != _bare(signed):
        raise InvalidParam("The signed key is not the one that was published")
    known = _signatures_by(signer, stored)
    found = []
    for key_id, signature in _signatures_by(signer, signed).items():
        if known.get(key_id) == signature:
            continue
        if key_id not in allowed:
            raise BadSignature("The key that signed may not sign this")
        verify_json(signed, signer, key_id, allowed[key_id])
        found.append(Signature(user_id, target, signer, key_id, signature))
    if not found and not known:
        raise BadSignature("There is no signature of yours on the key")
    return found


def _signatures_by(signer: str, key: Mapping[str, Any]) -> dict[str, Any]:
    signatures = key.get("signatures")
    entry = signatures.get(signer) if isinstance(signatures, dict) else None
    return entry if isinstance(entry, dict) else {}


def _target(
    tx: Tx, signer: str, own: Keys, user_id: str, target: str
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the key to be signed as published, and the keys that may sign it (key id -> public key)."""
    if user_id != signer:
        master = _cross_signing(tx, user_id).get("master")
        if master is None or key_shapes.public_key(master) != target:
            raise NotFound("This user has no such master key")
        return master, _named(own.get("user_signing"))
    master = own.get("master")
    if master is not None and key_shapes.public_key(master) == target:
        return master, _device_signing_keys(tx, signer)
    raw = keys.device_keys(tx, signer, target)
    if raw is None:
        raise NotFound("There is no such device or key")
    return canonical.decode_object(raw), _named(own.get("self_signing"))


def _named(key: dict[str, Any] | None) -> dict[str, str]:
    return {} if key is None else {f"ed25519:{key_shapes.public_key(key)}": key_shapes.public_key(key)}


def _device_signing_keys(tx: Tx, user_id: str) -> dict[str, str]:
    found = {}
    for device_id, _, raw in keys.device_keys_of(tx, user_id):
        identity: dict[str, Any] = canonical.decode_object(raw)
        public = identity["keys"].get(f"ed25519:{device_id}")
        if isinstance(public, str):
            found[f"ed25519:{device_id}"] = public
    return found


def _bare(key: Mapping[str, Any]) -> bytes:
    return canonical.encode({name: part for name, part in key.items() if name not in ("signatures", "unsigned")})

"""Publishing, finding and claiming end-to-end encryption keys.

The server never uses any of these keys; it must hand them on unchanged, and each one-time key once. Keys of other
servers' users come through `Peers`; a server that cannot be asked is named under `failures`, never silently left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from appliance.accounts import key_shapes
from appliance.matrix import canonical, ids
from appliance.matrix.errors import InvalidParam
from appliance.matrix.ids import ServerName
from appliance.matrix.requester import Requester
from appliance.store import devices, keys
from appliance.store.database import Store
from appliance.store.keys import Signature, StoredKey
from appliance.store.readers import Rx
from appliance.store.writer import Tx

AT_ONCE: Final = 500
HELD: Final = 5_000
"""One-time keys a device may have waiting."""
QUERY_SECONDS: Final = 10.0

Answer: TypeAlias = dict[str, Any]
Wanted: TypeAlias = Mapping[str, Sequence[str]]
"""Device ids per user id; none means all."""


class Peers(Protocol):
    """Other servers, asked for keys. Any exception counts as unreachable."""

    def query_keys(self, server: ServerName, wanted: Wanted) -> Awaitable[Answer]:
        """Return `device_keys`, `master_keys` and `self_signing_keys` of users of that server.

        An answer that is not complete says so under `failures`.
        """
        ...

    def claim_keys(self, server: ServerName, wanted: Mapping[str, Mapping[str, str]]) -> Awaitable[Answer]:
        """Return `one_time_keys` (user -> device -> key) of users of that server."""
        ...


class KeyServer:
    """The keys of the users of this server, and the way to those of others."""

    def __init__(self, store: Store, server: ServerName, peers: Peers | None = None) -> None:
        self._store = store
        self._server = server
        self._peers = peers

    async def upload(
        self, requester: Requester, device_keys: Any, one_time_keys: Any, fallback_keys: Any
    ) -> dict[str, int]:
        """Publish what is not None; returns the counts of unclaimed one-time keys."""
        user_id, device_id = requester.user_id, requester.device_id
        identity = None if device_keys is None else key_shapes.device_keys(device_keys, user_id, device_id)
        once = [] if one_time_keys is None else key_shapes.keys_by_id(one_time_keys, "one_time_keys", AT_ONCE)
        fallback = [] if fallback_keys is None else key_shapes.keys_by_id(fallback_keys, "fallback_keys", 20)
        if identity is None and not once and not fallback:
            return await self._store.read(keys.one_time_counts, user_id, device_id)
        return await self._store.write(_upload, user_id, device_id, identity, once, fallback)

    async def query(self, requester: Requester, wanted: Wanted) -> Answer:
        """Return the device and cross-signing keys of the users asked for, as the requester may see them."""
        here, elsewhere = self._divide(wanted)
        answer = await self._store.read(published, here, requester.user_id)
        answer["failures"] = {}
        await self._ask(elsewhere, answer, "query_keys", ("device_keys", "master_keys", "self_signing_keys"))
        return answer

    async def claim(self, wanted: Mapping[str, Mapping[str, str]]) -> Answer:
        """Take one key of the wanted algorithm of each device (user -> device -> algorithm)."""
        here, elsewhere = self._divide(wanted)
        found = await self._store.write(_claim, here) if here else {}
        answer: Answer = {"one_time_keys": found, "failures": {}}
        await self._ask(elsewhere, answer, "claim_keys", ("one_time_keys",))
        return answer

    def _divide(self, wanted: Mapping[str, Any]) -> tuple[dict[str, Any], dict[ServerName, dict[str, Any]]]:
        here: dict[str, Any] = {}
        elsewhere: dict[ServerName, dict[str, Any]] = {}
        for user_id, part in wanted.items():
            server = ids.server_of(ids.user_id(user_id))
            (here if server == self._server else elsewhere.setdefault(server, {}))[user_id] = part
        return here, elsewhere

    async def _ask(
        self, elsewhere: Mapping[ServerName, Any], answer: Answer, what: str, parts: Sequence[str]
    ) -> None:
        """Ask the other servers at the same time and merge what they say about their own users."""
        results = await asyncio.gather(
            *(self._ask_one(server, wanted, what) for server, wanted in elsewhere.items()), return_exceptions=True
        )
        for (server, wanted), result in zip(elsewhere.items(), results, strict=True):
            if isinstance(result, Exception):
                answer["failures"][server] = {"status": 503, "message": "The server could not be reached"}
            elif isinstance(result, BaseException):
                raise result
            else:
                for part in parts:
                    found = result.get(part)
                    if isinstance(found, dict):
                        answer[part].update({user: keys for user, keys in found.items() if user in wanted})
                answer["failures"].update(result.get("failures", {}))

    async def _ask_one(self, server: ServerName, wanted: Any, what: str) -> Answer:
        if self._peers is None:
            raise ConnectionError(server)
        async with asyncio.timeout(QUERY_SECONDS):
            if what == "query_keys":
                return await self._peers.query_keys(server, wanted)
            return await self._peers.claim_keys(server, wanted)


def _upload(
    tx: Tx, user_id: str, device_id: str, identity: bytes | None, once: Sequence[StoredKey],
    fallback: Sequence[StoredKey],
) -> dict[str, int]:
    if identity is not None and keys.put_device_keys(tx, user_id, device_id, identity):
        devices.list_changed(tx, user_id)
    keys.add_one_time_keys(tx, user_id, device_id, [k for k in once if _is_new(tx, user_id, device_id, k)])
    for key in fallback:
        keys.put_fallback_key(tx, user_id, device_id, key)
    counts = keys.one_time_counts(tx, user_id, device_id)
    if sum(counts.values()) > HELD:
        raise InvalidParam(f"A device may have at most {HELD} one-time keys waiting")
    return counts


def _is_new(tx: Tx, user_id: str, device_id: str, key: StoredKey) -> bool:
    """Tell whether a key must be added; the same key again is not, another one under its id is refused."""
    there = keys.one_time_key(tx, user_id, device_id, key.algorithm, key.key_id)
    if there is None:
        return not keys.was_claimed(tx, user_id, device_id, key)
    if there != key.json:
        raise InvalidParam(f"The one-time key {key.algorithm}:{key.key_id} exists with another value")
    return False


def _claim(tx: Tx, wanted: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for user_id, by_device in wanted.items():
        for device_id, algorithm in by_device.items():
            key = keys.claim(tx, user_id, device_id, algorithm)
            if key is not None:
                name = f"{key.algorithm}:{key.key_id}"
                found.setdefault(user_id, {})[device_id] = {name: canonical.decode(key.json)}
    return found


def published(rx: Rx | Tx, wanted: Wanted, viewer: str) -> Answer:
    """Return the keys of local users as `viewer` may see them ("" stands for anybody elsewhere)."""
    answer: Answer = {"device_keys": {}, "master_keys": {}, "self_signing_keys": {}, "user_signing_keys": {}}
    for user_id, device_ids in wanted.items():
        signatures = keys.signatures(rx, user_id, (user_id, viewer))
        found = {}
        for device_id, name, raw in keys.device_keys_of(rx, user_id):
            if device_ids and device_id not in device_ids:
                continue
            identity = canonical.decode_object(raw)
            _add_signatures(identity, [s for s in signatures if s.target == device_id])
            if name is not None:
                identity["unsigned"] = {"device_display_name": name}
            found[device_id] = identity
        answer["device_keys"][user_id] = found
        for usage, raw in keys.cross_signing(rx, user_id).items():
            if usage == "user_signing" and user_id != viewer:
                continue
            key = canonical.decode_object(raw)
            _add_signatures(key, [s for s in signatures if s.target == key_shapes.public_key(key)])
            answer[f"{usage}_keys"][user_id] = key
    return answer


def _add_signatures(key: dict[str, Any], more: Sequence[Signature]) -> None:
    merged = {signer: dict(entry) for signer, entry in key.get("signatures", {}).items()}
    for signature in more:
        merged.setdefault(signature.signer, {})[signature.key_id] = signature.signature
    if merged:
        key["signatures"] = merged

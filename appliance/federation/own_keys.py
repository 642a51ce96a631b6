"""Our own signing keys as others see them: the one in use, and those that once were.

When the house starts with another key than last time, the previous one is noted as expired and published as old, so
that what it signed stays believable.

Source: server-server API, "Publishing Keys".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from appliance.federation.key_object import WEEK_MS, VerifyKey
from appliance.link.expiring import Clock
from appliance.matrix.canonical import Json
from appliance.matrix.ids import ServerName
from appliance.matrix.signing import SigningKey, encode_base64, sign_json
from appliance.store import server_keys
from appliance.store.database import Store
from appliance.store.server_keys import OwnRow

LIFETIME_MS: Final = 24 * 3600 * 1000
"""How long others may rely on what we publish before they ask again; it bounds how long a lost key can be abused."""


class OwnKeys:
    """The keys of one server; `open` makes it and notes a change of key."""

    def __init__(self, name: ServerName, key: SigningKey, rows: Sequence[OwnRow], clock: Clock) -> None:
        self.name = name
        self._key = key
        self._rows = rows
        self._clock = clock
        self._published: dict[str, Json] = {}
        self._until = 0

    @classmethod
    async def open(cls, store: Store, name: ServerName, key: SigningKey, clock: Clock) -> OwnKeys:
        """Take the key into use."""
        rows = await store.write(server_keys.use_own, key.key_id, key.verify_key, clock())
        return cls(name, key, rows, clock)

    def published(self) -> Mapping[str, Json]:
        """Return our key object, signed; never one that is past half of its life."""
        now = self._clock()
        if self._until - now < LIFETIME_MS // 2:
            self._until = now + LIFETIME_MS
            self._published = sign_json(self._object(), self.name, self._key)
        return self._published

    def _object(self) -> dict[str, Json]:
        return {
            "server_name": self.name,
            "verify_keys": {self._key.key_id: {"key": self._key.verify_key_b64}},
            "old_verify_keys": {
                row.key_id: {"key": encode_base64(row.verify_key), "expired_ts": row.expired}
                for row in self._rows
                if row.expired is not None
            },
            "valid_until_ts": self._until,
        }

    def keys(self) -> dict[str, VerifyKey]:
        """Return our keys for checking what came back to us."""
        current = VerifyKey(self._key.verify_key, self._clock() + WEEK_MS)
        old = {
            row.key_id: VerifyKey(row.verify_key, row.expired, old=True)
            for row in self._rows
            if row.expired is not None
        }
        return {**old, self._key.key_id: current}

    def countersign(self, obj: Mapping[str, Json]) -> dict[str, Json]:
        """Return another server's key object with our signature: we saw it."""
        return sign_json(obj, self.name, self._key)

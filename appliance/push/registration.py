"""Setting and removing pushers.

Source: client-server API, "Push notifications", `POST /pushers/set`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from appliance.matrix import canonical
from appliance.matrix.errors import InvalidParam
from appliance.matrix.requester import Requester
from appliance.push.gateway import Targets, check_url
from appliance.store import push
from appliance.store.database import Store
from appliance.store.push import PusherRow
from appliance.store.writer import Tx

MAX_PUSHERS = 50
MAX_DATA = 8 * 1024


@dataclass(frozen=True, slots=True, repr=False)
class PusherSpec:
    """A pusher as a client describes it; not printable, for the push key is a secret of the device."""

    app_id: str
    pushkey: str
    kind: str
    app_display_name: str
    device_display_name: str
    lang: str
    profile_tag: str | None = None
    append: bool = False
    data: dict[str, Any] = field(default_factory=dict)


class Registration:
    """Who has which pushers. `changed` is told the people whose pushers are other ones now (`Pushers.changed`)."""

    def __init__(
        self, store: Store, targets: Targets, *, clock: Callable[[], int], changed: Callable[[str], None]
    ) -> None:
        self._store = store
        self._targets = targets
        self._clock = clock
        self._changed = changed

    async def of(self, user_id: str) -> list[dict[str, Any]]:
        """Return a person's pushers as the API shows them."""
        return [_shown(row) for row in await self._store.read(push.of_user, user_id)]

    async def set(self, requester: Requester, spec: PusherSpec) -> None:
        """Create or update a pusher; `InvalidParam` for one that could never be served."""
        if spec.kind != "http":
            raise InvalidParam("This server has pushers of kind http only")
        url = spec.data.get("url")
        if not isinstance(url, str):
            raise InvalidParam("data.url must be a string")
        check_url(url, self._targets)
        canonical.check_canonical(spec.data)
        data = canonical.dumps(spec.data)
        if len(data) > MAX_DATA:
            raise InvalidParam(f"data must not exceed {MAX_DATA} bytes")
        row = PusherRow(0, requester.user_id, spec.app_id, spec.pushkey, requester.device_id, spec.kind,
                        spec.app_display_name, spec.device_display_name, spec.profile_tag, spec.lang, data,
                        self._clock(), 0)
        robbed = await self._store.write(_set, row, spec.append)
        for user_id in {requester.user_id, *robbed}:
            self._changed(user_id)

    async def remove(self, user_id: str, app_id: str, pushkey: str) -> None:
        """Remove a pusher; nothing happens if there is none."""
        await self._store.write(push.remove, user_id, app_id, pushkey)
        self._changed(user_id)


def _set(tx: Tx, row: PusherRow, append: bool) -> list[str]:
    """Store a pusher; return the other people whose pusher it took over."""
    robbed = [] if append else push.owners(tx, row.app_id, row.pushkey)
    push.put(tx, row, append)
    if push.count(tx, row.user_id) > MAX_PUSHERS:
        raise InvalidParam(f"There must not be more than {MAX_PUSHERS} pushers")
    return robbed


def _shown(row: PusherRow) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "app_id": row.app_id, "pushkey": row.pushkey, "kind": row.kind, "app_display_name": row.app_display_name,
        "device_display_name": row.device_display_name, "lang": row.lang, "data": canonical.decode_object(row.data),
    }
    if row.profile_tag is not None:
        shown["profile_tag"] = row.profile_tag
    return shown

"""Account data and tags: small documents that a user's clients share through the server.

Push rules and the fully-read marker have endpoints of their own and cannot be written here.
"""

from __future__ import annotations

from typing import Any, Final

from appliance.matrix import canonical, ids
from appliance.matrix.errors import InvalidParam, MatrixError, NotFound, TooLarge
from appliance.matrix.ids import UserId
from appliance.store import account_data
from appliance.store.account_data import GLOBAL
from appliance.store.database import Store
from appliance.store.writer import Tx

ENTRY_BYTES: Final = 256 * 1024
ENTRIES: Final = 20_000
TAGS: Final = 100
TAG: Final = "m.tag"
ELSEWHERE: Final = ("m.push_rules", "m.fully_read")


class AccountData:
    """The account data of all local users."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, user_id: UserId, room_id: str, type: str) -> bytes:
        """Return one entry as JSON bytes (`room_id` "" for global data); `NotFound` when there is none."""
        found = await self._store.read(account_data.get, user_id, _room(room_id), type)
        if found is None:
            raise NotFound("There is no account data of this type")
        return found

    async def put(self, user_id: UserId, room_id: str, type: str, content: dict[str, Any]) -> None:
        """Keep one entry, replacing what was there."""
        if type in ELSEWHERE:
            raise MatrixError(f"{type} cannot be set through this endpoint", status=405, errcode="M_BAD_JSON")
        if not type or not ids.fits(type):
            raise InvalidParam("Not a valid type for account data")
        raw = canonical.dumps(content)
        if len(raw) > ENTRY_BYTES:
            raise TooLarge(f"Account data must not exceed {ENTRY_BYTES} bytes")
        await self._store.write(_put, user_id, _room(room_id), type, raw)

    async def tags(self, user_id: UserId, room_id: str) -> dict[str, Any]:
        """Return the tags that a user put on a room."""
        raw = await self._store.read(account_data.get, user_id, ids.room_id(room_id), TAG)
        return _tags(raw)

    async def put_tag(self, user_id: UserId, room_id: str, tag: str, content: dict[str, Any]) -> None:
        """Put a tag on a room; `content` may hold its `order`, a number."""
        if not tag or not ids.fits(tag):
            raise InvalidParam("A tag has 1 to 255 bytes")
        order = content.get("order")
        if order is not None and (isinstance(order, bool) or not isinstance(order, int | float)):
            raise InvalidParam("order must be a number")
        if len(canonical.dumps(content)) > 4096:
            raise TooLarge("A tag must not exceed 4096 bytes")
        await self._store.write(_set_tag, user_id, ids.room_id(room_id), tag, content)

    async def remove_tag(self, user_id: UserId, room_id: str, tag: str) -> None:
        """Take a tag off a room; it need not be there."""
        await self._store.write(_set_tag, user_id, ids.room_id(room_id), tag, None)


def _room(room_id: str) -> str:
    return room_id if room_id == GLOBAL else ids.room_id(room_id)


def _put(tx: Tx, user_id: str, room_id: str, type: str, raw: bytes) -> None:
    there = account_data.get(tx, user_id, room_id, type)
    if there is None and account_data.count(tx, user_id) >= ENTRIES:
        raise TooLarge(f"At most {ENTRIES} entries of account data are kept")
    account_data.put(tx, user_id, room_id, type, raw)


def _tags(raw: bytes | None) -> dict[str, Any]:
    """Read the tags of an `m.tag` document, whatever a client may have written there."""
    tags = canonical.decode_object(raw).get("tags") if raw is not None else None
    return {k: v for k, v in tags.items() if isinstance(v, dict)} if isinstance(tags, dict) else {}


def _set_tag(tx: Tx, user_id: str, room_id: str, tag: str, content: dict[str, Any] | None) -> None:
    tags = _tags(account_data.get(tx, user_id, room_id, TAG))
    if tags.get(tag) == content and (content is not None or tag not in tags):
        return
    if content is None:
        del tags[tag]
    else:
        tags[tag] = content
    if len(tags) > TAGS:
        raise TooLarge(f"A room can have at most {TAGS} tags")
    _put(tx, user_id, room_id, TAG, canonical.dumps({"tags": tags}))

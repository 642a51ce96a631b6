"""Profiles: display name, avatar and further fields (MSC4133), at most 64 KiB per user.

Source: client-server API, "Profiles".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from appliance.matrix import canonical, ids
from appliance.matrix.errors import BadJson, Forbidden, InvalidParam, MatrixError, NotFound
from appliance.matrix.ids import ServerName, UserId
from appliance.matrix.requester import Requester, require_active
from appliance.store import profiles
from appliance.store.database import Store
from appliance.store.profiles import Profile
from appliance.store.writer import Tx

PROFILE_BYTES: Final = 65_536
NAME_LENGTH: Final = 256
AVATAR_LENGTH: Final = 1_000
_KEY: Final = re.compile(r"[a-z][a-z0-9_.-]{0,254}", re.ASCII)
_MXC: Final = re.compile(r"mxc://[0-9A-Za-z.:\[\]-]{1,255}/[0-9A-Za-z_-]{1,255}", re.ASCII)

ProfileChanged = Callable[[UserId], Awaitable[None]]
"""Told after a display name or avatar changed: shows it in the user's rooms."""


class Peers(Protocol):
    """The profiles of other servers' users."""

    def profile(self, user_id: UserId, field: str | None) -> Awaitable[dict[str, Any]]:
        """Return the profile, or one field of it; raises `NotFound`."""
        ...


class Profiles:
    """Who people say they are."""

    def __init__(
        self, store: Store, server: ServerName, changed: ProfileChanged | None = None, peers: Peers | None = None
    ) -> None:
        self._store = store
        self._server = server
        self._changed = changed
        self._peers = peers

    async def get(self, user_id: str) -> dict[str, Any]:
        """Return the whole profile; `NotFound` for somebody unknown."""
        known = ids.user_id(user_id)
        if ids.server_of(known) != self._server:
            return await self._ask(known, None)
        profile = await self._store.read(profiles.get, known)
        if profile is None:
            raise NotFound("Profile not found")
        return rendered(profile)

    async def field(self, user_id: str, key: str) -> dict[str, Any]:
        """Return one field under its own name; `NotFound` when the profile has no such field."""
        _check_key(key)
        known = ids.user_id(user_id)
        if ids.server_of(known) != self._server:
            found = await self._ask(known, key)
        else:
            found = await self.get(known)
        if key not in found:
            raise NotFound("The profile has no such field")
        return {key: found[key]}

    async def set(self, requester: Requester, user_id: str, key: str, value: Any) -> None:
        """Set one field of the requester's own profile; null or "" removes a display name or avatar."""
        self._check_own(requester, user_id, key)
        if key in ("displayname", "avatar_url"):
            value = _checked_text(key, value)
        else:
            canonical.check_canonical(value)
        await self._write(requester.user_id, key, value, remove=key in ("displayname", "avatar_url") and value is None)

    async def remove(self, requester: Requester, user_id: str, key: str) -> None:
        """Remove one field of the requester's own profile; it need not exist."""
        self._check_own(requester, user_id, key)
        await self._write(requester.user_id, key, None, remove=True)

    def _check_own(self, requester: Requester, user_id: str, key: str) -> None:
        _check_key(key)
        ids.user_id(user_id)
        if requester.user_id != user_id:
            raise Forbidden("You can only change your own profile")
        require_active(requester)

    async def _ask(self, user_id: UserId, field: str | None) -> dict[str, Any]:
        if self._peers is None:
            raise NotFound("Profile not found")
        return await self._peers.profile(user_id, field)

    async def _write(self, user_id: UserId, key: str, value: Any, *, remove: bool) -> None:
        visible = await self._store.write(_change, user_id, key, value, remove)
        if visible and self._changed is not None:
            await self._changed(user_id)


def rendered(profile: Profile) -> dict[str, Any]:
    """Return a profile as clients see it; what is not set is not there."""
    body: dict[str, Any] = dict(canonical.decode_object(profile.fields))
    if profile.display_name is not None:
        body["displayname"] = profile.display_name
    if profile.avatar_url is not None:
        body["avatar_url"] = profile.avatar_url
    return body


def _check_key(key: str) -> None:
    if not ids.fits(key):
        raise MatrixError("The name of the field is too long", errcode="M_KEY_TOO_LARGE")
    if _KEY.fullmatch(key) is None:
        raise InvalidParam("Not a valid name for a profile field")


def _checked_text(key: str, value: Any) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadJson(f"{key} must be a string")
    if len(value) > (NAME_LENGTH if key == "displayname" else AVATAR_LENGTH):
        raise InvalidParam(f"{key} is too long")
    if key == "avatar_url" and _MXC.fullmatch(value) is None:
        raise InvalidParam("avatar_url must be an mxc:// address")
    return value


def _change(tx: Tx, user_id: str, key: str, value: Any, remove: bool) -> bool:
    """Change one field; tells whether people in the user's rooms can see the difference."""
    before = profiles.get(tx, user_id) or Profile(user_id, None, None)
    name, avatar = before.display_name, before.avatar_url
    fields = canonical.decode_object(before.fields)
    if key == "displayname":
        name = value
    elif key == "avatar_url":
        avatar = value
    elif remove:
        fields.pop(key, None)
    else:
        fields[key] = value
    after = Profile(user_id, name, avatar, canonical.encode(fields))
    if after == before:
        return False
    if not remove and len(canonical.encode(rendered(after))) > PROFILE_BYTES:
        raise MatrixError(f"A profile must not exceed {PROFILE_BYTES} bytes", errcode="M_PROFILE_TOO_LARGE")
    profiles.put(tx, after)
    return (name, avatar) != (before.display_name, before.avatar_url)

"""OpenID tokens: a short-lived proof for a third party (a video bridge, a TI-Messenger proxy) of who somebody is."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Final

from appliance.accounts.tokens import digest
from appliance.matrix.errors import UnknownToken
from appliance.matrix.ids import UserId
from appliance.store import tokens
from appliance.store.database import Store

LIFE_MS: Final = 3_600_000


class OpenId:
    """Gives tokens to users and says to others whose they are."""

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock

    async def issue(self, user_id: UserId) -> str:
        """Return a token that names the user for one hour. It opens nothing else."""
        token = f"slo_{secrets.token_urlsafe(24)}"
        now = self._clock()
        await self._store.write(tokens.put_openid_token, digest(token), user_id, now + LIFE_MS, now)
        return token

    async def user(self, token: str) -> UserId:
        """Return whom a token names; `UnknownToken` when it is unknown or has run out (the peers' userinfo request)."""
        found = await self._store.read(tokens.openid_user, digest(token), self._clock())
        if found is None:
            raise UnknownToken("Access token unknown or expired")
        return UserId(found)

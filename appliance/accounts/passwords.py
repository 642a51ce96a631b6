"""Passwords: argon2id on a small pool of threads, never on the event loop.

Three passes over 19 MiB: one step above the least that OWASP recommends for argon2id (two passes, 19 MiB), about 45
ms on the appliance's class of processor. More memory would be stronger against an attacker with the stolen file, but
a shift that logs in together would then push the box's caches out; two threads bound the cost at 38 MiB, whatever
arrives.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id

from appliance.matrix.errors import LimitExceeded

PASSES: Final = 3
MEMORY_BYTES: Final = 19 * 1024 * 1024
THREADS: Final = 2
QUEUE: Final = 200
"""Jobs that may wait; at 45 ms and two threads the last of them waits 4.5 seconds."""
MAX_LENGTH: Final = 512
"""Longest password that is looked at, in characters."""


class Passwords:
    """Hash and verify; owns its threads."""

    def __init__(self, passes: int = PASSES, memory_bytes: int = MEMORY_BYTES) -> None:
        self._cost = (passes, memory_bytes)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="passwords")
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Return the argon2id string of a password; `LimitExceeded` when too many are waiting."""
        return await self._run(password, None)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Tell whether the password matches the stored string.

        Where nothing is stored (no such user, no password) the same work is done and the answer is no, so that
        the time of an answer does not tell who has an account.
        """
        return await self._run(password, stored) == stored and stored is not None

    def close(self) -> None:
        """Let the running jobs end and stop the threads."""
        self._pool.shutdown(cancel_futures=True)

    async def _run(self, password: str, stored: str | None) -> str:
        if self._waiting >= QUEUE:
            raise LimitExceeded(2000, "Too many people are logging in at this moment")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._pool, _work, password.encode(), stored, self._cost)
        finally:
            self._waiting -= 1


def _work(password: bytes, stored: str | None, cost: tuple[int, int]) -> str:
    """Hash, or verify: then the stored string comes back if the password is right, and "" if not."""
    if stored is None:
        return argon2id.str(password, *cost).rstrip(b"\0").decode()
    try:
        argon2id.verify(stored.encode(), password)
    except CryptoError:
        return ""
    return stored

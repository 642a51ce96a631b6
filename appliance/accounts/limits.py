"""Rate limits: a token bucket per kind of request and caller.

`Limits` is what the doors ask before a handler runs. The kinds are values, and so is "no limits". Memory is bounded:
a bucket that is full again says nothing and is dropped when room is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from appliance.matrix.errors import LimitExceeded


class Rate(msgspec.Struct, frozen=True):
    """`burst` requests at once, `per_second` of them coming back each second."""

    per_second: float
    burst: int


RATES: Final[Mapping[str, Rate]] = MappingProxyType({
    "default": Rate(50, 200),
    "message": Rate(10, 50),
    "login": Rate(1, 30),
    "login_failed": Rate(0.1, 6),
    "register": Rate(0.5, 20),
    "name_check": Rate(2, 60),
    "provision": Rate(20, 200),
    "upload": Rate(5, 50),
    "search": Rate(5, 30),
    "join": Rate(2, 20),
    "create_room": Rate(0.5, 15),
    "invite": Rate(5, 50),
    "report": Rate(0.2, 10),
})
"""What a person with several devices never reaches, and a script at once. `login_failed` counts per account, the
other kinds without a token per address."""

BUCKETS: Final = 20_000


class _Bucket:
    __slots__ = ("left", "when")

    def __init__(self, left: float, when: int) -> None:
        self.left = left
        self.when = when


class Limits:
    """The buckets of all callers. `rates` None switches every limit off."""

    def __init__(self, clock: Callable[[], int], rates: Mapping[str, Rate] | None = RATES) -> None:
        self._clock = clock
        self._rates = rates
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def __call__(self, kind: str, key: str) -> None:
        """Count one request; `LimitExceeded` when the bucket is empty. An unknown kind counts as `default`."""
        self._take(kind, key, 1.0)

    def check(self, kind: str, key: str) -> None:
        """Raise `LimitExceeded` if a request would be refused now, without counting one."""
        self._take(kind, key, 0.0)

    def _take(self, kind: str, key: str, amount: float) -> None:
        if self._rates is None:
            return
        rate = self._rates.get(kind)
        if rate is None:
            kind, rate = "default", self._rates.get("default", RATES["default"])
        now = self._clock()
        bucket = self._buckets.get((kind, key))
        if bucket is None:
            bucket = self._new(kind, key, rate, now)
        elapsed = max(0, now - bucket.when) / 1000
        bucket.left = min(float(rate.burst), bucket.left + elapsed * rate.per_second)
        bucket.when = now
        if bucket.left < 1.0:
            raise LimitExceeded(max(1, math.ceil((1.0 - bucket.left) / rate.per_second * 1000)))
        bucket.left -= amount

    def _new(self, kind: str, key: str, rate: Rate, now: int) -> _Bucket:
        if len(self._buckets) >= BUCKETS:
            self._make_room(now)
        bucket = self._buckets[kind, key] = _Bucket(float(rate.burst), now)
        return bucket

    def _make_room(self, now: int) -> None:
        """Drop the buckets that are full again, and if that is not enough the oldest tenth."""
        rates = self._rates or {}
        full = [
            key for key, bucket in self._buckets.items()
            if (rate := rates.get(key[0])) is None
            or bucket.left + (now - bucket.when) / 1000 * rate.per_second >= rate.burst
        ]
        for key in full or list(self._buckets)[: BUCKETS // 10]:
            del self._buckets[key]

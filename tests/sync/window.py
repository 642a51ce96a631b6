"""What the tests of the sliding sync share: one way to ask."""

from __future__ import annotations

from typing import Any

import orjson

from appliance.matrix.requester import Requester
from appliance.sync.sliding_ask import (
    Extensions,
    LettersAsk,
    ListAsk,
    ListFilter,
    RoomConfig,
    Scope,
    SlidingAsk,
    required_state,
)
from tests.sync.station import Station

EVERYTHING = [("*", "*")]
LAZY = [("m.room.create", ""), ("m.room.member", "$LAZY"), ("m.room.member", "$ME")]
ALL = Extensions(LettersAsk(0, 100), True, Scope(), Scope(), Scope())


def config(limit: int = 10, wanted: Any = (), user_id: str = "@me:x") -> RoomConfig:
    return RoomConfig(limit, required_state(wanted, user_id))


async def slide(w: Station, who: Requester, pos: str | None = None, *, limit: int = 10, wanted: Any = (),
                upto: int | None = None, only: ListFilter | None = None, **more: Any) -> Any:
    """Ask with one list called `all` that ends at index `upto`."""
    ranges = None if upto is None else ((0, upto),)
    asked = ListAsk(config(limit, wanted, who.user_id), ranges, only or ListFilter())
    more.setdefault("lists", {"all": asked})
    ask = SlidingAsk(who, pos=pos, presence="offline", **more)
    return orjson.loads(orjson.dumps(await w.sliding.answer(ask)))

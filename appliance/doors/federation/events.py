"""A room's graph: events, what authorises them, the state before them, and the past.

Source: server-server API, "Retrieving events", "Backfilling and retrieving missing events".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from appliance.doors import fields
from appliance.doors.federation.entry import PeerCall, PeerRoute
from appliance.matrix import ids
from appliance.matrix.errors import InvalidParam, MissingParam
from appliance.matrix.ids import ServerName
from appliance.rooms import serving
from appliance.rooms.serving import BACKFILLED, MISSING, Asking, Between
from appliance.store.database import Store

V1: Final = "/_matrix/federation/v1"
NAMED: Final = 100
"""Events that one question may name."""
SOME: Final = 10


def routes(store: Store, home: ServerName, clock: Callable[[], int]) -> list[PeerRoute]:
    """List the operations; all but the first are about a room that the peer must take part in."""

    def transaction(pdus: Sequence[serving.Pdu]) -> dict[str, Any]:
        return {"origin": home, "origin_server_ts": clock(), "pdus": pdus}

    async def event(call: PeerCall) -> dict[str, Any]:
        return transaction([await store.read(serving.one_event, _asking(call, home), _event(call))])

    async def event_auth(call: PeerCall) -> dict[str, Any]:
        return {"auth_chain": await store.read(serving.event_auth, _asking(call, home), _room(call), _event(call))}

    async def state(call: PeerCall) -> dict[str, Any]:
        found = await store.read(serving.state_before, _asking(call, home), _room(call), _moment(call))
        return {"pdus": [one.pdu for one in found.state], "auth_chain": [one.pdu for one in found.auth_chain]}

    async def state_ids(call: PeerCall) -> dict[str, Any]:
        found = await store.read(serving.state_before, _asking(call, home), _room(call), _moment(call))
        return {
            "pdu_ids": [one.event_id for one in found.state],
            "auth_chain_ids": [one.event_id for one in found.auth_chain],
        }

    async def backfill(call: PeerCall) -> dict[str, Any]:
        limit = call.call.query_int("limit", SOME, 1, BACKFILLED)
        return transaction(await store.read(serving.backfill, _asking(call, home), _room(call), _start(call), limit))

    async def missing(call: PeerCall) -> dict[str, Any]:
        return {"events": await store.read(serving.missing, _asking(call, home), _room(call), _between(call))}

    return [
        _nearest(store, home),
        PeerRoute("GET", V1 + "/event/{event_id}", event),
        PeerRoute("GET", V1 + "/event_auth/{room_id}/{event_id}", event_auth),
        PeerRoute("GET", V1 + "/state/{room_id}", state),
        PeerRoute("GET", V1 + "/state_ids/{room_id}", state_ids),
        PeerRoute("GET", V1 + "/backfill/{room_id}", backfill),
        PeerRoute("POST", V1 + "/get_missing_events/{room_id}", missing),
    ]


def _nearest(store: Store, home: ServerName) -> PeerRoute:
    async def nearest(call: PeerCall) -> dict[str, Any]:
        direction = call.call.query("dir")
        if direction not in ("f", "b") or call.call.query("ts") is None:
            raise InvalidParam("ts must be a time, and dir f or b")
        read = partial(serving.nearest, forwards=direction == "f")
        found = await store.read(read, _asking(call, home), _room(call), call.call.query_int("ts", 0))
        return {"event_id": found.event_id, "origin_server_ts": found.origin_server_ts}

    return PeerRoute("GET", V1 + "/timestamp_to_event/{room_id}", nearest)


def _asking(call: PeerCall, home: ServerName) -> Asking:
    return Asking(call.peer, home)


def _room(call: PeerCall) -> str:
    return ids.room_id(call.call.path("room_id"))


def _event(call: PeerCall) -> str:
    return ids.event_id(call.call.path("event_id"))


def _moment(call: PeerCall) -> str:
    text = call.call.query("event_id")
    if text is None:
        raise MissingParam("event_id must name the event before which the state is wanted")
    return ids.event_id(text)


def _start(call: PeerCall) -> list[str]:
    start = call.call.query_all("v")
    if not start:
        raise MissingParam("v must name at least one event")
    if len(start) > NAMED:
        raise InvalidParam(f"At most {NAMED} events can be named")
    return [ids.event_id(text) for text in start]


def _between(call: PeerCall) -> Between:
    body = call.content
    limit = fields.optional_integer(body, "limit")
    return Between(
        earliest=fields.strings(body, "earliest_events", maximum=NAMED),
        latest=fields.strings(body, "latest_events", maximum=NAMED),
        limit=min(SOME if limit is None else limit, MISSING),
        min_depth=fields.optional_integer(body, "min_depth") or 0,
    )

"""The classic sync, and the filters it takes."""

from __future__ import annotations

from typing import Any, Final

from appliance.accounts.devices import require_own
from appliance.doors.web import Call, Route
from appliance.matrix import canonical
from appliance.matrix.errors import MissingParam
from appliance.matrix.tokens import stream_token
from appliance.sync.ask import Ask
from appliance.sync.filters import Filters
from appliance.sync.sync import Sync

CLIENT: Final = "/_matrix/client/v3"
STATE_AFTER: Final = "use_state_after"
UNSTABLE_STATE_AFTER: Final = "org.matrix.msc4222.use_state_after"


def routes(sync: Sync, filters: Filters) -> list[Route]:
    """Return the operations of the classic sync."""

    async def get_sync(call: Call) -> dict[str, Any]:
        since = call.query("since")
        unstable = call.query_bool(UNSTABLE_STATE_AFTER)
        ask = Ask(
            call.requester,
            since=stream_token(since) if since else None,
            filter=await filters.resolve(call.requester.user_id, call.query("filter")),
            full_state=call.query_bool("full_state"),
            state_after=unstable or call.query_bool(STATE_AFTER),
            unstable_names=unstable,
            timeout=call.query_int("timeout", 0),
            presence=call.query_choice("set_presence", ("online", "offline", "unavailable"), "online"),
        )
        with call.patient():
            return await sync.answer(ask)

    async def get_key_changes(call: Call) -> dict[str, Any]:
        tokens = [call.query(name) for name in ("from", "to")]
        if not all(tokens):
            raise MissingParam("from and to are needed")
        since, upto = (stream_token(token or "") for token in tokens)
        found = await sync.key_changes(call.requester.user_id, since, upto)
        return {"changed": sorted(found.changed), "left": sorted(found.left)}

    async def post_filter(call: Call) -> dict[str, Any]:
        require_own(call.requester, call.path("user_id"))
        return {"filter_id": await filters.put(call.requester.user_id, await call.json())}

    async def get_filter(call: Call) -> dict[str, Any]:
        require_own(call.requester, call.path("user_id"))
        return canonical.decode_object(await filters.get(call.requester.user_id, call.path("filter_id")))

    return [
        Route("GET", CLIENT + "/sync", get_sync, rate="sync"),
        Route("GET", CLIENT + "/keys/changes", get_key_changes),
        Route("POST", CLIENT + "/user/{user_id}/filter", post_filter),
        Route("GET", CLIENT + "/user/{user_id}/filter/{filter_id}", get_filter),
    ]

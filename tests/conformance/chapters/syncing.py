"""Sync v2 in all its shapes, filters, and simplified sliding sync."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.chapters.talking import conversation
from tests.conformance.walk import Walk, segment

SLIDING = "/unstable/org.matrix.simplified_msc3575/sync"


async def sync(w: Walk) -> None:
    c = await conversation(w, "syncer")
    invited = await c.bob.create_room(invite=[c.ada.user_id], name="Invitation")
    left = await c.bob.create_room(preset="public_chat")
    await c.ada.join(left)
    first = await w(c.ada, "GET", "/v3/sync", params={"timeout": "0", "set_presence": "offline"})
    assert first["rooms"]["join"].keys() >= {c.room, left}
    assert first["rooms"]["invite"].keys() == {invited}
    for number in range(30):
        await c.bob.send(c.room, {"msgtype": "m.text", "body": str(number)})
    await c.ada.call("POST", f"/v3/rooms/{segment(left)}/leave", {})
    await c.bob.call("PUT", f"{c.here}/typing/{segment(c.bob.user_id)}", {"typing": True, "timeout": 30000})
    since = {"since": first["next_batch"], "timeout": "0"}
    limited = json.dumps({"room": {"timeline": {"limit": 5}, "state": {"lazy_load_members": True}}})
    got = await w(c.ada, "GET", "/v3/sync", params={**since, "filter": limited})
    assert got["rooms"]["join"][c.room]["timeline"]["limited"] is True
    assert left in got["rooms"]["leave"]
    await w(c.ada, "GET", "/v3/sync", params={**since, "full_state": "true"})
    await w(c.ada, "GET", "/v3/sync", params={**since, "filter": limited, "use_state_after": "true"})
    fields = ["type", "content", "event_id", "sender", "origin_server_ts"]
    leave = json.dumps({"room": {"include_leave": True}, "event_format": "client", "event_fields": fields})
    await w(c.ada, "GET", "/v3/sync", params={"timeout": "0", "filter": leave})
    await w(c.ada, "GET", "/v3/sync", params={"since": got["next_batch"], "timeout": "50"})
    await w(c.ada, "GET", "/v3/sync", params={"since": "nonsense"}, expect=400)
    await w(c.ada, "GET", "/v3/sync", params={"filter": "{no json"}, expect=400)
    await w(None, "GET", "/v3/sync", expect=401)


async def filters(w: Walk) -> None:
    ada = await w.person("filterer")
    mine = f"/v3/user/{segment(ada.user_id)}/filter"
    body = {
        "room": {"timeline": {"limit": 5, "not_senders": ["@x:y"]}, "rooms": ["!none:here"], "include_leave": True},
        "presence": {"types": ["m.presence"]},
        "account_data": {"not_types": ["m.*"]},
        "event_format": "client",
    }
    number = (await w(ada, "POST", mine, body)).get("filter_id", "")
    assert await w(ada, "GET", f"{mine}/{number}") == body
    await w(ada, "GET", f"{mine}/987654", expect=404)
    await w(ada, "GET", "/v3/sync", params={"filter": number, "timeout": "0"})
    await w(ada, "POST", mine, {"room": {"timeline": {"limit": "many"}}}, expect=400)
    await w(ada, "POST", "/v3/user/%40somebody%3Aelse/filter", body, expect=403)


def sliding_faults(got: dict[str, Any]) -> list[str]:
    """Return what a simplified sliding sync answer (MSC4186) has wrong; it has no published schema."""
    faults = [] if isinstance(got.get("pos"), str) else ["pos is not a string"]
    for name, listing in got.get("lists", {}).items():
        if not isinstance(listing.get("count"), int):
            faults.append(f"list {name} without count")
    for room_id, room in got.get("rooms", {}).items():
        for key, kind in (("required_state", list), ("timeline", list), ("initial", bool), ("bump_stamp", int)):
            if key in room and not isinstance(room[key], kind):
                faults.append(f"{room_id}: {key} is no {kind.__name__}")
        for event in room.get("timeline", []):
            faults += [f"{room_id}: event without {key}" for key in ("type", "sender", "event_id") if key not in event]
    return faults


async def sliding(w: Walk) -> None:
    c = await conversation(w, "slider")
    extensions = {
        name: {"enabled": True}
        for name in ("to_device", "e2ee", "account_data", "receipts", "typing", "thread_subscriptions")
    }
    state = [["m.room.create", ""], ["m.room.member", "$LAZY"], ["m.room.member", "$ME"], ["m.room.name", "*"]]
    lists = {
        "all": {"ranges": [[0, 19]], "timeline_limit": 5, "required_state": state, "filters": {"is_invite": False}}
    }
    body: dict[str, Any] = {"conn_id": "main", "lists": lists, "extensions": extensions}
    got = await w(c.ada, "POST", SLIDING, body, params={"timeout": "0"})
    assert got["lists"]["all"]["count"] == 1
    assert c.room in got["rooms"]
    assert got["rooms"][c.room].get("initial") is True
    w.faults += sliding_faults(got)
    await c.bob.send(c.room, {"msgtype": "m.text", "body": "news"})
    got = await w(c.ada, "POST", SLIDING, body, params={"timeout": "1000", "pos": got["pos"]})
    assert [event["content"].get("body") for event in got["rooms"][c.room]["timeline"]] == ["news"], got
    w.faults += sliding_faults(got)
    single = {"conn_id": "main", "room_subscriptions": {c.room: {"timeline_limit": 20, "required_state": [["*", "*"]]}}}
    got = await w(c.ada, "POST", SLIDING, single, params={"timeout": "0", "pos": got["pos"]})
    w.faults += sliding_faults(got)
    await w(c.ada, "POST", SLIDING, body, params={"pos": "nonsense"}, expect=400)


CHAPTERS = (sync, filters, sliding)

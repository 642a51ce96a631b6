"""Events: sending, reading back, relating, searching, reporting."""

from __future__ import annotations

from dataclasses import dataclass

from tests.conformance.walk import Walk, segment, transaction_id
from tests.world.client import Client


@dataclass(frozen=True, slots=True)
class Conversation:
    """Two people in a room with one message to talk about."""

    ada: Client
    bob: Client
    room: str
    event: str

    @property
    def here(self) -> str:
        return f"/v3/rooms/{segment(self.room)}"

    @property
    def here1(self) -> str:
        return f"/v1/rooms/{segment(self.room)}"


async def conversation(w: Walk, name: str) -> Conversation:
    ada, bob = await w.person(f"{name}a"), await w.person(f"{name}b")
    room = await ada.create_room(preset="public_chat", name=name)
    await bob.join(room)
    return Conversation(ada, bob, room, await ada.send(room, {"msgtype": "m.text", "body": f"needle {w.run}"}))


async def sending(w: Walk) -> None:
    c = await conversation(w, "sender")
    message = {
        "msgtype": "m.text",
        "body": "good morning",
        "format": "org.matrix.custom.html",
        "formatted_body": "<b>x</b>",
    }
    txn = transaction_id()
    first = await w(c.ada, "PUT", f"{c.here}/send/m.room.message/{txn}", message)
    again = await w(c.ada, "PUT", f"{c.here}/send/m.room.message/{txn}", message)
    assert first == again
    await w(c.ada, "PUT", f"{c.here}/state/m.room.topic/", {"topic": "new"})
    await w(c.ada, "PUT", f"{c.here}/state/m.room.name", {"name": "without a slash"})
    await w(c.ada, "PUT", f"{c.here}/state/org.example.thing/a%2Fb", {"x": [1, {"y": None}]})
    await w(c.bob, "PUT", f"{c.here}/state/m.room.topic/", {"topic": "no power"}, expect=403)
    await w(c.bob, "GET", f"{c.here}/state")
    await w(c.bob, "GET", f"{c.here}/state/m.room.topic/")
    await w(c.bob, "GET", f"{c.here}/state/m.room.name")
    await w(c.bob, "GET", f"{c.here}/state/org.example.thing/a%2Fb")
    await w(c.bob, "GET", f"{c.here}/state/m.room.topic/", params={"format": "event"})
    await w(c.bob, "GET", f"{c.here}/state/m.nothing/", expect=404)
    target = (await w(c.bob, "PUT", f"{c.here}/send/m.room.message/{transaction_id()}", message)).get("event_id", "")
    await w(c.ada, "PUT", f"{c.here}/redact/{segment(target)}/{transaction_id()}", {"reason": "wrong bed"})
    await w(c.ada, "GET", f"{c.here}/event/{segment(target)}")
    stranger = await w.person("stranger")
    closed = await c.ada.create_room(preset="private_chat")
    path = f"/v3/rooms/{segment(closed)}"
    await w(stranger, "PUT", f"{path}/send/m.room.message/{transaction_id()}", message, expect=403)
    await w(stranger, "GET", f"{path}/state", expect=403)


async def reading(w: Walk) -> None:
    c = await conversation(w, "reader")
    for number in range(12):
        await c.bob.send(c.room, {"msgtype": "m.text", "body": f"{number}"})
    await w(c.ada, "GET", f"{c.here}/event/{segment(c.event)}")
    await w(c.ada, "GET", f"{c.here}/event/{segment('$nothing')}", expect=404)
    for limit in ("0", "1", "10"):
        await w(c.ada, "GET", f"{c.here}/context/{segment(c.event)}", params={"limit": limit})
    lazy = '{"lazy_load_members":true,"types":["m.room.message"]}'
    page = await w(c.ada, "GET", f"{c.here}/messages", params={"dir": "b", "limit": "5", "filter": lazy})
    await w(c.ada, "GET", f"{c.here}/messages", params={"dir": "b", "limit": "50", "from": page.get("end", "")})
    await w(c.ada, "GET", f"{c.here}/messages", params={"dir": "f", "limit": "5"})
    await w(c.ada, "GET", f"{c.here}/messages", params={"dir": "sideways"}, expect=400)
    await w(c.ada, "GET", f"{c.here}/messages", params={"dir": "b", "from": "nonsense"}, expect=400)
    await w(c.ada, "GET", f"{c.here}/members")
    await w(c.ada, "GET", f"{c.here}/members", params={"membership": "join"})
    await w(c.ada, "GET", f"{c.here}/members", params={"not_membership": "leave"})
    await w(c.ada, "GET", f"{c.here}/joined_members")
    for direction in ("f", "b"):
        ts = {"ts": "0" if direction == "f" else "99999999999999", "dir": direction}
        await w(c.ada, "GET", f"{c.here1}/timestamp_to_event", params=ts)
    await w(c.ada, "GET", f"{c.here1}/timestamp_to_event", params={"ts": "99999999999999", "dir": "f"}, expect=404)


async def relating(w: Walk) -> None:
    c = await conversation(w, "relater")
    thread = {"m.relates_to": {"rel_type": "m.thread", "event_id": c.event}}
    inner = await c.bob.send(c.room, {"msgtype": "m.text", "body": "in a thread", **thread})
    await c.bob.send(
        c.room, {"m.relates_to": {"rel_type": "m.annotation", "event_id": c.event, "key": "+"}}, "m.reaction"
    )
    again = {
        "m.relates_to": {"rel_type": "m.replace", "event_id": c.event},
        "m.new_content": {"msgtype": "m.text", "body": "y"},
    }
    await c.ada.send(c.room, {"msgtype": "m.text", "body": "* y", **again})
    await c.bob.send(c.room, {"m.relates_to": {"rel_type": "m.reference", "event_id": c.event}}, "org.example.ref")
    base = f"{c.here1}/relations/{segment(c.event)}"
    page = await w(c.ada, "GET", base, params={"limit": "1"})
    await w(c.ada, "GET", base, params={"from": page.get("next_batch", ""), "limit": "10", "recurse": "true"})
    await w(c.ada, "GET", base, params={"dir": "f"})
    await w(c.ada, "GET", f"{base}/m.thread")
    await w(c.ada, "GET", f"{base}/m.annotation/m.reaction")
    await w(c.ada, "GET", f"{c.here1}/relations/{segment('$nothing')}", expect=404)
    await w(c.ada, "GET", f"{c.here1}/threads", params={"include": "all", "limit": "5"})
    await w(c.ada, "GET", f"{c.here1}/threads", params={"include": "participated"})
    await w(c.ada, "POST", f"{c.here}/receipt/m.read/{segment(inner)}", {"thread_id": c.event})
    await w(c.ada, "POST", f"{c.here}/receipt/m.read.private/{segment(c.event)}", {})
    await w(c.ada, "POST", f"{c.here}/receipt/m.fully_read/{segment(c.event)}", {})
    await w(c.ada, "POST", f"{c.here}/receipt/m.nonsense/{segment(c.event)}", {}, expect=400)
    await w(
        c.ada, "POST", f"{c.here}/read_markers", {"m.fully_read": c.event, "m.read": c.event, "m.read.private": c.event}
    )
    await w(c.bob, "PUT", f"{c.here}/typing/{segment(c.bob.user_id)}", {"typing": True, "timeout": 30000})
    await w(c.bob, "PUT", f"{c.here}/typing/{segment(c.ada.user_id)}", {"typing": True}, expect=403)
    await w(c.ada, "GET", "/v3/sync", params={"timeout": "0"})
    await w(c.bob, "PUT", f"{c.here}/typing/{segment(c.bob.user_id)}", {"typing": False})


async def finding(w: Walk) -> None:
    c = await conversation(w, "finder")
    events = {
        "search_term": f"needle {w.run}",
        "order_by": "recent",
        "event_context": {"before_limit": 1, "after_limit": 1, "include_profile": True},
        "include_state": True,
        "groupings": {"group_by": [{"key": "room_id"}, {"key": "sender"}]},
    }
    got = await w(c.bob, "POST", "/v3/search", {"search_categories": {"room_events": events}})
    assert got.get("search_categories", {}).get("room_events", {}).get("count") == 1, got
    await w(c.bob, "POST", "/v3/search", {"search_categories": {}})
    await w(c.bob, "POST", "/v3/user_directory/search", {"search_term": "findera", "limit": 3})
    await w(c.bob, "POST", f"{c.here}/report/{segment(c.event)}", {"reason": "rude", "score": -100})
    await w(c.bob, "POST", f"{c.here}/report", {"reason": "spam"})
    await w(c.bob, "POST", f"/v3/users/{segment(c.ada.user_id)}/report", {"reason": "spam"})
    await w(c.bob, "GET", "/v3/notifications", params={"limit": "5"})


CHAPTERS = (sending, reading, relating, finding)

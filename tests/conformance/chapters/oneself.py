"""Profile, presence, account data, tags, push rules, pushers."""

from __future__ import annotations

from tests.conformance.chapters.talking import conversation
from tests.conformance.walk import Walk, segment


async def profile(w: Walk) -> None:
    c = await conversation(w, "profiler")
    mine = f"/v3/profile/{segment(c.ada.user_id)}"
    await w(c.ada, "PUT", f"{mine}/displayname", {"displayname": "Schwester Ada"})
    await w(c.ada, "PUT", f"{mine}/avatar_url", {"avatar_url": "mxc://localhost/abcdef"})
    await w(c.ada, "PUT", f"{mine}/m.tz", {"m.tz": "Europe/Berlin"})
    await w(c.ada, "PUT", f"{mine}/org.example.ward", {"org.example.ward": {"floor": 3}})
    await w(c.bob, "PUT", f"{mine}/displayname", {"displayname": "not me"}, expect=403)
    for field in ("", "/displayname", "/avatar_url", "/m.tz", "/org.example.ward"):
        await w(c.bob, "GET", mine + field)
    await w(c.ada, "DELETE", f"{mine}/org.example.ward")
    await w(c.bob, "GET", f"{mine}/org.example.ward", expect=404)
    await w(c.bob, "GET", f"/v3/profile/{segment('@nobody:' + c.ada.user_id.split(':', 1)[1])}", expect=404)
    await w(c.bob, "GET", f"{c.here}/members")


async def presence(w: Walk) -> None:
    c = await conversation(w, "present")
    mine = f"/v3/presence/{segment(c.ada.user_id)}/status"
    await w(c.ada, "PUT", mine, {"presence": "unavailable", "status_msg": "in theatre"})
    await w(c.bob, "GET", mine)
    await w(c.bob, "PUT", mine, {"presence": "online"}, expect=403)
    await w(c.ada, "PUT", mine, {"presence": "dancing"}, expect=400)
    await w(c.bob, "GET", "/v3/sync", params={"timeout": "0"})


async def account_data(w: Walk) -> None:
    c = await conversation(w, "noter")
    mine = f"/v3/user/{segment(c.ada.user_id)}"
    room = f"{mine}/rooms/{segment(c.room)}"
    await w(c.ada, "PUT", f"{mine}/account_data/org.example.note", {"a": 1})
    await w(c.ada, "GET", f"{mine}/account_data/org.example.note")
    await w(c.ada, "PUT", f"{mine}/account_data/m.direct", {c.bob.user_id: [c.room]})
    await w(c.ada, "PUT", f"{mine}/account_data/m.ignored_user_list", {"ignored_users": {"@x:y.invalid": {}}})
    await w(c.ada, "GET", f"{mine}/account_data/org.example.none", expect=404)
    await w(c.bob, "GET", f"{mine}/account_data/org.example.note", expect=403)
    await w(c.ada, "PUT", f"{mine}/account_data/m.fully_read", {}, expect=405)
    await w(c.ada, "PUT", f"{mine}/account_data/m.push_rules", {}, expect=405)
    await w(c.ada, "PUT", f"{room}/account_data/org.example.note", {"b": 2})
    await w(c.ada, "GET", f"{room}/account_data/org.example.note")
    await w(c.ada, "GET", f"{room}/account_data/org.example.none", expect=404)
    await w(c.ada, "PUT", f"{room}/tags/m.favourite", {"order": 0.5})
    await w(c.ada, "PUT", f"{room}/tags/u.night", {})
    await w(c.ada, "GET", f"{room}/tags")
    await w(c.ada, "GET", "/v3/sync", params={"timeout": "0"})
    await w(c.ada, "DELETE", f"{room}/tags/m.favourite")
    assert (await w(c.ada, "GET", f"{room}/tags")).get("tags") == {"u.night": {}}


async def push_rules(w: Walk) -> None:
    c = await conversation(w, "pushed")
    await w(c.ada, "GET", "/v3/pushrules/")
    await w(c.ada, "GET", "/v3/pushrules/global/")
    rules = "/v3/pushrules/global"
    condition = {"kind": "event_match", "key": "content.body", "pattern": "stat"}
    bodies = {
        f"room/{segment(c.room)}": {"actions": []},
        f"sender/{segment(c.bob.user_id)}": {"actions": ["notify"]},
        "content/stat": {"actions": ["notify", {"set_tweak": "highlight"}], "pattern": "st?t*"},
        "override/mine": {"actions": ["notify", {"set_tweak": "sound", "value": "ring"}], "conditions": [condition]},
        "underride/mine": {"actions": [], "conditions": [{"kind": "room_member_count", "is": ">2"}]},
    }
    for name, body in bodies.items():
        await w(c.ada, "PUT", f"{rules}/{name}", body)
        await w(c.ada, "GET", f"{rules}/{name}")
        await w(c.ada, "PUT", f"{rules}/{name}/enabled", {"enabled": False})
        assert (await w(c.ada, "GET", f"{rules}/{name}/enabled")).get("enabled") is False
        await w(c.ada, "PUT", f"{rules}/{name}/actions", {"actions": ["notify"]})
        assert (await w(c.ada, "GET", f"{rules}/{name}/actions")).get("actions") == ["notify"]
    await w(c.ada, "PUT", f"{rules}/override/second", {"actions": [], "conditions": []}, params={"before": "mine"})
    await w(c.ada, "GET", "/v3/pushrules/")
    await w(c.ada, "PUT", f"{rules}/override/.m.rule.master/enabled", {"enabled": False})
    for name in bodies:
        await w(c.ada, "DELETE", f"{rules}/{name}")
        await w(c.ada, "GET", f"{rules}/{name}", expect=404)
    await w(c.ada, "PUT", f"{rules}/override/.mine", {"actions": []}, expect=400)
    await w(c.ada, "PUT", f"{rules}/nonsense/mine", {"actions": []}, expect=400)


async def pushers(w: Walk) -> None:
    c = await conversation(w, "phoned")
    data = {"url": "https://push.invalid/_matrix/push/v1/notify", "format": "event_id_only"}
    body = {
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": "k1",
        "app_display_name": "App",
        "device_display_name": "Phone",
        "lang": "de",
        "data": data,
        "profile_tag": "x",
    }
    await w(c.ada, "POST", "/v3/pushers/set", body)
    assert len((await w(c.ada, "GET", "/v3/pushers")).get("pushers", [])) == 1
    await w(c.ada, "POST", "/v3/pushers/set", {**body, "data": {"url": "ftp://nowhere"}}, expect=400)
    await c.bob.send(
        c.room, {"msgtype": "m.text", "body": f"hey {c.ada.user_id}", "m.mentions": {"user_ids": [c.ada.user_id]}}
    )
    await w(c.ada, "GET", "/v3/notifications", params={"limit": "3", "only": "highlight"})
    got = await w(c.ada, "GET", "/v3/notifications", params={"limit": "1"})
    if got.get("next_token"):
        await w(c.ada, "GET", "/v3/notifications", params={"from": got["next_token"]})
    await w(c.ada, "POST", "/v3/pushers/set", {"kind": None, "app_id": "org.example.app", "pushkey": "k1"})
    assert (await w(c.ada, "GET", "/v3/pushers")).get("pushers") == []


CHAPTERS = (profile, presence, account_data, push_rules, pushers)

"""Rooms: making, finding, entering, leaving, moderating, upgrading."""

from __future__ import annotations

from typing import Any

from tests.conformance.walk import Walk, segment
from tests.world.client import Client


async def making(w: Walk) -> None:
    ada, bob = await w.person("maker"), await w.person("guest")
    await w(ada, "POST", "/v3/createRoom", {})
    for version in ("9", "10", "11", "12"):
        body = {"room_version": version, "name": f"v{version}", "invite": [bob.user_id], "creation_content": {"x": 1}}
        room = (await w(ada, "POST", "/v3/createRoom", body)).get("room_id", "")
        await w(bob, "POST", f"/v3/rooms/{segment(room)}/join", {})
        await w(bob, "GET", f"/v3/rooms/{segment(room)}/state")
    await w(ada, "POST", "/v3/createRoom", {"room_version": "no-such"}, expect=400)
    await w(ada, "POST", "/v3/createRoom", {"preset": "no-such"}, expect=400)
    encryption = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    private: dict[str, Any] = {
        "preset": "trusted_private_chat",
        "topic": "Bed 4",
        "is_direct": True,
        "invite": [bob.user_id],
        "initial_state": [encryption],
        "power_level_content_override": {"users_default": 10},
    }
    await w(ada, "POST", "/v3/createRoom", private)
    await w(ada, "GET", "/v3/joined_rooms")


async def entering(w: Walk) -> None:
    ada, bob, eve = await w.person("host"), await w.person("joiner"), await w.person("stranger")
    domain = ada.user_id.split(":", 1)[1]
    alias = f"#ward{w.run}:{domain}"
    body = {"preset": "public_chat", "visibility": "public", "name": "Ward", "room_alias_name": f"ward{w.run}"}
    room = (await w(ada, "POST", "/v3/createRoom", body)).get("room_id", "")
    here = f"/v3/rooms/{segment(room)}"
    await w(bob, "POST", f"/v3/join/{segment(alias)}", {"reason": "on duty"})
    await w(bob, "POST", f"/v3/join/{segment(room)}", {})
    await w(eve, "POST", f"{here}/join", {})
    await w(bob, "POST", f"{here}/leave", {"reason": "off duty"})
    await w(bob, "POST", f"{here}/forget", {})
    await w(ada, "POST", f"{here}/forget", {}, expect=400)
    await w(bob, "POST", f"/v3/join/{segment('#nowhere' + w.run + ':' + domain)}", {}, expect=404)
    await names(w, ada, eve, room, domain)


async def names(w: Walk, ada: Client, eve: Client, room: str, domain: str) -> None:
    """Aliases and the two directories."""
    other = segment(f"#other{w.run}:{domain}")
    await w(ada, "PUT", f"/v3/directory/room/{other}", {"room_id": room})
    await w(ada, "PUT", f"/v3/directory/room/{other}", {"room_id": room}, expect=409)
    await w(None, "GET", f"/v3/directory/room/{other}")
    await w(ada, "GET", f"/v3/rooms/{segment(room)}/aliases")
    await w(eve, "DELETE", f"/v3/directory/room/{other}", expect=403)
    await w(ada, "DELETE", f"/v3/directory/room/{other}")
    await w(ada, "DELETE", f"/v3/directory/room/{other}", expect=404)
    await w(None, "GET", f"/v3/directory/room/{other}", expect=404)
    await w(None, "GET", f"/v3/directory/list/room/{segment(room)}")
    await w(ada, "PUT", f"/v3/directory/list/room/{segment(room)}", {"visibility": "private"})
    await w(ada, "PUT", f"/v3/directory/list/room/{segment(room)}", {"visibility": "public"})
    await w(ada, "GET", "/v3/publicRooms", params={"limit": "1"})
    await w(ada, "POST", "/v3/publicRooms", {"limit": 3, "filter": {"generic_search_term": "ward"}})
    await w(eve, "GET", f"/v1/room_summary/{segment(room)}")
    await w(eve, "GET", f"/v1/room_summary/{segment(f'#ward{w.run}:{domain}')}")


async def moderating(w: Walk) -> None:
    ada, bob, eve = await w.person("chief"), await w.person("staff"), await w.person("visitor")
    room = await ada.create_room(preset="private_chat")
    here = f"/v3/rooms/{segment(room)}"
    await w(eve, "POST", f"{here}/join", {}, expect=403)
    await w(ada, "POST", f"{here}/invite", {"user_id": bob.user_id, "reason": "welcome"})
    await w(bob, "POST", f"{here}/leave", {})
    await w(ada, "POST", f"{here}/invite", {"user_id": bob.user_id})
    await w(bob, "POST", f"{here}/join", {})
    await w(bob, "POST", f"{here}/kick", {"user_id": ada.user_id}, expect=403)
    await w(ada, "POST", f"{here}/kick", {"user_id": bob.user_id, "reason": "shift over"})
    await w(ada, "POST", f"{here}/ban", {"user_id": bob.user_id, "reason": "x"})
    await w(bob, "POST", f"{here}/join", {}, expect=403)
    await w(ada, "POST", f"{here}/unban", {"user_id": bob.user_id})
    await w(ada, "POST", f"{here}/invite", {"user_id": "not a user id"}, expect=400)
    await w(ada, "PUT", f"{here}/state/m.room.join_rules/", {"join_rule": "knock"})
    await w(eve, "POST", f"/v3/knock/{segment(room)}", {"reason": "let me in"})
    await w(eve, "GET", "/v3/sync", params={"timeout": "0"})
    await w(ada, "POST", f"{here}/invite", {"user_id": eve.user_id})
    await w(eve, "GET", "/v3/sync", params={"timeout": "0"})
    await w(eve, "POST", f"{here}/join", {})
    await w(bob, "POST", f"/v3/knock/{segment(room)}", {})


async def upgrading(w: Walk) -> None:
    ada, bob = await w.person("mover"), await w.person("follower")
    space = await ada.create_room(preset="public_chat", creation_content={"type": "m.space"}, name="House")
    room = await ada.create_room(preset="public_chat", room_version="10", name="Old ward")
    domain = ada.user_id.split(":", 1)[1]
    child = f"/v3/rooms/{segment(space)}/state/m.space.child/{segment(room)}"
    await w(ada, "PUT", child, {"via": [domain], "suggested": True, "order": "a"})
    await bob.join(room)
    await w(bob, "GET", f"/v1/rooms/{segment(space)}/hierarchy", params={"limit": "1", "max_depth": "2"})
    got = await w(ada, "GET", f"/v1/rooms/{segment(space)}/hierarchy", params={"limit": "1"})
    if got.get("next_batch"):
        page = {"limit": "5", "from": got["next_batch"]}
        await w(ada, "GET", f"/v1/rooms/{segment(space)}/hierarchy", params=page)
    await w(bob, "POST", f"/v3/rooms/{segment(room)}/upgrade", {"new_version": "11"}, expect=403)
    await w(ada, "POST", f"/v3/rooms/{segment(room)}/upgrade", {"new_version": "no-such"}, expect=400)
    new = (await w(ada, "POST", f"/v3/rooms/{segment(room)}/upgrade", {"new_version": "11"})).get(
        "replacement_room", ""
    )
    await w(bob, "POST", f"/v3/rooms/{segment(new)}/join", {})
    await w(ada, "GET", f"/v3/rooms/{segment(new)}/state")
    # a restricted room lets the members of another one in
    rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": room}]}
    inner = await ada.create_room(initial_state=[{"type": "m.room.join_rules", "state_key": "", "content": rules}])
    await w(bob, "POST", f"/v3/rooms/{segment(inner)}/join", {})


CHAPTERS = (making, entering, moderating, upgrading)

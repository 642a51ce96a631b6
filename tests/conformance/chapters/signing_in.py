"""Discovery, registration, log-in, tokens, devices, passwords, leaving."""

from __future__ import annotations

from tests.conformance.walk import Walk, segment
from tests.world.client import PASSWORD


async def discovery(w: Walk) -> None:
    versions = await w(None, "GET", "/versions")
    assert {"v1.11"} <= set(versions.get("versions", [])), versions
    await w(None, "GET", "/.well-known/matrix/client")
    login = await w(None, "GET", "/v3/login")
    assert "m.login.password" in {flow["type"] for flow in login.get("flows", [])}, login
    await w(None, "GET", "/v1/auth_metadata", expect=404)
    ada = await w.person("discoverer")
    await w(ada, "GET", "/v3/capabilities")
    await w(ada, "GET", "/versions")
    await w(ada, "GET", "/v3/voip/turnServer")
    await w(ada, "GET", "/v3/thirdparty/protocols")


async def registration(w: Walk) -> None:
    name = f"newcomer{w.run}"
    await w(None, "GET", "/v3/register/available", params={"username": name})
    await w(None, "GET", "/v3/register/available", params={"username": "No Good!"}, expect=400)
    await w(None, "GET", "/v1/register/m.login.registration_token/validity", params={"token": "never-issued"})
    body = {"username": name, "password": PASSWORD, "refresh_token": True}
    asked = await w(None, "POST", "/v3/register", body, expect=401)
    auth = {"type": "m.login.dummy", "session": asked.get("session", "")}
    await w(None, "POST", "/v3/register", {**body, "auth": auth})
    await w(None, "GET", "/v3/register/available", params={"username": name}, expect=400)
    await w(None, "POST", "/v3/register", {"username": name, "password": PASSWORD}, expect=400)
    quiet = {
        "username": f"quiet{w.run}",
        "password": PASSWORD,
        "inhibit_login": True,
        "auth": {"type": "m.login.dummy"},
    }
    assert "access_token" not in await w(None, "POST", "/v3/register", quiet)


async def log_in(w: Walk) -> None:
    ada = await w.person("loginer")
    right = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": ada.user_id}, "password": PASSWORD}
    got = await w(None, "POST", "/v3/login", {**right, "refresh_token": True, "initial_device_display_name": "Ward"})
    fresh = await w(None, "POST", "/v3/refresh", {"refresh_token": got.get("refresh_token", "")})
    assert fresh.get("access_token") != got.get("access_token")
    await w(None, "POST", "/v3/refresh", {"refresh_token": "never-issued"}, expect=401)
    await w(None, "POST", "/v3/login", {**right, "password": "wrong"}, expect=403)
    await w(None, "POST", "/v3/login", {**right, "type": "m.login.nonsense"}, expect=400)
    await w(ada, "GET", "/v3/account/whoami")
    await w(None, "GET", "/v3/account/whoami", expect=401)
    await w(None, "GET", "/v3/account/whoami", headers={"Authorization": "Bearer unknown"}, expect=401)
    assert ada.user_id == (await w(ada, "GET", "/v3/account/whoami", params={"user_id": ada.user_id})).get("user_id")


async def devices(w: Walk) -> None:
    ada = await w.person("owner")
    others = [await w.person("owner-not")]
    for number in range(3):
        others.append(await type(ada)(w.http, w.base).login(ada.user_id, device_id=f"DEV{number}"))
    await w(ada, "GET", "/v3/devices")
    await w(ada, "GET", f"/v3/devices/{ada.device_id}")
    await w(ada, "GET", "/v3/devices/UNKNOWN", expect=404)
    await w(ada, "PUT", f"/v3/devices/{ada.device_id}", {"display_name": "Station 3"})
    await w(ada, "PUT", "/v3/devices/UNKNOWN", {"display_name": "x"}, expect=404)
    await w.confirmed(ada, "DELETE", "/v3/devices/DEV0", {})
    await w.confirmed(ada, "POST", "/v3/delete_devices", {"devices": ["DEV1"]})
    await w(others[1], "GET", "/v3/account/whoami", expect=401)
    left = {device["device_id"] for device in (await w(ada, "GET", "/v3/devices")).get("devices", [])}
    assert left == {ada.device_id, "DEV2"}, left


async def leaving(w: Walk) -> None:
    ada, bea = await w.person("changer"), await w.person("leaver")
    second = await type(ada)(w.http, w.base).login(ada.user_id)
    await w.confirmed(
        ada, "POST", "/v3/account/password", {"new_password": "an-0ther-Passw0rd", "logout_devices": True}
    )
    await w(second, "GET", "/v3/account/whoami", expect=401)
    third = await type(ada)(w.http, w.base).login(ada.user_id, "an-0ther-Passw0rd")
    await w(third, "POST", "/v3/logout", {})
    await w(third, "GET", "/v3/account/whoami", expect=401)
    await w(ada, "POST", "/v3/logout/all", {})
    await w(ada, "GET", "/v3/account/whoami", expect=401)
    room = await bea.create_room(preset="public_chat")
    await w.confirmed(bea, "POST", "/v3/account/deactivate", {})
    await w(bea, "GET", f"/v3/rooms/{segment(room)}/state", expect=401)
    gone = {"type": "m.login.password", "identifier": {"type": "m.id.user", "user": bea.user_id}, "password": PASSWORD}
    await w(None, "POST", "/v3/login", gone, expect=403)


async def tokens_for_others(w: Walk) -> None:
    ada = await w.person("lender")
    await w(ada, "POST", f"/v3/user/{segment(ada.user_id)}/openid/request_token", {})
    got = await w.confirmed(ada, "POST", "/v1/login/get_token", {})
    await w(None, "POST", "/v3/login", {"type": "m.login.token", "token": got.get("login_token", "")})
    await w(None, "POST", "/v3/login", {"type": "m.login.token", "token": got.get("login_token", "")}, expect=403)
    await w(ada, "GET", "/v3/account/3pid")


CHAPTERS = (discovery, registration, log_in, devices, leaving, tokens_for_others)

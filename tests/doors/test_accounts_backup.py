"""The key backup over HTTP: fourteen operations, and which key stays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.accounts import key_backup
from tests.accounts.practice import opened, segment

BACKUP = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "A" * 43}}
ROOM = segment("!station:test.example")


def _key(first: int = 3, forwarded: int = 1, verified: bool = False, text: str = "x") -> dict[str, Any]:
    return {"first_message_index": first, "forwarded_count": forwarded, "is_verified": verified,
            "session_data": {"ciphertext": text}}


async def test_versions_of_a_backup(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd")
        assert (await anna.ask("GET", "/room_keys/version")).errcode == "M_NOT_FOUND"
        one = (await anna.fine("POST", "/room_keys/version", BACKUP))["version"]
        two = (await anna.fine("POST", "/room_keys/version", BACKUP))["version"]
        assert one != two and (await anna.fine("GET", "/room_keys/version"))["version"] == two
        assert await anna.fine("GET", f"/room_keys/version/{one}") == {
            **BACKUP, "version": one, "count": 0, "etag": "0"}
        changed = {**BACKUP, "auth_data": {"public_key": "B" * 43}}
        await anna.fine("PUT", f"/room_keys/version/{two}", {**changed, "version": two})
        assert (await anna.fine("GET", "/room_keys/version"))["auth_data"] == changed["auth_data"]
        for body in ({**changed, "version": one}, {**changed, "algorithm": "other"}):
            assert (await anna.ask("PUT", f"/room_keys/version/{two}", body)).errcode == "M_INVALID_PARAM"
        for version in ("99", "x", "-1", "9" * 30):
            assert (await anna.ask("PUT", f"/room_keys/version/{version}", BACKUP)).errcode == "M_NOT_FOUND"
            assert (await anna.ask("GET", f"/room_keys/keys?version={version}")).errcode == "M_NOT_FOUND"
        await anna.fine("DELETE", f"/room_keys/version/{two}")
        assert (await anna.ask("DELETE", f"/room_keys/version/{two}")).errcode == "M_NOT_FOUND"
        assert (await anna.fine("GET", "/room_keys/version"))["version"] == one
        assert int((await anna.fine("POST", "/room_keys/version", BACKUP))["version"]) > int(two), "never again"
        assert (await bernd.ask("GET", f"/room_keys/version/{one}")).errcode == "M_NOT_FOUND"


async def test_keys_by_backup_room_and_session(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        version = (await anna.fine("POST", "/room_keys/version", BACKUP))["version"]
        at, other = f"?version={version}", "!andere:test.example"
        got = await anna.fine("PUT", f"/room_keys/keys/{ROOM}/s%2F1{at}", _key())
        assert got == {"count": 1, "etag": "1"}
        got = await anna.fine("PUT", f"/room_keys/keys/{ROOM}{at}", {"sessions": {"s2": _key()}})
        assert got == {"count": 2, "etag": "2"}
        rooms = {"rooms": {other: {"sessions": {"s3": _key(), "s4": _key()}}}}
        assert await anna.fine("PUT", f"/room_keys/keys{at}", rooms) == {"count": 4, "etag": "3"}
        assert await anna.fine("GET", f"/room_keys/keys/{ROOM}/s%2F1{at}") == _key()
        assert await anna.fine("GET", f"/room_keys/keys/{ROOM}{at}") == {"sessions": {"s/1": _key(), "s2": _key()}}
        whole = await anna.fine("GET", f"/room_keys/keys{at}")
        assert {room: set(part["sessions"]) for room, part in whole["rooms"].items()} == {
            "!station:test.example": {"s/1", "s2"}, other: {"s3", "s4"}}
        assert (await anna.ask("GET", f"/room_keys/keys/{ROOM}/none{at}")).errcode == "M_NOT_FOUND"
        assert await anna.fine("DELETE", f"/room_keys/keys/{ROOM}/s%2F1{at}") == {"count": 3, "etag": "4"}
        assert await anna.fine("DELETE", f"/room_keys/keys/{ROOM}/s%2F1{at}") == {"count": 3, "etag": "4"}
        assert await anna.fine("DELETE", f"/room_keys/keys/{ROOM}{at}") == {"count": 2, "etag": "5"}
        assert await anna.fine("GET", f"/room_keys/keys/{ROOM}{at}") == {"sessions": {}}
        assert await anna.fine("DELETE", f"/room_keys/keys{at}") == {"count": 0, "etag": "6"}
        assert await anna.fine("GET", f"/room_keys/keys{at}") == {"rooms": {}}
        assert (await anna.fine("GET", "/room_keys/version"))["count"] == 0


@pytest.mark.parametrize(
    ("there", "new", "replaced"),
    [
        (_key(), _key(text="y"), False),
        (_key(), _key(verified=True, first=9, forwarded=9, text="y"), True),
        (_key(verified=True, first=9), _key(first=0, text="y"), False),
        (_key(first=3), _key(first=2, forwarded=9, text="y"), True),
        (_key(first=3), _key(first=4, forwarded=0, text="y"), False),
        (_key(forwarded=2), _key(forwarded=1, text="y"), True),
        (_key(forwarded=2), _key(forwarded=3, text="y"), False),
    ],
)
async def test_the_better_key_stays(tmp_path: Path, there: Any, new: Any, replaced: bool) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        version = (await anna.fine("POST", "/room_keys/version", BACKUP))["version"]
        path = f"/room_keys/keys/{ROOM}/s?version={version}"
        await anna.fine("PUT", path, there)
        got = await anna.fine("PUT", path, new)
        assert got == {"count": 1, "etag": "2" if replaced else "1"}
        assert await anna.fine("GET", path) == (new if replaced else there)


async def test_only_the_current_version_takes_keys(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        got = await anna.ask("PUT", "/room_keys/keys?version=1", {"rooms": {}})
        assert (got.status, got.errcode) == (404, "M_NOT_FOUND")
        old = (await anna.fine("POST", "/room_keys/version", BACKUP))["version"]
        new = (await anna.fine("POST", "/room_keys/version", BACKUP))["version"]
        got = await anna.ask("PUT", f"/room_keys/keys?version={old}", {"rooms": {}})
        assert (got.status, got.errcode, got.body["current_version"]) == (403, "M_WRONG_ROOM_KEYS_VERSION", new)
        assert (await anna.ask("PUT", "/room_keys/keys", {"rooms": {}})).errcode == "M_MISSING_PARAM"


async def test_keys_of_the_wrong_form_and_too_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        version = (await anna.fine("POST", "/room_keys/version", BACKUP))["version"]
        path = f"/room_keys/keys/{ROOM}/s?version={version}"
        for change in ({"first_message_index": -1}, {"first_message_index": "1"}, {"forwarded_count": None},
                       {"is_verified": 1}, {"session_data": "x"}, {"session_data": None}):
            assert (await anna.ask("PUT", path, {**_key(), **change})).status == 400, change
        assert (await anna.ask("PUT", path, _key(text="x" * 65_536))).errcode == "M_TOO_LARGE"
        monkeypatch.setattr(key_backup, "AT_ONCE", 5)
        many = {"sessions": {f"s{n}": _key() for n in range(6)}}
        assert (await anna.ask("PUT", f"/room_keys/keys/{ROOM}?version={version}", many)).errcode == "M_TOO_LARGE"
        monkeypatch.setattr(key_backup, "KEYS", 3)
        many["sessions"].pop("s5")
        assert (await anna.ask("PUT", f"/room_keys/keys/{ROOM}?version={version}", many)).errcode == "M_TOO_LARGE"
        assert (await anna.fine("GET", "/room_keys/version"))["count"] == 0, "all or nothing"
        got = await anna.ask("PUT", f"/room_keys/keys/kein-raum/s?version={version}", _key())
        assert got.errcode == "M_INVALID_PARAM"

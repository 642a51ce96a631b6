"""Messages from device to device over HTTP: whole or not at all, once, and still there after a restart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from appliance.accounts import to_device
from tests.accounts.practice import Device, Practice, opened


async def _letters(device: Device, since: str | None = None) -> list[Any]:
    return [event["content"] for event in (await device.sync(since)).get("to_device", {}).get("events", [])]


async def test_a_message_arrives_once_however_often_it_is_sent(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, one = await p.register("anna", refresh_token=True), await p.register("bernd", device_id="ONE")
        two = await p.login("bernd", device_id="TWO")
        body = {"messages": {one.user_id: {"*": {"n": 1}, "TWO": {"n": 2}}, "@niemand:test.example": {"*": {}}}}
        await asyncio.gather(*(anna.fine("PUT", "/sendToDevice/m.x/t1", body) for _ in range(32)))
        fresh = await p.fine("POST", "/refresh", {"refresh_token": anna.refresh})
        await p.fine("PUT", "/sendToDevice/m.x/t1", body, token=fresh["access_token"])
        again = await p.login("anna", device_id=anna.device_id)
        await again.fine("PUT", "/sendToDevice/m.x/t1", body)
        assert (await _letters(one), await _letters(two)) == ([{"n": 1}], [{"n": 2}])
        await again.fine("PUT", "/sendToDevice/m.y/t1", body)
        assert await _letters(one) == [{"n": 1}, {"n": 1}], "not received until asked for what comes after"
        since = (await one.sync())["next_batch"]
        assert await _letters(one, since) == []
        assert len(await p.column("SELECT pos FROM to_device WHERE device_id='TWO'")) == 2


async def test_messages_survive_the_end_of_the_house(tmp_path: Path) -> None:
    async with opened(tmp_path) as p:
        anna, bernd = await p.register("anna"), await p.register("bernd", device_id="B")
        for number in range(3):
            body = {"messages": {bernd.user_id: {"B": {"n": number}}}}
            await anna.fine("PUT", f"/sendToDevice/m.x/{number}", body)
    async with opened(tmp_path) as p:
        await once_more(p, anna).fine("PUT", "/sendToDevice/m.x/2", body)
        assert await _letters(once_more(p, bernd)) == [{"n": 0}, {"n": 1}, {"n": 2}]


def once_more(p: Practice, device: Device) -> Device:
    """Return the same log-in in another life of the house."""
    return Device(p, device.user_id, device.device_id, device.token)


async def test_messages_have_limits_and_old_transactions_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as p:
        anna = await p.register("anna")
        me = anna.user_id
        for path, messages, errcode in (
            ("m.x/t", None, "M_MISSING_PARAM"),
            ("m.x/t", [], "M_BAD_JSON"),
            ("m.x/t", {me: []}, "M_BAD_JSON"),
            ("m.x/t", {me: {"*": "x"}}, "M_BAD_JSON"),
            ("m.x/t", {"anna": {"*": {}}}, "M_INVALID_PARAM"),
            ("m.x/t", {me: {"*": {"x": "y" * 65_536}}}, "M_TOO_LARGE"),
            ("m.x/t", {me: {f"D{n}": {} for n in range(5_001)}}, "M_INVALID_PARAM"),
            (f"{'x' * 256}/t", {me: {"*": {}}}, "M_INVALID_PARAM"),
            (f"m.x/{'t' * 256}", {me: {"*": {}}}, "M_INVALID_PARAM"),
        ):
            got = await anna.ask("PUT", f"/sendToDevice/{path}", {"messages": messages})
            assert got.errcode == errcode, (path[:9], errcode, got)
        assert await p.column("SELECT count(*) FROM to_device") == [0]
        monkeypatch.setattr(to_device, "FORGET_AT_ONCE", 2)
        for number in range(3):
            await anna.fine("PUT", f"/sendToDevice/m.x/{number}", {"messages": {}})
        p.clock.now += to_device.REMEMBERED_MS + 1000
        await anna.fine("PUT", "/sendToDevice/m.x/new", {"messages": {}})
        assert await p.column("SELECT txn FROM to_device_txn ORDER BY txn") == ["2", "new"]

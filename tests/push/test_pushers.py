"""HTTP pushers against a real gateway on loopback: everything arrives, in order, whatever happens."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.matrix.errors import InvalidParam
from appliance.push.gateway import PATH, Gateway, Targets, Undelivered, check_url
from appliance.push.pushers import Pace
from appliance.rooms.invite import invite
from appliance.store import push
from tests.push.post import PushGateway, office, working
from tests.push.test_unread import company


async def test_a_notification_says_who_where_and_what(tmp_path: Path) -> None:
    async with PushGateway() as gateway, office(tmp_path) as o, working(o):
        ada, ben = await o.person("ada", "Ada"), await o.person("ben")
        room = await o.room(ada, name="Ward 3")
        await o.bring(ada, room, ben)
        await o.pusher(ben, gateway.url, custom="kept")
        said = await o.say(ada, room, "hello")
        [got] = await gateway.until(1)
        [device] = got.pop("devices")
        assert got == {
            "event_id": said, "room_id": room, "type": "m.room.message", "sender": ada.user_id, "prio": "high",
            "content": {"msgtype": "m.text", "body": "hello"}, "counts": {"unread": 1},
            "sender_display_name": "Ada", "room_name": "Ward 3",
        }
        assert device.pop("pushkey_ts") == 1_700_000_000
        assert device == {"app_id": "app", "pushkey": "key", "data": {"custom": "kept"}, "tweaks": {"sound": "default"}}


@pytest.mark.parametrize("by", ["pusher", "house"])
async def test_nothing_of_the_content_goes_out_if_pusher_or_house_say_so(tmp_path: Path, by: str) -> None:
    async with PushGateway() as gateway, office(tmp_path, content_free=by == "house") as o, working(o):
        (ada, ben), room = await company(o, "ada", "ben")
        await o.pusher(ben, gateway.url, format="event_id_only" if by == "pusher" else "anything")
        said = await o.say(ada, room, "diagnosis")
        [got] = await gateway.until(1)
        assert set(got) == {"event_id", "room_id", "prio", "counts", "devices"}
        assert got["event_id"] == said
        assert "diagnosis" not in str(got) and ada.user_id not in str(got)


async def test_everything_arrives_in_order_though_the_gateway_stumbles(tmp_path: Path) -> None:
    async with PushGateway() as gateway, office(tmp_path, pace=Pace(first=0.01)) as o, working(o):
        (ada, ben), room = await company(o, "ada", "ben")
        other = await o.room(ada)
        await o.bring(ada, other, ben)
        await o.pusher(ben, gateway.url)
        gateway.refusals = 4
        sent = [await o.say(ada, (room, other)[number % 2], str(number)) for number in range(20)]
        await gateway.until(20)
        assert gateway.events == sent
        assert [got["counts"]["unread"] for got in gateway.got][-1] == 20


async def test_what_was_owed_at_a_stop_is_delivered_after_the_start(tmp_path: Path) -> None:
    async with PushGateway() as gateway:
        async with office(tmp_path) as o:
            (ada, ben), room = await company(o, "ada", "ben")
            await o.say(ada, room, "before there was a pusher")
            async with working(o):
                await o.pusher(ben, gateway.url)
                first = await o.say(ada, room, "one")
                await gateway.until(1)
            sent = [await o.say(ada, room, str(number)) for number in range(250)]
        async with office(tmp_path) as o, working(o):
            async with asyncio.timeout(20):
                while sent[-1] not in gateway.events:
                    await gateway.until(len(gateway.got) + 1)
            assert list(dict.fromkeys(gateway.events)) == [first, *sent]
            assert len(gateway.events) <= 252, "only the delivery that the stop interrupted may come twice"


async def test_what_was_read_meanwhile_is_passed_over(tmp_path: Path) -> None:
    async with PushGateway() as gateway, office(tmp_path, pace=Pace(first=0.1)) as o, working(o):
        (ada, ben), room = await company(o, "ada", "ben")
        await o.pusher(ben, gateway.url)
        gateway.refusals = 1
        read = await o.say(ada, room, "read on another device")
        await gateway.until_asked(1)
        await o.read(ben, room, read)
        unread = await o.say(ada, room, "unread")
        await gateway.until(1)
        assert gateway.events == [unread]


async def test_what_is_older_than_three_days_is_passed_over(tmp_path: Path) -> None:
    async with PushGateway() as gateway, office(tmp_path) as o:
        (ada, ben), room = await company(o, "ada", "ben")
        await o.pusher(ben, gateway.url)
        await o.say(ada, room, "old")
        o.clock.now += 3 * 24 * 3600 * 1000
        fresh = await o.say(ada, room, "fresh")
        async with working(o):
            await gateway.until(1)
        assert gateway.events == [fresh]


async def test_a_rejected_push_key_ends_its_pusher(tmp_path: Path) -> None:
    async with PushGateway() as gateway, office(tmp_path) as o, working(o):
        (ada, ben), room = await company(o, "ada", "ben")
        await o.pusher(ben, gateway.url, "dead")
        await o.pusher(ben, gateway.url, "alive")
        gateway.reject = ["dead"]
        await o.say(ada, room, "one")
        await gateway.until(2)
        gateway.got.clear()
        last = await o.say(ada, room, "two")
        await gateway.until(1)
        assert gateway.events == [last]
        assert [shown["pushkey"] for shown in await o.registration.of(ben.user_id)] == ["alive"]


async def test_a_removed_pusher_falls_silent_even_while_its_gateway_does(tmp_path: Path) -> None:
    async with PushGateway() as gateway, office(tmp_path, pace=Pace(first=60)) as o, working(o):
        (ada, ben), room = await company(o, "ada", "ben")
        await o.pusher(ben, gateway.url, "old")
        gateway.refusals = 1
        await o.say(ada, room, "one")
        await gateway.until_asked(1)
        await o.registration.remove(ben.user_id, "app", "old")
        await o.pusher(ben, gateway.url, "new")
        said = await o.say(ada, room, "two")
        await gateway.until(1)
        assert (gateway.events, gateway.asked) == ([said], 2)


async def test_a_pusher_with_a_new_address_is_not_waited_for(tmp_path: Path) -> None:
    async with PushGateway() as broken, PushGateway() as gateway, office(tmp_path, pace=Pace(first=60)) as o:
        async with working(o):
            (ada, ben), room = await company(o, "ada", "ben")
            await o.pusher(ben, broken.url)
            broken.refusals = 100
            said = await o.say(ada, room, "one")
            await broken.until_asked(1)
            await o.pusher(ben, gateway.url)
            await gateway.until(1)
        assert gateway.events == [said]


async def test_a_device_that_logs_out_takes_its_pusher_along(tmp_path: Path) -> None:
    async with PushGateway() as gateway, office(tmp_path) as o, working(o):
        (ada, ben), room = await company(o, "ada", "ben")
        await o.pusher(ben, gateway.url)
        await o.store.write(push.remove_of_device, ben.user_id, ben.device_id)
        await o.say(ada, room, "one")
        cem = await o.person("cem")
        await o.bring(ada, room, cem)
        await o.pusher(cem, gateway.url, "cem")
        await o.say(ada, room, "two")
        [got] = await gateway.until(1)
        assert got["devices"][0]["pushkey"] == "cem"


async def test_an_invitation_is_told_and_reading_lowers_the_badge(tmp_path: Path) -> None:
    async with PushGateway() as gateway, office(tmp_path) as o, working(o):
        ada, ben = await o.person("ada"), await o.person("ben")
        room = await o.room(ada)
        await o.pusher(ben, gateway.url)
        await invite(o.author, ada, room, ben.user_id)
        [invitation] = await gateway.until(1)
        assert (invitation["type"], invitation["user_is_target"]) == ("m.room.member", True)
        await o.join(ben, room)
        said = await o.say(ada, room, "hello")
        assert (await gateway.until(2))[1]["counts"] == {"unread": 1}
        await o.read(ben, room, said)
        badge = (await gateway.until(3))[2]
        assert badge["counts"] == {}
        assert "event_id" not in badge


async def test_a_push_key_belongs_to_one_person_unless_appended(tmp_path: Path) -> None:
    async with office(tmp_path) as o:
        ada, ben, cem = [await o.person(name) for name in ("ada", "ben", "cem")]
        url = "https://push.example" + PATH
        await o.pusher(ada, url)
        await o.pusher(ben, url, append=True)
        assert len(await o.registration.of(ada.user_id)) == len(await o.registration.of(ben.user_id)) == 1
        await o.pusher(cem, url)
        assert await o.registration.of(ada.user_id) == await o.registration.of(ben.user_id) == []
        for number in range(49):
            await o.pusher(cem, url, f"key{number}")
        with pytest.raises(InvalidParam):
            await o.pusher(cem, url, "one too many")
        assert len(await o.registration.of(cem.user_id)) == 50


@pytest.mark.parametrize("url", [
    "", "nonsense", "https://", "http://push.example" + PATH, "https://push.example/other", "https://127.0.0.1" + PATH,
    "https://10.0.0.1" + PATH, "https://[::1]" + PATH, "https://[::ffff:127.0.0.1]" + PATH,
    "https://169.254.169.254" + PATH, "https://[64:ff9b::7f00:1]" + PATH, "https://[2002:7f00:1::]" + PATH,
    "https://u:p@push.example" + PATH, "https://[" + PATH,
    "https://push.example:99999" + PATH, "ftp://push.example" + PATH, "https://push.example" + PATH + "#x",
    "https://push.example/" + "x" * 3000 + PATH, "https://0.0.0.0" + PATH, "https://224.0.0.1" + PATH,
])
def test_addresses_that_no_pusher_may_have(url: str) -> None:
    with pytest.raises(InvalidParam):
        check_url(url, Targets())


def test_a_hospital_may_list_its_own_gateway() -> None:
    targets = Targets.of(["push.klinik.local", "10.3.0.0/16", "127.0.0.1"])
    for url in ("http://push.klinik.local", "https://10.3.1.2", "http://10.3.1.2:8080", "http://127.0.0.1:1", "https://push.example"):
        check_url(url + PATH, targets)
    assert targets.reachable("push.klinik.local", "192.168.1.1")
    assert not targets.reachable("push.example", "192.168.1.1")
    assert not targets.reachable("push.example", "::ffff:192.168.1.1")
    assert targets.reachable("push.example", "93.184.216.34")


async def test_a_name_that_leads_to_ourselves_is_not_dialled() -> None:
    async with PushGateway() as found:
        port = found.url.split(":")[2].partition("/")[0]
        gateway = Gateway(Targets())
        gateway.targets = Targets(frozenset(), ())
        with pytest.raises(Undelivered):
            await gateway.notify(f"https://localhost:{port}{PATH}", {})
        await gateway.close()
        assert found.asked == 0


async def test_a_gateway_that_redirects_or_is_away_has_not_taken_it(tmp_path: Path) -> None:
    async with PushGateway() as found:
        gateway = Gateway(Targets.of(["127.0.0.1"]))
        found.refusals = 1
        with pytest.raises(Undelivered):
            await gateway.notify(found.url, {})
        url = found.url
        assert await gateway.notify(url, {}) == frozenset()
    with pytest.raises(Undelivered):
        await gateway.notify(url, {})
    await gateway.close()


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.push.post import office, working
from tests.push.test_unread import company

async def main(folder, url):
    async with office(Path(folder)) as o, working(o):
        (ada, ben), room = await company(o, "ada", "ben")
        await o.pusher(ben, url)
        number = 0
        while True:
            print(await o.say(ada, room, str(number)), flush=True)
            number += 1
            await asyncio.sleep(0.002)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_in_the_middle_of_delivering_loses_no_notification(tmp_path: Path, root: Path) -> None:
    async with PushGateway() as gateway:
        process = subprocess.Popen(  # noqa: ASYNC220 (a real process to be killed)
            [sys.executable, "-c", KILLED, str(tmp_path), gateway.url], stdout=subprocess.PIPE, text=True, cwd=root)
        await gateway.until(25)
        process.send_signal(signal.SIGKILL)
        said, _ = await asyncio.to_thread(process.communicate)
        sent = said.split()
        before = list(gateway.events)
        async with office(tmp_path) as o, working(o):
            async with asyncio.timeout(10):
                while not set(sent) <= set(gateway.events):
                    await gateway.until(len(gateway.got) + 1)
        repeated = len(gateway.events) - len(set(gateway.events))
        assert repeated <= 1, "at most the notification that was under way comes twice"
        unique = list(dict.fromkeys(gateway.events))
        assert unique[:len(sent)] == sent
        assert len(before) >= 25


async def test_without_pushers_nothing_is_collected(tmp_path: Path) -> None:
    async with office(tmp_path) as o, working(o):
        (ada, _), room = await company(o, "ada", "ben")
        await o.say(ada, room, "one")
        assert not o.pushers._rooms



"""Keys: fetched once, kept for good, believed no longer than their owners said, whatever key servers do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.federation import keyring as module
from appliance.federation.key_object import BadKeys, read
from appliance.federation.keyring import Asked, Keyring
from appliance.federation.own_keys import OwnKeys
from appliance.federation.requests import Unauthorized, authorization, credentials
from appliance.federation.signatures import KeyUnknown
from appliance.matrix import canonical
from appliance.matrix import event as events
from appliance.matrix.event import Event
from appliance.matrix.ids import ServerName
from appliance.matrix.signing import BadSignature, generate, verify_json
from appliance.store.database import Store
from tests.federation.peers import DAY, LIES, WEEK, Publishers, Server
from tests.link.town import Clock

HOME = ServerName("home.example")
OWN = generate("own", b"h" * 32)


class Town:
    def __init__(self, store: Store, keyring: Keyring, clock: Clock, publishers: Publishers, server: Server) -> None:
        self.store, self.keyring, self.clock, self.publishers, self.server = store, keyring, clock, publishers, server

    async def wrong(self, event: Event) -> str:
        problem = await self.keyring.verify_event(event)
        return "" if problem is None else f"{type(problem).__name__}: {problem}"


@asynccontextmanager
async def town(path: Path, *, notaries: tuple[str, ...] = (), clock: Clock | None = None) -> AsyncIterator[Town]:
    clock = clock or Clock()
    server = Server("a.example", 1, clock.now)
    publishers = Publishers(server)
    store = await Store.open(path / "x.db")
    own = await OwnKeys.open(store, HOME, OWN, clock)
    keyring = Keyring(own, store, publishers, clock, lambda: 0.0, [ServerName(name) for name in notaries])
    yield Town(store, keyring, clock, publishers, server)
    await keyring.close()
    await store.close()


async def test_a_thousand_events_need_one_visit(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        made = [t.server.event(t.clock.now, n=n) for n in range(300)]
        answers = await asyncio.gather(*(t.keyring.verify_event(event) for event in made))
        assert answers == [None] * 300 and t.server.visits == 1
        assert await t.keyring.verify_events(made) == [None] * 300 and t.server.visits == 1


async def test_keys_outlive_their_server_and_our_restart(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        assert await t.wrong(t.server.event(t.clock.now)) == ""
    async with town(tmp_path, clock=Clock(Clock().now + 400 * DAY)) as t:
        t.server.fault = "down"
        early = Clock().now
        assert await t.wrong(t.server.event(early)) == "" and t.server.visits == 0
        assert "not valid when" in await t.wrong(t.server.event(early + 2 * DAY)) and t.server.visits == 1


@pytest.mark.parametrize("lie", [*LIES, "down", "nonsense"])
async def test_key_servers_that_lie_convince_nobody(tmp_path: Path, lie: str) -> None:
    async with town(tmp_path) as t:
        t.server.fault = lie
        assert (await t.wrong(t.server.event(t.clock.now))).startswith("KeyUnknown")
        t.server.fault = ""
        t.clock.pass_by(minutes=2)
        assert await t.wrong(t.server.event(t.clock.now)) == ""


async def test_a_key_is_good_until_its_owner_said_and_never_longer_than_a_week(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        now = t.clock.now
        assert await t.wrong(t.server.event(now + DAY)) == ""
        assert "not valid when" in await t.wrong(t.server.event(now + DAY + 1))
        t.server.until = now + 1000 * DAY
        t.clock.pass_by(minutes=2)
        assert await t.wrong(t.server.event(t.clock.now + WEEK)) == ""
        assert "not valid when" in await t.wrong(t.server.event(t.clock.now + WEEK + 1))


async def test_old_keys_sign_the_past_only(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        server = t.server
        assert await t.wrong(server.event(server.expired, key=server.before)) == ""
        assert "not valid when" in await t.wrong(server.event(server.expired + 1, key=server.before))


async def test_a_rotation_is_noticed(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        before = t.server.event(t.clock.now)
        assert await t.wrong(before) == ""
        t.clock.pass_by(hours=1)
        expired, late = t.clock.now, t.server.event(t.clock.now + 1)
        t.server.rotate(2, expired)
        assert await t.wrong(t.server.event(t.clock.now)) == ""
        assert await t.wrong(before) == "" and "not valid when" in await t.wrong(late)


async def test_unknown_key_ids_do_not_make_us_knock_all_the_time(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        for number in range(50):
            strange = generate(f"s{number}", b"s" * 32)
            assert (await t.wrong(t.server.event(t.clock.now, key=strange))).startswith("KeyUnknown")
        assert t.server.visits == 1
        t.clock.pass_by(minutes=2)
        await t.wrong(t.server.event(t.clock.now, key=generate("z", b"z" * 32)))
        assert t.server.visits == 2


async def test_a_dead_server_is_left_alone_longer_each_time(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        t.server.fault = "down"
        for _ in range(24 * 60):
            await t.wrong(t.server.event(t.clock.now))
            t.clock.pass_by(minutes=1)
        assert 24 <= t.server.visits <= 32


async def test_signatures_that_do_not_count(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        other = Server("b.example", 9, t.clock.now)
        t.publishers.servers[other.name] = other
        forged = other.event(t.clock.now, sender="@u:a.example")
        assert "No signature by a.example" in await t.wrong(forged)
        good = t.server.event(t.clock.now)
        cases: tuple[Any, ...] = (
            {}, [], {"a.example": []}, {"a.example": {"ed25519:now": 7}}, {"a.example": {"ed25519:now": "ä"}},
            {"a.example": {"ed25519:now": "AAAA"}}, {"a.example": {"rsa:1": "AAAA"}},
            {"a.example": other.event(1).pdu["signatures"]["b.example"]},  # type: ignore[index, call-overload]
        )  # fmt: skip
        for signatures in cases:
            raw = canonical.encode({**good.pdu, "signatures": signatures})
            changed = events.stored(good.event_id, raw, good.version)
            assert (await t.wrong(changed)).startswith("BadSignature")


async def test_every_server_that_must_sign_is_asked_for(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        content = {"membership": "join", "join_authorised_via_users_server": "@host:home.example"}
        event = events.build(
            t.server.event(0).version, room_id=t.server.event(0).room_id, type="m.room.member",
            sender=t.server.event(0).sender, state_key="@u:a.example", content=content, origin_server_ts=t.clock.now,
            depth=1, prev_events=[], auth_events=[], signer=t.server.key, server=t.server.name,
        )  # fmt: skip
        assert "No signature by home.example" in await t.wrong(event)
        assert await t.wrong(events.countersign(event, HOME, OWN)) == ""
        assert await t.wrong(events.countersign(event, HOME, generate("own", b"x" * 32))) != ""


async def test_what_comes_back_to_us_is_checked_with_our_own_keys(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        mine = Server(HOME, 0, t.clock.now)
        assert await t.wrong(mine.event(t.clock.now, key=OWN)) == ""
        assert await t.wrong(mine.event(t.clock.now, key=generate("own", b"x" * 32))) != ""


async def test_a_flood_of_servers_is_bounded(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        crowd = [Server(f"s{n}.example", n % 90 + 2, t.clock.now) for n in range(200)]
        t.publishers.servers = {server.name: server for server in crowd}
        answers = await t.keyring.verify_events([server.event(t.clock.now) for server in crowd])
        assert sum(answer is None for answer in answers) == 50
        assert all(isinstance(answer, KeyUnknown) for answer in answers if answer is not None)
        assert t.publishers.most_at_once <= 16


async def test_a_key_server_that_hangs_delays_one_batch_for_so_long_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SECONDS", 0.2)
    async with town(tmp_path) as t:
        quick = Server("b.example", 5, t.clock.now)
        t.publishers.servers[quick.name] = quick
        assert await t.wrong(quick.event(t.clock.now)) == ""
        t.publishers.gate.clear()
        hanging = asyncio.create_task(t.wrong(t.server.event(t.clock.now)))
        await asyncio.sleep(0)
        assert await t.wrong(quick.event(t.clock.now)) == "" and not hanging.done()
        assert (await hanging).startswith("KeyUnknown")
        t.publishers.gate.set()
        await t.keyring.verify_event(t.server.event(t.clock.now))
        assert await t.wrong(t.server.event(t.clock.now)) == ""


async def test_notaries_vouch_for_the_dead_but_only_those_we_trust(tmp_path: Path) -> None:
    async with town(tmp_path, notaries=("down.example", "n.example")) as t:
        notary, down = Server("n.example", 7, t.clock.now), Server("down.example", 8, t.clock.now)
        down.fault = t.server.fault = "down"
        t.publishers.servers |= {notary.name: notary, down.name: down}
        t.publishers.notaries = {notary.name: notary, down.name: down}
        assert await t.wrong(t.server.event(t.clock.now)) == ""
        assert [name for name, _ in t.publishers.asked] == ["down.example", "n.example"]
        assert t.publishers.asked[1][1] == {"a.example": {"ed25519:now": t.clock.now}}


async def test_a_notary_that_did_not_sign_is_not_believed(tmp_path: Path) -> None:
    async with town(tmp_path, notaries=("n.example",)) as t:
        notary, thief = Server("n.example", 7, t.clock.now), Server("n.example", 8, t.clock.now)
        t.server.fault = "down"
        t.publishers.servers[notary.name] = notary
        t.publishers.notaries = {notary.name: thief}
        assert (await t.wrong(t.server.event(t.clock.now))).startswith("KeyUnknown")


async def test_an_older_key_object_takes_nothing_back(tmp_path: Path) -> None:
    async with town(tmp_path, notaries=("n.example",)) as t:
        notary = Server("n.example", 7, t.clock.now)
        t.publishers.servers[notary.name] = notary
        t.publishers.notaries = {notary.name: notary}
        assert await t.wrong(t.server.event(t.clock.now)) == ""
        t.clock.pass_by(hours=1)
        stolen, t.server.until = t.server.key, t.clock.now + 2 * DAY
        t.server.rotate(2, t.clock.now)
        assert await t.wrong(t.server.event(t.clock.now)) == ""
        t.server.key, t.server.until, t.server.fault = stolen, t.clock.now + DAY, "down"
        t.clock.pass_by(hours=1)
        await t.wrong(t.server.event(t.clock.now, key=generate("unknown", b"u" * 32)))
        assert len(t.publishers.asked) == 1
        assert "not valid when" in await t.wrong(t.server.event(t.clock.now, key=stolen))


async def _present(t: Town, key_name: str, destination: str = HOME) -> None:
    key = getattr(t.server, key_name)
    header = authorization(key, t.server.name, ServerName(destination), "GET", "/x", None)
    await t.keyring.authenticate(credentials([header], HOME), "GET", "/x", None)


async def test_requests_need_a_key_that_is_in_use(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        await _present(t, "key")
        with pytest.raises(Unauthorized, match="not known to be valid"):
            await _present(t, "before")
        t.server.fault = "down"
        t.clock.pass_by(hours=23.9)
        await _present(t, "key")
        t.clock.pass_by(hours=0.2)
        with pytest.raises(Unauthorized, match="not known to be valid"):
            await _present(t, "key")


async def test_nobody_speaks_as_ourselves(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        header = authorization(OWN, HOME, HOME, "GET", "/x", None)
        with pytest.raises(Unauthorized, match="Nobody but this server"):
            await t.keyring.authenticate(credentials([header], HOME), "GET", "/x", None)


async def test_our_own_object_is_good_and_never_about_to_end(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        for _ in range(10):
            mine = read(t.keyring.own.published(), HOME, t.clock.now)
            assert mine.keys[OWN.key_id].key == OWN.verify_key and mine.until - t.clock.now >= DAY // 2
            t.clock.pass_by(hours=7)
        assert t.keyring.own.published() is t.keyring.own.published()


async def test_a_new_key_of_ours_makes_the_last_one_old(tmp_path: Path) -> None:
    clock, new = Clock(), generate("new", b"n" * 32)
    store = await Store.open(tmp_path / "x.db")
    await OwnKeys.open(store, HOME, OWN, clock)
    clock.pass_by(hours=5)
    for _ in range(2):
        own = await OwnKeys.open(store, HOME, new, clock)
        found = read(own.published(), HOME, clock.now)
        assert not found.keys[new.key_id].old
        assert found.keys[OWN.key_id].old and found.keys[OWN.key_id].until == Clock().now + 5 * 3600 * 1000
        clock.pass_by(hours=1)
    await store.close()


async def test_we_are_a_notary(tmp_path: Path) -> None:
    async with town(tmp_path) as t:
        asked = {t.server.name: Asked(), HOME: Asked(), ServerName("nobody.example"): Asked()}
        found = await t.keyring.notarise(asked)
        assert [value["server_name"] for value in found] == [HOME, "a.example"]
        verify_json(found[1], HOME, OWN.key_id, OWN.verify_key)
        read(found[1], t.server.name, t.clock.now)
        assert len(await t.keyring.notarise(asked)) == 2 and t.server.visits == 1
        t.clock.pass_by(hours=13)
        t.server.fault = "down"
        assert len(await t.keyring.notarise(asked)) == 2 and t.server.visits == 2
        t.server.fault = ""
        t.clock.pass_by(hours=2)
        await t.keyring.notarise({t.server.name: Asked(frozenset({"ed25519:other"}))})
        await t.keyring.notarise({t.server.name: Asked(until=t.clock.now + 3 * DAY)})
        assert t.server.visits == 3


@pytest.mark.parametrize("value", [None, [], "x", 7, {}, {"server_name": "a.example"}])
def test_what_is_no_key_object(value: object) -> None:
    with pytest.raises(BadKeys):
        read(value, ServerName("a.example"), 0)  # type: ignore[arg-type]


def test_bad_signature_is_a_refusal_with_its_own_word() -> None:
    assert BadSignature("x").errcode == "M_INVALID_SIGNATURE" and issubclass(KeyUnknown, BadSignature)

"""Every step of server name resolution, the memory in front of it, and what a hostile domain can write into it."""

import asyncio
from collections.abc import Mapping

import pytest

from appliance.link.dns import Service
from appliance.link.errors import Unreachable
from appliance.link.resolve import Destination, Endpoint, Remembered, Resolver
from appliance.link.well_known import Page, PageUnavailable
from appliance.matrix.ids import ServerName
from tests.link.town import Book, Clock

HEADERS: Mapping[str, str] = {}


class Web:
    """The `.well-known` pages of the world."""

    def __init__(self) -> None:
        self.pages: dict[str, Page] = {}
        self.asked: list[str] = []

    def delegates(self, host: str, name: str, headers: Mapping[str, str] = HEADERS) -> None:
        self.pages[host] = Page(200, headers, b'{"m.server": "%s"}' % name.encode())

    async def fetch(self, host: str, path: str) -> Page:
        assert path == "/.well-known/matrix/server"
        self.asked.append(host)
        await asyncio.sleep(0)
        if host not in self.pages:
            raise PageUnavailable("nothing there")
        return self.pages[host]


class World:
    def __init__(self, chance: float = 0.0) -> None:
        self.clock = Clock()
        self.book = Book()
        self.web = Web()
        self.names = Remembered(self.book, self.clock, lambda: chance)
        self.resolver = Resolver(self.names, self.web, self.clock, lambda: chance)

    async def find(self, name: str) -> Destination:
        return await self.resolver.find(ServerName(name))


def to(host: str, certificate: str, *endpoints: tuple[str, int]) -> Destination:
    return Destination(host, certificate, tuple(Endpoint(*endpoint) for endpoint in endpoints))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("198.51.100.7", to("198.51.100.7", "198.51.100.7", ("198.51.100.7", 8448))),
        ("198.51.100.7:443", to("198.51.100.7:443", "198.51.100.7", ("198.51.100.7", 443))),
        ("[2001:db8::1]", to("[2001:db8::1]", "2001:db8::1", ("2001:db8::1", 8448))),
        ("[2001:db8::1]:9", to("[2001:db8::1]:9", "2001:db8::1", ("2001:db8::1", 9))),
        ("a.example:8449", to("a.example:8449", "a.example", ("a.example", 8449))),
        ("plain.example", to("plain.example", "plain.example", ("plain.example", 8448))),
        ("d1.example", to("198.51.100.9", "198.51.100.9", ("198.51.100.9", 8448))),
        ("d2.example", to("[2001:db8::2]:7", "2001:db8::2", ("2001:db8::2", 7))),
        ("d3.example", to("hs.example:444", "hs.example", ("hs.example", 444))),
        ("d4.example", to("bare.example", "bare.example", ("bare.example", 8448))),
        ("d5.example", to("fed.example", "fed.example", ("target.example", 4443))),
        ("d6.example", to("old.example", "old.example", ("oldtarget.example", 4444))),
        ("fed.example", to("fed.example", "fed.example", ("target.example", 4443))),
        ("old.example", to("old.example", "old.example", ("oldtarget.example", 4444))),
        ("both.example", to("both.example", "both.example", ("new.example", 1))),
    ],
)
async def test_the_steps_of_the_specification(name: str, expected: Destination) -> None:
    world = World()
    for host, delegate in {
        "d1.example": "198.51.100.9", "d2.example": "[2001:db8::2]:7", "d3.example": "hs.example:444",
        "d4.example": "bare.example", "d5.example": "fed.example", "d6.example": "old.example",
    }.items():  # fmt: skip
        world.web.delegates(host, delegate)
    world.book.srv = {
        "_matrix-fed._tcp.fed.example": (Service(1, 1, 4443, "target.example."),),
        "_matrix._tcp.old.example": (Service(1, 1, 4444, "oldtarget.example"),),
        "_matrix-fed._tcp.both.example": (Service(1, 1, 1, "new.example"),),
        "_matrix._tcp.both.example": (Service(1, 1, 2, "older.example"),),
    }
    assert await world.find(name) == expected


@pytest.mark.parametrize("name", ["198.51.100.7", "[::1]:1", "a.example:8449"])
async def test_a_complete_name_asks_nobody(name: str) -> None:
    world = World()
    await world.find(name)
    assert world.web.asked == [] and world.book.asked == []


@pytest.mark.parametrize(
    "page",
    [
        Page(404, {}, b'{"m.server": "evil.example"}'), Page(200, {}, b"<html>"), Page(200, {}, b"[]"),
        Page(200, {}, b"{}"), Page(200, {}, b'{"m.server": 7}'), Page(200, {}, b'{"m.server": "a b"}'),
        Page(200, {}, b'{"m.server": "x:99999"}'), Page(200, {}, b'{"m.server": "' + b"a" * 300 + b'"}'),
    ],
)  # fmt: skip
async def test_a_bad_delegation_counts_as_none(page: Page) -> None:
    world = World()
    world.web.pages["x.example"] = page
    assert await world.find("x.example") == to("x.example", "x.example", ("x.example", 8448))


async def test_a_delegation_is_not_followed_twice() -> None:
    world = World()
    world.web.delegates("a.example", "b.example")
    world.web.delegates("b.example", "c.example")
    assert (await world.find("a.example")).certificate_name == "b.example"
    assert world.web.asked == ["a.example"]


@pytest.mark.parametrize(
    ("headers", "minutes"),
    [
        ({}, 24 * 60), ({"Cache-Control": "max-age=7200"}, 120), ({"Cache-Control": "public, Max-Age=1"}, 5),
        ({"Cache-Control": "max-age=99999999"}, 48 * 60), ({"Cache-Control": "no-store, max-age=7200"}, 5),
        ({"Cache-Control": "s-maxage=60"}, 24 * 60), ({"Expires": "0"}, 5),
        ({"Expires": "Fri, 15 Jan 2027 11:00:00 GMT"}, 180),
    ],
)  # fmt: skip
async def test_how_long_a_delegation_is_remembered(headers: dict[str, str], minutes: int) -> None:
    world = World()  # its clock starts on 15 January 2027 at 08:00
    world.web.delegates("a.example", "b.example:1", headers)
    await world.find("a.example")
    world.clock.pass_by(minutes=minutes - 0.1)
    await world.find("a.example")
    assert len(world.web.asked) == 1
    world.clock.pass_by(minutes=0.2)
    await world.find("a.example")
    assert len(world.web.asked) == 2


async def test_failures_are_remembered_twice_as_long_each_time_up_to_an_hour() -> None:
    world = World()
    pauses = []
    for _ in range(8):
        await world.find("a.example")
        start, asked = world.clock.now, len(world.web.asked)
        while len(world.web.asked) == asked:
            world.clock.pass_by(minutes=1)
            await world.find("a.example")
        pauses.append((world.clock.now - start) // 60_000)
    assert pauses == [2, 4, 8, 16, 32, 60, 60, 60]


async def test_a_delegation_outlives_a_broken_web_server_but_not_for_ever() -> None:
    world = World()
    world.web.delegates("a.example", "b.example:1", {"Cache-Control": "max-age=3600"})
    await world.find("a.example")
    world.web.pages.clear()
    world.clock.pass_by(hours=2)
    assert (await world.find("a.example")).host_header == "b.example:1"
    world.clock.pass_by(hours=47)
    assert (await world.find("a.example")).host_header == "a.example"


async def test_a_thousand_at_once_ask_once() -> None:
    world = World()
    world.web.delegates("a.example", "b.example")
    await asyncio.gather(*(world.find("a.example") for _ in range(1000)))
    assert world.web.asked == ["a.example"]
    assert world.book.asked == ["_matrix-fed._tcp.b.example", "_matrix._tcp.b.example"]


async def test_one_who_gives_up_takes_nothing_from_the_others() -> None:
    world = World()
    world.web.delegates("a.example", "b.example:5")
    first = asyncio.create_task(world.find("a.example"))
    await asyncio.sleep(0)
    second = asyncio.create_task(world.find("a.example"))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).host_header == "b.example:5"


async def test_records_and_their_absence_are_remembered() -> None:
    world = World()
    world.book.srv["_matrix-fed._tcp.a.example"] = (Service(1, 1, 1, "t.example"),)
    await world.find("a.example")
    await world.find("b.example")
    count = len(world.book.asked)
    world.clock.pass_by(minutes=4)
    await world.find("a.example")
    await world.find("b.example")
    assert len(world.book.asked) == count
    world.clock.pass_by(minutes=2)
    await world.find("a.example")
    await world.find("b.example")
    assert len(world.book.asked) == 2 * count


async def test_a_silent_name_server_makes_the_peer_unreachable_for_half_a_minute() -> None:
    world = World()
    world.book.broken.add("_matrix-fed._tcp.a.example")
    for _ in range(3):
        with pytest.raises(Unreachable):
            await world.find("a.example")
    assert world.book.asked == ["_matrix-fed._tcp.a.example"]
    world.book.broken.clear()
    world.clock.pass_by(seconds=31)
    assert (await world.find("a.example")).host_header == "a.example"


async def test_service_records_come_by_priority_and_weight() -> None:
    world = World(chance=0.95)
    world.book.srv["_matrix-fed._tcp.a.example"] = (
        Service(20, 5, 1, "late.example"), Service(10, 90, 2, "heavy.example"), Service(10, 10, 3, "light.example"),
        Service(10, 0, 0, "no-port.example"), Service(1, 1, 4, "not a host"),
    )  # fmt: skip
    assert [e.host for e in (await world.find("a.example")).endpoints] == [
        "light.example", "heavy.example", "late.example"
    ]  # fmt: skip


async def test_a_flood_of_service_records_is_cut() -> None:
    world = World()
    world.book.srv["_matrix-fed._tcp.a.example"] = tuple(Service(1, 1, 1, f"t{n}.example") for n in range(500))
    assert len((await world.find("a.example")).endpoints) == 4


async def test_a_dot_says_that_there_is_no_federation() -> None:
    world = World()
    world.book.srv["_matrix-fed._tcp.a.example"] = (Service(0, 0, 0, "."),)
    with pytest.raises(Unreachable, match="offers no federation"):
        await world.find("a.example")


async def test_the_memory_is_bounded() -> None:
    world = World()
    for number in range(10_050):
        world.book.hosts[f"n{number}.example"] = ("198.51.100.1",)
        await world.names.addresses(f"n{number}.example")
    world.book.asked.clear()
    await world.names.addresses("n0.example")
    await world.names.addresses("n10049.example")
    assert world.book.asked == ["n0.example"]

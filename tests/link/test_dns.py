"""The real resolver of this machine, asked for what needs no network, and a name server of our own on loopback."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from appliance.link import dns
from appliance.link.dns import DnsUnavailable, NoSuchRecord, Service, SystemDns, is_host

A, SRV, NXDOMAIN, SERVFAIL = 1, 33, 3, 2


def name(text: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in text.rstrip(".").split(".")) + b"\0"


class NameServer(asyncio.DatagramProtocol):
    """Answers from a function (name, type) -> (code, records); None is silence."""

    def __init__(self, book: Callable[[str, int], tuple[int, list[tuple[int, int, bytes]]] | None]) -> None:
        self._book = book

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        labels, position = [], 12
        while data[position]:
            labels.append(data[position + 1 : position + 1 + data[position]].decode())
            position += data[position] + 1
        (kind,) = struct.unpack_from("!H", data, position + 1)
        answer = self._book(".".join(labels).lower(), kind)
        if answer is None:
            return
        code, records = answer
        head = data[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(records), 0, 0)
        body = b"".join(b"\xc0\x0c" + struct.pack("!HHIH", t, 1, ttl, len(raw)) + raw for t, ttl, raw in records)
        self._transport.sendto(head + data[12 : position + 5] + body, addr)


Book = Callable[[str, int], tuple[int, list[tuple[int, int, bytes]]] | None]


@asynccontextmanager
async def asking(book: Book) -> AsyncIterator[SystemDns]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(book), ("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    resolver = SystemDns([f"127.0.0.1:{port}"])
    yield resolver
    await resolver.close()
    transport.close()


async def test_this_machine_is_known_without_a_network() -> None:
    resolver = SystemDns()
    found = await resolver.addresses("localhost")
    assert set(found.found) <= {"127.0.0.1", "::1"} and found.found
    await resolver.close()


async def test_addresses_and_services_with_their_lifetimes() -> None:
    def book(host: str, kind: int) -> tuple[int, list[tuple[int, int, bytes]]] | None:
        if (host, kind) == ("a.example", A):
            return 0, [(A, 77, socket.inet_aton("198.51.100.1")), (A, 99, socket.inet_aton("198.51.100.2"))]
        if (host, kind) == ("_matrix-fed._tcp.a.example", SRV):
            return 0, [(SRV, 55, struct.pack("!HHH", 10, 20, 443) + name("t.example"))]
        return 0, []

    async with asking(book) as resolver:
        found = await resolver.addresses("a.example")
        assert set(found.found) == {"198.51.100.1", "198.51.100.2"} and 0 < found.ttl <= 77
        services = await resolver.services("_matrix-fed._tcp.a.example")
        assert services.found == (Service(10, 20, 443, "t.example"),) and services.ttl == 55
        with pytest.raises(NoSuchRecord):
            await resolver.services("_matrix._tcp.a.example")


async def test_no_such_name_is_not_the_same_as_nobody_could_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns, "QUESTION_SECONDS", 0.2)

    def book(host: str, kind: int) -> tuple[int, list[tuple[int, int, bytes]]] | None:
        return {"gone.example": (NXDOMAIN, []), "broken.example": (SERVFAIL, [])}.get(host)

    async with asking(book) as resolver:
        for ask in (resolver.addresses, resolver.services):
            with pytest.raises(NoSuchRecord):
                await ask("gone.example")
            with pytest.raises(DnsUnavailable):
                await ask("broken.example")
            with pytest.raises(DnsUnavailable):
                await ask("silent.example")


@pytest.mark.parametrize("text", ["", ".", "a..b", "-a.example", "a b", "ä.example", "a" * 64, "a." * 130, "a\0b"])
async def test_what_is_no_name_is_not_asked_for(text: str) -> None:
    assert not is_host(text)
    async with asking(lambda host, kind: pytest.fail("asked")) as resolver:
        for ask in (resolver.addresses, resolver.services):
            with pytest.raises(NoSuchRecord):
                await ask(text)


@pytest.mark.parametrize("text", ["a", "a.example", "A.EXAMPLE.", "_matrix._tcp.a.example", "xn--4ca.de", "a" * 63])
def test_what_is_a_name(text: str) -> None:
    assert is_host(text)

"""Requests over real TLS: the right certificate, the right host, limits of size and time, no forbidden address."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from appliance.link import direct
from appliance.link.addresses import LOOPBACK, policy
from appliance.link.dial import tls_context
from appliance.link.direct import Direct
from appliance.link.dns import Service
from appliance.link.errors import BadAnswer, Unreachable
from appliance.link.exchange import Ask
from appliance.matrix.ids import ServerName
from tests.link.town import HOME, Authority, Book, Clock, Peer, closed_port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    yield Authority(tmp_path_factory.mktemp("town"))


@asynccontextmanager
async def way(
    authority: Authority, book: Book, *, allowed: tuple[str, ...] = LOOPBACK, https_port: int = 1
) -> AsyncIterator[Direct]:
    tls = tls_context(authority.file)
    async with Direct.open(book, policy(allowed), tls, Clock(), lambda: 0.0, https_port=https_port) as opened:
        yield opened


def ask(server: str, target: str = "/_matrix/federation/v1/version", **changes: object) -> Ask:
    return Ask(ServerName(server), str(changes.pop("method", "GET")), target, **changes)  # type: ignore[arg-type]


def book(**hosts: tuple[str, ...]) -> Book:
    made = Book()
    made.hosts = {name.replace("_", "."): addresses for name, addresses in hosts.items()} or {"a.example": HOME}
    return made


async def test_host_and_certificate_of_an_explicit_port(authority: Authority) -> None:
    async with Peer(authority.server("a.example")) as peer, way(authority, book()) as link:
        answer = await link.request(ask(f"a.example:{peer.port}", "/x%2Fy?a=%20b&c"))
        assert answer.status == 200 and peer.seen == [("GET", "/x%2Fy?a=%20b&c", f"a.example:{peer.port}")]
        assert peer.names == ["a.example"]


async def test_an_ip_literal_needs_a_certificate_for_the_address_and_sends_no_name(authority: Authority) -> None:
    async with Peer(authority.server("127.0.0.1")) as good, Peer(authority.server("a.example")) as bad:
        async with way(authority, book()) as link:
            assert (await link.request(ask(f"127.0.0.1:{good.port}"))).status == 200
            assert good.names == [None]
            with pytest.raises(Unreachable, match="certificate"):
                await link.request(ask(f"127.0.0.1:{bad.port}"))
            assert bad.seen == []


async def test_a_service_record_does_not_decide_whose_certificate_is_good(authority: Authority) -> None:
    book_ = book(target_example=HOME)
    async with Peer(authority.server("target.example")) as thief, Peer(authority.server("a.example")) as peer:
        async with way(authority, book_) as link:
            book_.srv["_matrix-fed._tcp.b.example"] = (Service(1, 1, thief.port, "target.example"),)
            book_.srv["_matrix-fed._tcp.a.example"] = (Service(1, 1, peer.port, "target.example"),)
            with pytest.raises(Unreachable, match="certificate"):
                await link.request(ask("b.example"))
            assert (await link.request(ask("a.example"))).status == 200
        assert peer.seen[0][2] == "a.example" and peer.names == ["a.example"]
        assert thief.seen == []


async def test_two_servers_at_one_address_never_share_a_connection(authority: Authority) -> None:
    book_ = book(target_example=HOME)
    async with Peer(authority.server("a.example")) as peer, way(authority, book_) as link:
        for name in ("a.example", "b.example"):
            book_.srv[f"_matrix-fed._tcp.{name}"] = (Service(1, 1, peer.port, "target.example"),)
        assert (await link.request(ask("a.example"))).status == 200
        with pytest.raises(Unreachable, match="certificate"):
            await link.request(ask("b.example"))
        assert [host for _, _, host in peer.seen] == ["a.example"]


@pytest.mark.parametrize("kind", ["foreign authority", "expired"])
async def test_certificates_that_prove_nothing(authority: Authority, tmp_path: Path, kind: str) -> None:
    tls = (
        authority.server("a.example", days=-3)
        if kind == "expired"
        else Authority(tmp_path, "Elsewhere").server("a.example")
    )
    async with Peer(tls) as peer, way(authority, book()) as link:
        with pytest.raises(Unreachable, match="certificate"):
            await link.request(ask(f"a.example:{peer.port}"))
        assert peer.seen == []


async def test_a_delegation_is_read_over_tls_through_redirects(authority: Authority) -> None:
    book_ = book(a_example=HOME, www_example=HOME, hs_example=HOME)
    async with Peer(authority.server("hs.example")) as peer:

        async def pages(request: web.BaseRequest) -> web.StreamResponse:
            if request.headers["Host"].startswith("a.example"):
                return web.Response(status=302, headers={"Location": f"https://www.example:{site.port}/there"})
            return web.json_response({"m.server": f"hs.example:{peer.port}"})

        async with Peer(authority.server("a.example", "www.example"), pages) as site:
            async with way(authority, book_, https_port=site.port) as link:
                assert (await link.request(ask("a.example"))).status == 200
            assert site.seen[0][:2] == ("GET", "/.well-known/matrix/server") and site.seen[1][1] == "/there"
        assert peer.seen[0][2] == f"hs.example:{peer.port}"


@pytest.mark.parametrize("where", ["https://a.example:{port}/round", "http://a.example/", None, "file:///etc/passwd"])
async def test_redirects_that_lead_nowhere_count_as_no_delegation(authority: Authority, where: str | None) -> None:
    async def pages(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=301, headers={"Location": where.format(port=site.port)} if where else {})

    async with Peer(authority.server("a.example"), pages) as site:
        async with way(authority, book(), https_port=site.port) as link:
            with pytest.raises(Unreachable, match="connected"):
                await link.request(ask("a.example"))
        assert 1 <= len(site.seen) <= 6


async def test_loopback_is_reached_only_when_it_is_listed(authority: Authority) -> None:
    book_ = book(a_example=HOME)
    async with Peer(authority.server("a.example", "127.0.0.1")) as peer, way(authority, book_, allowed=()) as link:
        book_.srv["_matrix-fed._tcp.b.example"] = (Service(1, 1, peer.port, "127.0.0.1"),)
        for name in (f"a.example:{peer.port}", f"127.0.0.1:{peer.port}", f"[::ffff:7f00:1]:{peer.port}", "b.example"):
            with pytest.raises(Unreachable, match="must not be connected to"):
                await link.request(ask(name))
        assert peer.names == []


async def test_a_name_that_changes_its_mind_gains_nothing(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if the check after the look-up were fooled, the socket itself is not made."""
    async with Peer(authority.server("a.example")) as peer, way(authority, book(), allowed=()) as link:
        lookup = link._session.connector._resolver  # type: ignore[union-attr]
        monkeypatch.setattr(lookup, "_policy", policy(LOOPBACK))
        with pytest.raises(Unreachable, match="must not be connected to"):
            await link.request(ask(f"a.example:{peer.port}"))
        assert peer.names == []


async def test_forbidden_addresses_among_good_ones_are_passed_over(authority: Authority) -> None:
    book_ = book(a_example=("10.0.0.1", "127.0.0.1", "fe80::1"))
    async with Peer(authority.server("a.example")) as peer, way(authority, book_) as link:
        assert (await link.request(ask(f"a.example:{peer.port}"))).status == 200


async def test_the_next_target_is_tried_when_the_first_is_dead(authority: Authority) -> None:
    book_ = book(t_example=HOME)
    async with Peer(authority.server("a.example")) as peer, way(authority, book_) as link:
        dead, alive = Service(1, 1, closed_port(), "t.example"), Service(2, 1, peer.port, "t.example")
        book_.srv["_matrix-fed._tcp.a.example"] = (dead, alive)
        assert (await link.request(ask("a.example"))).status == 200


async def test_connections_are_kept(authority: Authority) -> None:
    async with Peer(authority.server("a.example")) as peer, way(authority, book()) as link:
        for _ in range(5):
            await link.request(ask(f"a.example:{peer.port}", method="PUT", body=b"{}"))
        assert len(peer.connections) == 1 and len(peer.seen) == 5
        assert peer.headers[0]["Content-Type"] == "application/json"
        assert "Cookie" not in peer.headers[-1] and peer.headers[0]["Accept-Encoding"] == "identity"


async def test_neither_redirects_nor_cookies(authority: Authority) -> None:
    async def sly(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=307, headers={"Location": "/elsewhere", "Set-Cookie": "a=b"})

    async with Peer(authority.server("a.example"), sly) as peer, way(authority, book()) as link:
        for _ in range(2):
            assert (await link.request(ask(f"a.example:{peer.port}"))).status == 307
        assert len(peer.seen) == 2 and "Cookie" not in peer.headers[1]


async def _send(request: web.BaseRequest, *chunks: bytes, pause: float = 0, **headers: str) -> web.StreamResponse:
    answer = web.StreamResponse(headers={name.replace("_", "-"): value for name, value in headers.items()})
    await answer.prepare(request)
    for chunk in chunks:
        await answer.write(chunk)
        await asyncio.sleep(pause)
    return answer


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_that_is_too_large_is_cut(authority: Authority, announced: bool) -> None:
    async def huge(request: web.BaseRequest) -> web.StreamResponse:
        if announced:
            return web.Response(body=b"x" * 5_000_000)
        return await _send(request, *[b"x" * 65536] * 100)

    async with Peer(authority.server("a.example"), huge) as peer, way(authority, book()) as link:
        with pytest.raises(BadAnswer, match="more than 100000 bytes"):
            await link.request(ask(f"a.example:{peer.port}", most_bytes=100_000))


async def test_compression_is_not_asked_for_and_not_taken(authority: Authority) -> None:
    async def bomb(request: web.BaseRequest) -> web.StreamResponse:
        return await _send(request, b"\x1f\x8b", Content_Encoding="gzip")

    async with Peer(authority.server("a.example"), bomb) as peer, way(authority, book()) as link:
        with pytest.raises(BadAnswer, match="compressed"):
            await link.request(ask(f"a.example:{peer.port}"))


@pytest.mark.parametrize("where", ["head", "body"])
async def test_a_peer_that_drips_is_left_when_the_time_is_over(authority: Authority, where: str) -> None:
    async def drip(request: web.BaseRequest) -> web.StreamResponse:
        if where == "head":
            await asyncio.sleep(5)
        return await _send(request, *[b"x"] * 100, pause=0.05)

    async with Peer(authority.server("a.example"), drip) as peer, way(authority, book()) as link:
        start = time.monotonic()
        with pytest.raises(Unreachable, match="in time"):
            await link.request(ask(f"a.example:{peer.port}", seconds=0.5))
        assert time.monotonic() - start < 1.5


async def test_a_peer_that_never_finishes_its_handshake(authority: Authority) -> None:
    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, way(authority, book()) as link:
        with pytest.raises(Unreachable, match="in time"):
            await link.request(ask(f"a.example:{port}", seconds=0.3))


@pytest.mark.parametrize("raw", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", b"\x00\xff\r\n\r\n"])
async def test_what_is_not_proper_http(authority: Authority, raw: bytes) -> None:
    async def broken(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(broken, "127.0.0.1", 0, ssl=authority.server("a.example"))
    port = server.sockets[0].getsockname()[1]
    async with server, way(authority, book()) as link:
        with pytest.raises(Unreachable, match=r"hung up|proper HTTP"):
            await link.request(ask(f"a.example:{port}", method="POST", body=b"{}"))


async def test_a_head_without_end_is_refused(authority: Authority) -> None:
    async def long(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers={"X-Long": "x" * 100_000})

    async with Peer(authority.server("a.example"), long) as peer, way(authority, book()) as link:
        with pytest.raises(Unreachable):
            await link.request(ask(f"a.example:{peer.port}"))


async def test_a_stream_arrives_piece_by_piece(authority: Authority) -> None:
    async def media(request: web.BaseRequest) -> web.StreamResponse:
        return await _send(request, *[bytes([n]) * 10_000 for n in range(20)])

    async with Peer(authority.server("a.example"), media) as peer, way(authority, book()) as link:
        request = ask(f"a.example:{peer.port}", most_bytes=10**6)
        async with link.stream(request) as answer:
            body = b"".join([chunk async for chunk in answer.chunks])
        assert body == b"".join(bytes([n]) * 10_000 for n in range(20))
        async with link.stream(request) as answer:
            async for _ in answer.chunks:
                break
        async with link.stream(request) as answer:
            assert answer.status == 200


async def test_a_stream_has_its_limits(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async def media(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/big":
            return await _send(request, *[b"x" * 10_000] * 100)
        return await _send(request, *[b"x"] * 100, pause=0.05 if request.path == "/drip" else 3)

    monkeypatch.setattr(direct, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(direct, "IDLE_SECONDS", 0.4)
    async with Peer(authority.server("a.example"), media) as peer, way(authority, book()) as link:
        for target, error, words in (
            ("/big", BadAnswer, "more than"), ("/drip", Unreachable, "too slowly"), ("/stop", Unreachable, "in time")
        ):  # fmt: skip
            with pytest.raises(error, match=words):
                async with link.stream(ask(f"a.example:{peer.port}", target, most_bytes=50_000)) as answer:
                    async for _ in answer.chunks:
                        continue


async def test_a_slow_reader_is_not_the_peers_fault(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async def media(request: web.BaseRequest) -> web.StreamResponse:
        return await _send(request, b"a", b"b", b"c")

    monkeypatch.setattr(direct, "GRACE_SECONDS", 0.1)
    async with Peer(authority.server("a.example"), media) as peer, way(authority, book()) as link:
        async with link.stream(ask(f"a.example:{peer.port}")) as answer:
            async for _ in answer.chunks:
                await asyncio.sleep(0.15)


async def test_an_unknown_name_and_a_silent_name_server(authority: Authority) -> None:
    book_ = book()
    book_.broken.add("b.example")
    async with way(authority, book_) as link:
        for name in ("nobody.example:1", "b.example:1", "2130706433:1", "a..b:1"):
            with pytest.raises(Unreachable):
                await link.request(ask(name))

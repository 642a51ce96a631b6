"""Two servers on loopback with real TLS: keys, signed requests, a notary, and strangers at the door."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from appliance.doors.federation import keys, version
from appliance.doors.federation.entry import Entry, PeerCall, PeerRoute
from appliance.doors.web import Access, Surface
from appliance.federation import multipart
from appliance.federation.client import Client
from appliance.federation.keyring import Keyring
from appliance.federation.own_keys import OwnKeys
from appliance.federation.requests import authorization
from appliance.federation.wire import Wire
from appliance.link.addresses import LOOPBACK, policy
from appliance.link.dial import tls_context
from appliance.link.direct import Direct
from appliance.link.errors import RefusedByPeer
from appliance.matrix.errors import LimitExceeded
from appliance.matrix.ids import ServerName
from appliance.matrix.requester import Requester
from appliance.matrix.signing import SigningKey, generate
from appliance.store.database import Store
from tests.federation.peers import Server
from tests.link.town import HOME, Authority, Book, Clock


@dataclass
class House:
    """One server: its name, its key, what it can do, and what it was asked."""

    name: ServerName
    key: SigningKey
    client: Client
    keyring: Keyring
    port: int
    heard: list[str] = field(default_factory=list)
    calls: list[tuple[str, object]] = field(default_factory=list)
    busy: set[str] = field(default_factory=set)


async def nobody(token: str, access: Access) -> Requester:
    raise AssertionError("no clients here")


def peer_routes(house: House) -> list[PeerRoute]:
    async def send(call: PeerCall) -> dict[str, object]:
        house.calls.append((call.peer, call.content))
        return {"pdus": {}}

    async def profile(call: PeerCall) -> dict[str, object]:
        return {"displayname": f"{call.call.query('user_id')} for {call.peer}"}

    async def media(call: PeerCall) -> web.StreamResponse:
        body = b"--x\r\nContent-Type: application/json\r\n\r\n{}\r\n--x\r\nContent-Type: image/png\r\n\r\n"
        return web.Response(
            body=body + b"P" * 300_000 + b"\r\n--x--\r\n", headers={"Content-Type": "multipart/mixed; boundary=x"}
        )

    return [
        PeerRoute("PUT", "/_matrix/federation/v1/send/{txn}", send, 100_000),
        PeerRoute("GET", "/_matrix/federation/v1/query/profile", profile),
        PeerRoute("GET", "/_matrix/federation/v1/media/download/{media}", media),
    ]


@asynccontextmanager
async def house(folder: Path, authority: Authority, host: str, seed: int, clock: Clock) -> AsyncIterator[House]:
    book = Book()
    book.hosts = {"a.example": HOME, "b.example": HOME}
    async with AsyncExitStack() as stack:
        store = await Store.open(folder / f"{host}.db")
        stack.push_async_callback(store.close)
        tls = tls_context(authority.file)
        link = await stack.enter_async_context(Direct.open(book, policy(LOOPBACK), tls, clock, lambda: 0.0))
        socket = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
        port = socket.sockets[0].getsockname()[1]
        socket.close()
        name, key = ServerName(f"{host}:{port}"), generate("1", bytes([seed]) * 32)
        client = Client(Wire(name, key, link))
        own = await OwnKeys.open(store, name, key, clock)
        keyring = Keyring(own, store, client, clock, lambda: 0.0)
        stack.push_async_callback(keyring.close)
        made = House(name, key, client, keyring, port)

        def admit(peer: ServerName, path: str) -> None:
            if peer in made.busy:
                raise LimitExceeded(5000)

        app = Surface(nobody, lambda kind, who: None).application([*keys.routes(keyring), *version.routes()])
        Entry(name, keyring.authenticate, admit, made.heard.append).serve(app, peer_routes(made))
        runner = web.AppRunner(app, shutdown_timeout=0.2)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=authority.server(host, "127.0.0.1")).start()
        yield made


@asynccontextmanager
async def two(folder: Path) -> AsyncIterator[tuple[House, House]]:
    authority, clock = Authority(folder), Clock()
    async with house(folder, authority, "a.example", 1, clock) as a:
        async with house(folder, authority, "b.example", 2, clock) as b:
            yield a, b


async def test_a_signed_conversation(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        assert (await a.client.version(b.name)).name == "Schleuse" and b.heard == []
        await a.client.send(b.name, "t/1", 5, [{"type": "x", "content": {"ü": [1, None]}}])
        assert b.calls == [(a.name, {"origin": a.name, "origin_server_ts": 5, "edus": [],
                                     "pdus": [{"type": "x", "content": {"ü": [1, None]}}]})]  # fmt: skip
        profile = await b.client.profile(a.name, "@ä b+c:a.example")  # type: ignore[arg-type]
        assert profile == {"displayname": f"@ä b+c:a.example for {b.name}"}
        assert (b.heard, a.heard) == ([a.name], [b.name])


async def test_a_file_from_a_peer(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        async with multipart.download(a.client.wire, b.name, "m", wait_ms=1000, most_bytes=10**6) as media:
            assert media.content_type == "image/png"
            assert b"".join([chunk async for chunk in media.chunks]) == b"P" * 300_000


async def test_a_notary_over_the_wire(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        for asked in (a.client.ask_notary(b.name, {a.name: {"ed25519:1": 0}, b.name: {}}),
                      a.client.ask_notary_for(b.name, a.name, 0)):  # fmt: skip
            found = {value["server_name"]: value for value in await asked}
            assert set(found[a.name]["signatures"]) == {a.name, b.name}
        nowhere = ServerName("nowhere.example:1")
        assert await a.client.ask_notary(b.name, {nowhere: {}}) == []


async def test_a_crowd_at_once_costs_one_visit_for_its_keys(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        await asyncio.gather(*(a.client.send(b.name, f"{n}", n, []) for n in range(50)))
        assert len(b.calls) == 50


async def test_a_peer_that_asks_too_much_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        b.busy.add(a.name)
        with pytest.raises(Exception, match="enough of us") as busy:
            await a.client.send(b.name, "t", 5, [])
        assert busy.value.retry_after_ms == 5000 and b.calls == []  # type: ignore[attr-defined]


async def test_too_large_a_body_is_refused(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        with pytest.raises(RefusedByPeer) as refused:
            await a.client.send(b.name, "t", 5, [{"x": "y" * 100_000}])
        assert refused.value.errcode == "M_TOO_LARGE" and b.calls == []


SEND = "/_matrix/federation/v1/send/t"


@pytest.mark.parametrize(
    ("case", "status", "errcode"),
    [
        ("nothing", 401, "M_UNAUTHORIZED"), ("bearer", 401, "M_UNAUTHORIZED"), ("other target", 401, "M_UNAUTHORIZED"),
        ("other body", 401, "M_UNAUTHORIZED"), ("other destination", 401, "M_UNAUTHORIZED"),
        ("forged origin", 401, "M_UNAUTHORIZED"), ("ourselves", 401, "M_UNAUTHORIZED"),
        ("nobody", 401, "M_UNAUTHORIZED"), ("not json", 400, "M_NOT_JSON"), ("no body", 400, "M_BAD_JSON"),
        ("huge number", 400, "M_BAD_JSON"), ("list", 400, "M_BAD_JSON"), ("unknown", 404, "M_UNRECOGNIZED"),
        ("method", 405, "M_UNRECOGNIZED"), ("good", 200, None),
    ],
)  # fmt: skip
async def test_strangers_at_the_door(tmp_path: Path, case: str, status: int, errcode: str | None) -> None:
    async with two(tmp_path) as (a, b):
        thief = Server("thief.example", 9, 0)
        body, origin, key, destination, target = b'{"pdus":[]}', a.name, a.key, b.name, SEND
        if case == "forged origin":
            key = thief.key
        if case == "ourselves":
            origin, key = b.name, b.key
        if case == "nobody":
            origin, key = ServerName("nobody.example:1"), thief.key
        if case == "other destination":
            destination = ServerName("c.example")
        if case == "other target":
            target = SEND + "?x"
        header = authorization(key, origin, destination, "PUT", target, body)
        headers = {"Authorization": {"nothing": "", "bearer": "Bearer x"}.get(case, header)}
        sent = {"other body": b'{"pdus":[1]}', "not json": b"{", "no body": b"", "list": b"[]",
                "huge number": b'{"a": 9007199254740993}'}.get(case, body)  # fmt: skip
        where = "/_matrix/federation/v1/unheard" if case == "unknown" else SEND
        method = "DELETE" if case == "method" else "PUT"
        async with aiohttp.ClientSession() as http:
            url = f"https://127.0.0.1:{b.port}{where}"
            async with http.request(method, url, data=sent, headers=headers, ssl=False) as answer:
                found = await answer.json()
                assert (answer.status, found.get("errcode")) == (status, errcode)
        assert len(b.calls) == len(b.heard) == (1 if case == "good" else 0)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"server_keys": []}, {"server_keys": {"a b": {}}}, {"server_keys": {"a.example": []}},
        {"server_keys": {"a.example": {"ed25519:1": 7}}}, {"server_keys": {f"s{n}.example": {} for n in range(101)}},
        {"server_keys": {"a.example": {"ed25519:1": {"minimum_valid_until_ts": "x"}}}},
        {"server_keys": {"a.example": {f"ed25519:{n}": {} for n in range(51)}}},
    ],
)  # fmt: skip
async def test_bad_questions_to_the_notary(tmp_path: Path, body: dict[str, object]) -> None:
    async with two(tmp_path) as (_, b), aiohttp.ClientSession() as http:
        base = f"https://127.0.0.1:{b.port}/_matrix/key/v2"
        async with http.post(f"{base}/query", json=body, ssl=False) as answer:
            assert 400 <= answer.status < 500 and (await answer.json())["errcode"].startswith("M_")
        for where in ("/query/a%20b", "/query/a.example?minimum_valid_until_ts=soon"):
            async with http.get(base + where, ssl=False) as answer:
                assert answer.status == 400


async def test_our_keys_are_there_for_everybody(tmp_path: Path) -> None:
    async with two(tmp_path) as (_, b), aiohttp.ClientSession() as http:
        for where in ("/server", "/server/ed25519:1"):
            async with http.get(f"https://127.0.0.1:{b.port}/_matrix/key/v2{where}", ssl=False) as answer:
                assert answer.status == 200 and (await answer.json())["server_name"] == b.name


async def test_a_body_that_drips_costs_the_others_nothing(tmp_path: Path) -> None:
    async with two(tmp_path) as (a, b):
        _, writer = await asyncio.open_connection("127.0.0.1", b.port, ssl=_blind())
        header = authorization(a.key, a.name, b.name, "PUT", SEND, b"{}")
        head = f"PUT {SEND} HTTP/1.1\r\nHost: x\r\nAuthorization: {header}\r\nContent-Length: 9\r\n\r\n"
        writer.write(head.encode() + b"{")
        await writer.drain()
        await a.client.send(b.name, "t", 5, [])
        assert len(b.calls) == 1
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _blind() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context

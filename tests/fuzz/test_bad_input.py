"""Bad input gives the specification's errcode and status: never a 5xx, never an HTML page, never a hang."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from yarl import URL

from tests.fuzz.bodies import BROKEN_JSON, NOT_AN_OBJECT, REQUESTS, Request, filled, spoiled
from tests.world.client import CLIENT, Answer, Client, segment, session, transaction_id
from tests.world.server import Homeserver, homeserver

PATIENCE = aiohttp.ClientTimeout(total=15)  # seconds; after that an answer counts as a hang
REFUSED_JSON = ((400, "M_BAD_JSON"), (400, "M_NOT_JSON"))  # a number of 400 digits may count as either
HARMLESS = ("/v3/login", "/v3/register", "/v3/refresh")


@dataclass(frozen=True, slots=True)
class Ward:
    """A person in a room, and the names that paths and bodies need."""

    http: aiohttp.ClientSession
    server: Homeserver
    client: Client
    names: dict[str, str]

    async def ask(self, method: str, path: str, raw: bytes | None = None, token: str | None = None) -> Answer:
        """Send bytes and judge the form of the answer; its meaning is the caller's business."""
        url = URL(self.server.base + (path if path.startswith("/_") else CLIENT + path), encoded=True)
        headers = {"Content-Type": "application/json"}
        if token is None:
            token = self.client.token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        async with self.http.request(method, url, data=raw, headers=headers, timeout=PATIENCE) as got:
            answer = Answer(got.status, got.headers, await got.read())
        well_formed(answer, f"{method} {path} {raw[:300] if raw else b''!r}")
        return answer

    def path(self, request: Request) -> str:
        names = {name: segment(value) for name, value in self.names.items()}
        return str(filled(request.path, {**names, "txn": transaction_id()}))


def well_formed(answer: Answer, what: str) -> None:
    assert answer.status < 500, f"{what}: {answer.status} {answer.raw[:300]!r}"
    assert "html" not in answer.content_type, f"{what}: HTML"
    if answer.status >= 400:
        body = json.loads(answer.raw)
        assert isinstance(body.get("errcode"), str) or "flows" in body, f"{what}: {answer.status} {body}"


def errcode(answer: Answer) -> str:
    return str(json.loads(answer.raw).get("errcode", ""))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homeserver]:
    server = homeserver(tmp_path_factory.mktemp("bad") / "data")
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def ward(server: Homeserver) -> AsyncIterator[Ward]:
    async with session() as http:
        client = await Client(http, server.base).register(f"p{transaction_id()}")
        room = await client.create_room(preset="public_chat")
        event = await client.send(room, {"msgtype": "m.text", "body": "x"})
        backup = {"algorithm": "m.megolm_backup.v1.curve25519-aes-sha2", "auth_data": {"public_key": "A" * 43}}
        version = await client.call("POST", "/v3/room_keys/version", backup)
        names = {"user": client.user_id, "room": room, "event": event, "device": client.device_id}
        yield Ward(http, server, client, {**names, "version": str(version["version"])})
        assert await client.sync(), "the person can still sync after all that"


def request_name(request: Request) -> str:
    return request.name


@pytest.mark.parametrize("request_", REQUESTS, ids=request_name)
async def test_broken_json_is_refused_as_such(ward: Ward, request_: Request) -> None:
    for name, raw in BROKEN_JSON.items():
        answer = await ward.ask(request_.method, ward.path(request_), raw)
        assert answer.status in (400, 413), f"{name}: {answer.status} {answer.raw[:200]!r}"
        assert errcode(answer) in ("M_NOT_JSON", "M_BAD_JSON", "M_TOO_LARGE"), f"{name}: {answer.raw[:200]!r}"
    for name, raw in NOT_AN_OBJECT.items():
        answer = await ward.ask(request_.method, ward.path(request_), raw)
        assert answer.status == 400, f"{name}: {answer.status} {answer.raw[:200]!r}"
        assert errcode(answer) in ("M_BAD_JSON", "M_NOT_JSON"), f"{name}: {answer.raw[:200]!r}"
    await ward.ask(request_.method, ward.path(request_), b"")


@pytest.mark.parametrize("request_", REQUESTS, ids=request_name)
async def test_wrong_types_are_refused_or_understood(ward: Ward, request_: Request) -> None:
    gate = asyncio.Semaphore(16)

    async def one(body: Any) -> None:
        async with gate:
            raw = json.dumps(body).encode()
            token = "" if request_.path in HARMLESS else None
            await ward.ask(request_.method, ward.path(request_), raw, token=token)

    await asyncio.gather(*(one(body) for body in spoiled(filled(request_.body, ward.names))))


@pytest.mark.parametrize("value", [2**53, -(2**53), 2**63, 10**400, 1.5, 1e300])
async def test_numbers_that_no_canonical_json_holds(ward: Ward, value: float) -> None:
    room = segment(ward.names["room"])
    raw = json.dumps({"msgtype": "m.text", "body": "x", "deep": [{"n": value}]}).encode()
    answer = await ward.ask("PUT", f"/v3/rooms/{room}/send/m.room.message/{transaction_id()}", raw)
    assert (answer.status, errcode(answer)) in REFUSED_JSON
    answer = await ward.ask("PUT", f"/v3/rooms/{room}/state/m.x/y", raw)
    assert (answer.status, errcode(answer)) in REFUSED_JSON


async def test_events_beyond_the_limits(ward: Ward) -> None:
    room = segment(ward.names["room"])
    send = f"/v3/rooms/{room}/send/m.room.message"
    answer = await ward.ask("PUT", f"{send}/{transaction_id()}", json.dumps({"body": "x" * 66_000}).encode())
    assert (answer.status, errcode(answer)) == (413, "M_TOO_LARGE")
    for path in (f"{send.replace('m.room.message', 'm.' + 'x' * 300)}/1", f"/v3/rooms/{room}/state/m.x/{'y' * 300}"):
        answer = await ward.ask("PUT", path, b"{}")
        assert answer.status in (400, 413), f"{path[:60]}: {answer.status} {answer.raw[:200]!r}"


async def test_bodies_beyond_the_limits(ward: Ward) -> None:
    huge = b'{"body": "' + b"x" * 12_000_000 + b'"}'
    for request in REQUESTS:
        try:
            answer = await ward.ask(request.method, ward.path(request), huge)
        except aiohttp.ClientOSError:
            continue  # refused while we were still sending: the answer went out before the body was read
        if "room_keys/keys" in request.path:
            continue  # a whole backup may be as large as that
        assert (answer.status, errcode(answer)) == (413, "M_TOO_LARGE"), request.name


async def test_bodies_that_do_not_say_how_long_they_are(ward: Ward) -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < 60_000
    head = b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\n"
    packed = head + f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb
    chunked = head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b"x" * 0x10000 + b"\r\n") * 100
    for raw in (packed, chunked):
        status, body = await spoken(ward.server.port, raw)
        assert status == 413, body[:300]
        assert b'"M_TOO_LARGE"' in body


async def test_uploads_beyond_the_limit(ward: Ward) -> None:
    limit = (await ward.client.call("GET", "/v1/media/config"))["m.upload.size"]
    head = (
        f"POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: {limit + 1}\r\n"
        f"Authorization: Bearer {ward.client.token}\r\nContent-Type: text/plain\r\n\r\n"
    )
    status, body = await spoken(ward.server.port, head.encode() + b"x" * 1000)
    assert status == 413, body
    assert b"M_TOO_LARGE" in body


TOKENS = {
    "unknown": "Bearer abcdef",
    "long": "Bearer " + "x" * 4000,
    "empty": "Bearer ",
    "without a scheme": "abcdef",
    "another scheme": "Basic YTpi",
    "bytes": b"Bearer \xff\xfe\x80".decode("latin-1"),
    "blank": " ",
}


@pytest.mark.parametrize("value", TOKENS.values(), ids=TOKENS)
async def test_foreign_and_malformed_tokens(ward: Ward, value: str) -> None:
    url = f"{ward.server.base}{CLIENT}/v3/account/whoami"
    async with ward.http.get(url, headers={"Authorization": value}, timeout=PATIENCE) as got:
        assert got.status == 401, await got.text()
        assert (await got.json())["errcode"] in ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN")
    async with ward.http.get(url, timeout=PATIENCE) as got:
        assert (got.status, (await got.json())["errcode"]) == (401, "M_MISSING_TOKEN")


async def test_somebody_elses_token_opens_nothing(ward: Ward) -> None:
    other = await Client(ward.http, ward.server.base).register(f"o{transaction_id()}")
    closed = segment(await ward.client.create_room(preset="private_chat"))
    me = segment(ward.client.user_id)
    for method, path, raw in (
        ("GET", f"/v3/rooms/{closed}/state", None),
        ("GET", f"/v3/rooms/{closed}/messages?dir=b", None),
        ("PUT", f"/v3/rooms/{closed}/send/m.room.message/1", b'{"body":"x"}'),
        ("GET", f"/v3/user/{me}/account_data/m.x", None),
        ("POST", f"/v3/user/{me}/filter", b"{}"),
        ("PUT", f"/v3/profile/{me}/displayname", b'{"displayname":"x"}'),
        ("POST", f"/v3/user/{me}/openid/request_token", b"{}"),
    ):
        answer = await ward.ask(method, path, raw, token=other.token)
        assert (answer.status, errcode(answer)) == (403, "M_FORBIDDEN"), f"{method} {path}: {answer.raw[:200]!r}"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nothing",
        "/_matrix",
        "/_matrix/client",
        "/_matrix/client/v3/nothing",
        "/_matrix/client/r0/sync",
        "/_matrix/client/v3/sync/",
        "/_matrix/media/v9/upload",
        "/_matrix/client/v3/../../etc/passwd",
        "/_matrix/client/v3/%2e%2e/x",
        "/_matrix/client/v3/rooms//send/x/1",
    ],
)
async def test_unknown_routes(ward: Ward, path: str) -> None:
    status, body = await spoken(
        ward.server.port, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    )
    assert status == 404, body
    assert b'"M_UNRECOGNIZED"' in body


@pytest.mark.parametrize("method", ["PATCH", "DELETE", "TRACE", "PROPFIND"])
async def test_wrong_methods(ward: Ward, method: str) -> None:
    for path in ("/v3/sync", "/v3/createRoom", "/v3/login", "/versions"):
        answer = await ward.ask(method, path)
        assert (answer.status, errcode(answer)) == (405, "M_UNRECOGNIZED"), f"{method} {path}"


async def test_preflight_requests_are_allowed(ward: Ward) -> None:
    for path in ("/v3/sync", "/v3/rooms/x/send/y/z"):
        answer = await ward.ask("OPTIONS", path, token="")
        assert answer.status in (200, 204)
        assert answer.headers["Access-Control-Allow-Origin"] == "*"


PATHS = [
    "/v3/rooms/{x}/state",
    "/v3/rooms/{x}/messages?dir=b",
    "/v3/rooms/{x}/event/{x}",
    "/v3/join/{x}",
    "/v3/directory/room/{x}",
    "/v3/profile/{x}",
    "/v3/profile/{x}/{x}",
    "/v3/user/{x}/filter/{x}",
    "/v3/devices/{x}",
    "/v3/presence/{x}/status",
    "/v3/pushrules/global/override/{x}",
    "/v3/room_keys/keys/{x}/{x}?version={x}",
    "/v3/keys/changes?from={x}&to={x}",
    "/v3/sync?timeout=0&since={x}",
    "/v3/sync?timeout=0&filter={x}",
    "/v3/sync?timeout={x}&since=s0",
    "/v3/publicRooms?limit={x}&since={x}",
    "/v3/notifications?limit={x}&from={x}",
    "/v1/media/download/{x}/{x}",
    "/v1/media/thumbnail/{x}/{x}?width={x}&height={x}",
    "/v1/rooms/{x}/hierarchy?limit={x}&from={x}",
    "/v1/rooms/{x}/relations/{x}?limit={x}&from={x}&dir={x}",
    "/v1/rooms/{x}/threads?limit={x}&include={x}",
    "/v1/rooms/{x}/timestamp_to_event?ts={x}&dir={x}",
    "/v1/room_summary/{x}",
    "/v3/rooms/{real}/messages?dir=b&limit={x}&from={x}&to={x}&filter={x}",
    "/v3/rooms/{real}/context/{x}?limit={x}",
    "/v3/rooms/{real}/state/m.x/a{x}",
    "/v3/rooms/{real}/state/{x}/a%0Ab{x}",
    "/nothing/of%0Athe/{x}",
    "/v3/rooms/{real}/members?at={x}&membership={x}",
    "/v1/rooms/{real}/timestamp_to_event?dir=f&ts={x}",
]
ODD = [
    "-1",
    "99999999999999999999",
    "1e9",
    "%00",
    "%FF%FE",
    "%F0%9F%92%A9",
    "%2F..%2F",
    "!",
    "@:",
    "#x",
    "$",
    "%",
    "%zz",
    "x" * 300,
]
ODD += ["!x:y:z:1:2", "@a:" + "b" * 300, "%0A%0D", "' OR 1=1 --", "s1_1_1_1", "\\", "{}", "%7B%22a%22:"]


@pytest.mark.parametrize("path", PATHS)
async def test_odd_names_and_numbers_in_paths_and_queries(ward: Ward, path: str) -> None:
    for odd in ODD:
        asked = path.replace("{x}", odd.replace(" ", "%20")).replace("{real}", segment(ward.names["room"]))
        await ward.ask("POST" if "/join/" in path else "GET", asked, b"{}" if "/join/" in path else None)


async def spoken(port: int, raw: bytes, seconds: float = 15) -> tuple[int, bytes]:
    """Say bytes on a bare connection; return status and everything that came back (0 for a closed connection)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(raw)
        async with asyncio.timeout(seconds):
            got = await reader.read(65536)
    except ConnectionError:
        got = b""
    finally:
        writer.close()
    return (int(got.split(b" ", 2)[1]) if got.startswith(b"HTTP/") else 0), got


MALFORMED = {
    "long path": b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long query": b"GET /_matrix/client/versions?a=" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "long header": b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
    "many headers": b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n" + b"X-A: b\r\n" * 20_000 + b"\r\n",
    "unknown method": b"BREW /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n\r\n",
    "no HTTP": b"hello\r\n\r\n",
    "wrong version": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
    "null in the path": b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    "raw bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
    "negative length": b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}",
    "two lengths": b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Content-Length: 3\r\n\r\n{}",
    "length and chunks": b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bad chunk": b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "unknown encoding": b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\n"
    b"Content-Length: 2\r\n\r\n{}",
    "folded header": b"GET /_matrix/client/versions HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_http(server: Homeserver, raw: bytes) -> None:
    status, body = await spoken(server.port, raw)
    assert status < 500, body[:300]
    assert b"<html" not in body.lower()
    if status >= 400:
        assert b'"errcode"' in body, body[:300]


async def test_slow_callers_do_not_hold_up_the_others(ward: Ward) -> None:
    slow = [await asyncio.open_connection("127.0.0.1", ward.server.port) for _ in range(100)]
    for number, (_, writer) in enumerate(slow):
        half = b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
        writer.write(half if number % 2 else half + b"\r\n{")
    async with asyncio.timeout(5):
        await ward.client.call("GET", "/v3/account/whoami")
    for _, writer in slow:
        writer.close()

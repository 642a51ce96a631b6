"""The one shape of a refusal: JSON with `errcode` and `error`, the right status, never a page and never a 5xx.

Asked of a real process over a real socket, because half of these are answered before any handler is reached.
"""

import asyncio
import json
from collections.abc import Iterator

import aiohttp
import pytest

from tests.world.client import Client, session
from tests.world.server import Schleuse

ROOM = "!nowhere:localhost"
NESTED = b'{"a":' * 200 + b"1" + b"}" * 200
V3 = "/_matrix/client/v3"

ANONYMOUS = [
    ("GET", "/", None, 404, "M_UNRECOGNIZED"),
    ("GET", "/nothing/here", None, 404, "M_UNRECOGNIZED"),
    ("GET", f"{V3}/unheard/of", None, 404, "M_UNRECOGNIZED"),
    ("GET", "/_matrix/client/%ff%fe", None, 404, "M_UNRECOGNIZED"),
    ("GET", f"{V3}/sync/", None, 404, "M_UNRECOGNIZED"),
    ("POST", f"{V3}/sync", b"{}", 405, "M_UNRECOGNIZED"),
    ("DELETE", "/_matrix/client/versions", None, 405, "M_UNRECOGNIZED"),
    ("PATCH", f"{V3}/login", b"{}", 405, "M_UNRECOGNIZED"),
    ("GET", f"{V3}/sync", None, 401, "M_MISSING_TOKEN"),
    ("POST", f"{V3}/createRoom", b"{}", 401, "M_MISSING_TOKEN"),
    ("POST", f"{V3}/login", b"", 400, "M_NOT_JSON"),
    ("POST", f"{V3}/login", b"{", 400, "M_NOT_JSON"),
    ("POST", f"{V3}/login", b"\xff\xfe", 400, "M_NOT_JSON"),
    ("POST", f"{V3}/login", b'{"type": NaN}', 400, "M_NOT_JSON"),
    ("POST", f"{V3}/login", b'{"type": "\\ud800"}', 400, None),
    ("POST", f"{V3}/login", b"[]", 400, "M_BAD_JSON"),
    ("POST", f"{V3}/login", NESTED, 400, None),
    ("POST", f"{V3}/login", b'{"type": 7}', 400, None),
    ("POST", f"{V3}/login", b"{}", 400, None),
    ("POST", f"{V3}/login", b'{"type": "m.login.unheard.of"}', 400, "M_UNKNOWN"),
    ("POST", f"{V3}/login", b'{"a": "' + b"x" * 2**20 + b'"}', 413, "M_TOO_LARGE"),
]

KNOWN = [
    ("POST", f"{V3}/createRoom", b"[1]", 400, "M_BAD_JSON"),
    ("POST", f"{V3}/createRoom", b'{"name": 5}', 400, None),
    ("POST", f"{V3}/createRoom", b'{"room_version": "nonsense"}', 400, "M_UNSUPPORTED_ROOM_VERSION"),
    ("GET", f"{V3}/sync?timeout=soon", None, 400, None),
    ("GET", f"{V3}/sync?since=yesterday", None, 400, None),
    ("GET", f"{V3}/sync?filter=%7B", None, 400, None),
    ("PUT", f"{V3}/rooms/{ROOM}/send/m.room.message/t1", b'{"body": 1.5}', 400, "M_BAD_JSON"),
    ("PUT", f"{V3}/rooms/{ROOM}/send/m.room.message/t2", b'{"n": 9007199254740993}', 400, "M_BAD_JSON"),
    ("PUT", f"{V3}/rooms/{ROOM}/send/m.room.message/t3", b"{}", 403, "M_FORBIDDEN"),
    ("GET", f"{V3}/rooms/not-a-room/messages?dir=b", None, 400, None),
    ("GET", f"{V3}/rooms/{ROOM}/messages?dir=sideways", None, 400, None),
    ("GET", f"{V3}/rooms/{ROOM}/state", None, 403, "M_FORBIDDEN"),
    ("GET", f"{V3}/profile/@nobody:localhost", None, 404, "M_NOT_FOUND"),
    ("GET", f"{V3}/profile/nobody", None, 400, None),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Schleuse]:
    """Run one real server for this file."""
    running = Schleuse(tmp_path_factory.mktemp("shape") / "data")
    running.start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def token(server: Schleuse) -> str:
    """Give the access token of somebody who has an account."""

    async def register() -> str:
        async with session() as http:
            return (await Client(http, server.base).register("mallory")).token

    return asyncio.run(register())


async def ask(base: str, method: str, path: str, body: bytes | None, token: str = "") -> tuple[int, dict[str, object]]:
    """Send one request and return status and JSON; whatever the answer is, it must have the one shape."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with aiohttp.ClientSession(headers=headers) as http, asyncio.timeout(10):
        async with http.request(method, base + path, data=body) as answer:
            raw = await answer.read()
            assert answer.content_type == "application/json", raw[:200]
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            return answer.status, json.loads(raw)


def shaped(answer: dict[str, object]) -> None:
    assert isinstance(answer["errcode"], str) and answer["errcode"].startswith("M_")
    assert isinstance(answer["error"], str) and answer["error"]
    assert "Traceback" not in answer["error"] and ".py" not in answer["error"]


@pytest.mark.parametrize(("method", "path", "body", "status", "errcode"), ANONYMOUS)
async def test_strangers_are_refused_in_shape(
    server: Schleuse, method: str, path: str, body: bytes | None, status: int, errcode: str | None
) -> None:
    got, answer = await ask(server.base, method, path, body)
    shaped(answer)
    assert (got, answer["errcode"]) == (status, errcode or answer["errcode"])


@pytest.mark.parametrize(("method", "path", "body", "status", "errcode"), KNOWN)
async def test_members_are_refused_in_shape(
    server: Schleuse, token: str, method: str, path: str, body: bytes | None, status: int, errcode: str | None
) -> None:
    got, answer = await ask(server.base, method, path, body, token)
    shaped(answer)
    assert (got, answer["errcode"]) == (status, errcode or answer["errcode"])


@pytest.mark.parametrize("foreign", ["x", "sy" + "t_bWFsbG9yeQ_abcdef", "é" * 10, "a" * 7000, "Bearer"])
async def test_foreign_tokens_are_unknown(server: Schleuse, foreign: str) -> None:
    async with aiohttp.ClientSession() as http, asyncio.timeout(10):
        headers = {"Authorization": f"Bearer {foreign}"}
        async with http.get(f"{server.base}{V3}/account/whoami", headers=headers) as answer:
            body = await answer.json()
            assert (answer.status, body["errcode"]) == (401, "M_UNKNOWN_TOKEN")


@pytest.mark.parametrize(
    "raw",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64,
        b"GET /_matrix/client/versions HTTP/1.1\r\nHost: a\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n{}",
        b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n{}\r\n",
    ],
    ids=["version", "tls hello", "long header", "long line", "negative length", "bad chunk"],
)
async def test_broken_http_is_refused_without_a_page(server: Schleuse, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(raw)
    async with asyncio.timeout(10):
        answer = await reader.read(65536)
    writer.close()
    assert b" 5" not in answer[:14]
    assert b"<html" not in answer.lower() and b"Traceback" not in answer
    if answer:
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))

"""Media over real HTTP: what a browser or a phone sees."""

from __future__ import annotations

import asyncio
import hashlib
import io
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from msgspec.structs import replace
from PIL import Image
from yarl import URL

from appliance.doors.client import media
from appliance.doors.web import Access, Surface
from appliance.matrix.errors import UnknownToken
from appliance.matrix.ids import DeviceId, UserId
from appliance.matrix.requester import Requester
from appliance.media.limits import MediaLimits
from tests.media.shelf import HERE, Shelf, shelf

V1 = "/_matrix/client/v1/media"
V3 = "/_matrix/media/v3"


@dataclass
class Site:
    shelf: Shelf
    http: ClientSession
    server: TestServer

    def url(self, path: str) -> URL:
        return URL(f"http://{self.server.host}:{self.server.port}{path}", encoded=True)

    async def upload(self, data: Any, headers: dict[str, str] | None = None, query: str = "") -> tuple[int, Any]:
        async with self.http.post(self.url(f"{V3}/upload{query}"), data=data, headers=headers) as answer:
            return answer.status, await answer.json()

    async def put(self, data: bytes, kind: str = "image/png", query: str = "") -> str:
        status, body = await self.upload(data, {"Content-Type": kind}, query)
        assert status == 200, body
        return str(body["content_uri"]).removeprefix("mxc://")


async def _authenticate(token: str, access: Access) -> Requester:
    if not token.startswith("@"):
        raise UnknownToken()
    return Requester(UserId(f"{token}:{HERE}"), DeviceId("D"), 1)


@asynccontextmanager
async def site(tmp_path: Path, limits: MediaLimits | None = None, **extra: Any) -> AsyncIterator[Site]:
    async with shelf(tmp_path, limits, **extra) as s:
        app = Surface(_authenticate, lambda kind, key: None).application(media.routes(s.media))
        server = TestServer(app)
        await server.start_server()
        async with ClientSession(headers={"Authorization": "Bearer @anna"}) as http:
            yield Site(s, http, server)
        await server.close()


async def test_a_picture_goes_in_and_comes_out_with_safe_headers(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        address = await s.put(b"bytes", query="?filename=R%C3%B6ntgen%20%221%22.png")
        async with s.http.get(s.url(f"{V1}/download/{address}")) as answer:
            assert answer.status == 200
            assert await answer.read() == b"bytes"
            assert answer.headers["Content-Type"] == "image/png"
            assert answer.headers["Content-Disposition"] == "inline; filename*=utf-8''R%C3%B6ntgen%20%221%22.png"
            assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none';")
            assert answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert "immutable" in answer.headers["Cache-Control"]
            etag = answer.headers["ETag"]
        async with s.http.get(s.url(f"{V1}/download/{address}/other.png")) as answer:
            assert answer.headers["Content-Disposition"] == 'inline; filename="other.png"'
        async with s.http.get(s.url(f"{V1}/download/{address}"), headers={"If-None-Match": etag}) as answer:
            assert answer.status == 304
        async with s.http.get(s.url(f"{V1}/download/{address}"), headers={"Range": "bytes=1-2"}) as answer:
            assert (answer.status, await answer.read()) == (206, b"yt")


async def test_what_could_run_in_a_browser_is_only_offered_as_a_download(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        for kind, given in (("text/html", "text/html"), ("image/svg+xml", "image/svg+xml"), ("nonsense", None),
                            ("application/pdf", "application/pdf"), ("image/png\t;;", None)):
            address = await s.put(b"<script>", kind)
            async with s.http.get(s.url(f"{V1}/download/{address}")) as answer:
                assert answer.headers["Content-Disposition"] == "attachment"
                assert answer.headers["Content-Type"] == (given or "application/octet-stream")


async def test_without_a_token_nothing_but_what_the_profile_allows(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        frozen = await s.put(b"new")
        bare = {"Authorization": ""}
        async with s.http.get(s.url(f"{V1}/download/{frozen}"), headers=bare) as answer:
            assert (answer.status, (await answer.json())["errcode"]) == (401, "M_MISSING_TOKEN")
        for path in (f"{V3}/download/{frozen}", f"{V3}/thumbnail/{frozen}?width=32&height=32"):
            async with s.http.get(s.url(path), headers=bare) as answer:
                assert (answer.status, (await answer.json())["errcode"]) == (404, "M_NOT_FOUND")
    async with site(tmp_path, unauthenticated=True) as s:
        opened = await s.put(b"open")
        async with s.http.get(s.url(f"{V3}/download/{opened}"), headers=bare) as answer:
            assert (answer.status, await answer.read()) == (200, b"open")
        async with s.http.get(s.url(f"{V3}/download/{frozen}"), headers=bare) as answer:
            assert answer.status == 404, "what came while the routes were frozen stays behind the token"
    async with site(tmp_path) as s, s.http.get(s.url(f"{V3}/download/{opened}"), headers=bare) as answer:
        assert answer.status == 200, "what came before the freeze stays reachable"


async def test_too_large_is_413_also_without_a_length(tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield bytes(1000)

    async with site(tmp_path, MediaLimits(upload_bytes=10_000, reserve_bytes=0)) as s:
        for data in (bytes(10_001), pieces()):
            status, body = await s.upload(data)
            assert (status, body["errcode"]) == (413, "M_TOO_LARGE")
        assert s.shelf.files() == []


async def test_a_broken_chunked_body_is_no_internal_error(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        reader, writer = await asyncio.open_connection(s.server.host, s.server.port)
        writer.write(b"POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer @anna\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n")
        await writer.drain()
        answer = await asyncio.wait_for(reader.read(4096), 5)
        writer.close()
        assert b" 400 " in answer.splitlines()[0]
        assert s.shelf.files() == []


async def test_a_connection_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    async with site(tmp_path) as s:
        _, writer = await asyncio.open_connection(s.server.host, s.server.port)
        writer.write(b"POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer @anna\r\n"
                     b"Content-Length: 5000000\r\n\r\n" + bytes(600_000))
        await writer.drain()
        async with asyncio.timeout(5):
            while not s.shelf.files():  # noqa: ASYNC110 (files send no events)
                await asyncio.sleep(0.01)
        writer.close()
        async with asyncio.timeout(5):
            while s.shelf.files():  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_an_upload_in_two_steps(tmp_path: Path) -> None:
    async with site(tmp_path, MediaLimits(reserve_bytes=0, pending_per_user=1)) as s:
        async with s.http.post(s.url("/_matrix/media/v1/create")) as answer:
            created = await answer.json()
        address = created["content_uri"].removeprefix("mxc://")
        assert created["unused_expires_at"] > s.shelf.now
        async with s.http.post(s.url("/_matrix/media/v1/create")) as answer:
            assert (answer.status, (await answer.json())["errcode"]) == (429, "M_LIMIT_EXCEEDED")
        async with s.http.get(s.url(f"{V1}/download/{address}?timeout_ms=1")) as answer:
            assert (answer.status, (await answer.json())["errcode"]) == (504, "M_NOT_YET_UPLOADED")
        for who, status in (("@bert", 403), ("@anna", 200), ("@anna", 409)):
            async with s.http.put(s.url(f"{V3}/upload/{address}"), data=b"x",
                                  headers={"Authorization": f"Bearer {who}"}) as answer:
                assert answer.status == status
        async with s.http.get(s.url(f"{V1}/download/{address}")) as answer:
            assert await answer.read() == b"x"


async def test_paths_that_climb_find_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("signing key")
    async with site(tmp_path) as s:
        for bad in (f"{HERE}/..%2F..%2Fsecret", f"{HERE}/%2e%2e", "..%2F..%2F/secret", f"{HERE}/%00", f"{HERE}/%ff",
                    "%2Fetc/passwd"):
            for path in (f"{V1}/download/{bad}", f"{V1}/thumbnail/{bad}?width=32&height=32", f"{V3}/download/{bad}"):
                async with s.http.get(s.url(path)) as answer:
                    assert answer.status in (400, 404), path
                    assert (await answer.json())["errcode"].startswith("M_")


async def test_thumbnails_and_their_refusals(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (500, 400)).save(out, "PNG")
    async with site(tmp_path) as s:
        address = await s.put(out.getvalue())
        async with s.http.get(s.url(f"{V1}/thumbnail/{address}?width=96&height=96&method=crop")) as answer:
            assert answer.status == 200
            assert answer.headers["Content-Type"] == "image/jpeg"
            assert answer.headers["Content-Disposition"] == 'inline; filename="thumbnail.jpeg"'
            assert Image.open(io.BytesIO(await answer.read())).size == (96, 96)
        for query, errcode in (("", "M_MISSING_PARAM"), ("width=1", "M_MISSING_PARAM"),
                               ("width=0&height=5", "M_INVALID_PARAM"), ("width=a&height=5", "M_INVALID_PARAM"),
                               ("width=9&height=9&method=zoom", "M_INVALID_PARAM")):
            async with s.http.get(s.url(f"{V1}/thumbnail/{address}?{query}")) as answer:
                assert (answer.status, (await answer.json())["errcode"]) == (400, errcode)
        text = await s.put(b"only text", "text/plain")
        async with s.http.get(s.url(f"{V1}/thumbnail/{text}?width=96&height=96")) as answer:
            assert (answer.status, (await answer.json())["errcode"]) == (400, "M_UNKNOWN")


async def test_config_and_the_preview_that_never_looks(tmp_path: Path) -> None:
    async with site(tmp_path, MediaLimits(reserve_bytes=0, upload_bytes=4711)) as s:
        for base in (V1, V3):
            async with s.http.get(s.url(f"{base}/config")) as answer:
                assert await answer.json() == {"m.upload.size": 4711}
            async with s.http.get(s.url(f"{base}/preview_url?url=http%3A%2F%2F127.0.0.1%3A1%2F")) as answer:
                assert (answer.status, await answer.json()) == (200, {})
            for query in ("", "?url=file%3A%2F%2F%2Fetc%2Fpasswd", "?url=http%3A%2F%2F%5B"):
                async with s.http.get(s.url(f"{base}/preview_url{query}")) as answer:
                    assert answer.status == 400


async def test_a_hundred_megabytes_pass_without_being_held(tmp_path: Path) -> None:
    size = 100 * 1024 * 1024
    piece = bytes(range(256)) * 256

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size // len(piece)):
            yield piece

    limits = replace(MediaLimits(reserve_bytes=0), upload_bytes=size)
    async with site(tmp_path, limits) as s:
        await s.put(b"warm up")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        status, body = await s.upload(pieces())
        assert status == 200
        digest = hashlib.sha256()
        async with s.http.get(s.url(f"{V1}/download/{body['content_uri'].removeprefix('mxc://')}")) as answer:
            async for chunk in answer.content.iter_chunked(65536):
                digest.update(chunk)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert digest.digest() == hashlib.sha256(piece * (size // len(piece))).digest()
    assert grown < 25, f"the process grew by {grown:.0f} MB (client and server together)"

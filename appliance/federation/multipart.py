"""Media from a peer: one `multipart/mixed` answer with a JSON part and then the bytes, or where else to get them.

The body is never in memory as a whole. The parser holds back only as many bytes as a boundary is long, and knows
exactly the two parts that the specification allows.

Source: server-server API, "Content Repository", GET /media/download and /media/thumbnail; RFC 2046, 5.1.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from appliance.federation.wire import Limits, Query, Wire, path
from appliance.link.errors import BadAnswer
from appliance.link.exchange import Streamed
from appliance.matrix import canonical
from appliance.matrix.errors import MatrixError
from appliance.matrix.ids import ServerName

HEAD_BYTES: Final = 16 * 1024
METADATA_BYTES: Final = 64 * 1024
ENVELOPE_BYTES: Final = HEAD_BYTES + METADATA_BYTES
FIRST_BYTE_SECONDS: Final = 60.0

_BOUNDARY: Final = re.compile(r';\s*boundary=(?:"([^"\\\r\n]{1,70})"|([^\s;",]{1,70}))', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PeerMedia:
    """What a peer hands out: its claimed type and disposition, and the bytes; or a `location` to fetch them from."""

    content_type: str
    disposition: str
    location: str | None
    chunks: AsyncIterator[bytes]


@asynccontextmanager
async def download(
    wire: Wire, peer: ServerName, media_id: str, *, wait_ms: int, most_bytes: int
) -> AsyncIterator[PeerMedia]:
    """GET /media/download: a file of the peer's, of at most `most_bytes`."""
    where = path("federation", "v1", "media", "download", media_id)
    async with _fetch(wire, peer, where, [("timeout_ms", wait_ms)], most_bytes) as media:
        yield media


@asynccontextmanager
async def thumbnail(
    wire: Wire, peer: ServerName, media_id: str, size: tuple[int, int], *, method: str, animated: bool | None = None,
    wait_ms: int, most_bytes: int,
) -> AsyncIterator[PeerMedia]:
    """GET /media/thumbnail: a picture about as large as `size` (width, height); `method` is `crop` or `scale`."""
    where = path("federation", "v1", "media", "thumbnail", media_id)
    query: list[tuple[str, str | int]] = [
        ("width", size[0]), ("height", size[1]), ("method", method), ("timeout_ms", wait_ms)
    ]  # fmt: skip
    if animated is not None:
        query.append(("animated", "true" if animated else "false"))
    async with _fetch(wire, peer, where, query, most_bytes) as media:
        yield media


@asynccontextmanager
async def _fetch(wire: Wire, peer: ServerName, where: str, query: Query, most: int) -> AsyncIterator[PeerMedia]:
    async with wire.stream(peer, where, query, Limits(FIRST_BYTE_SECONDS, most + ENVELOPE_BYTES)) as answer:
        yield await read(peer, answer, most)


async def read(peer: ServerName, answer: Streamed, most_bytes: int) -> PeerMedia:
    """Read up to the first byte of the media; `BadAnswer` when the answer has another form."""
    kind = answer.headers.get("Content-Type", "")
    boundary = _BOUNDARY.search(kind)
    if not kind.lower().startswith("multipart/mixed") or boundary is None:
        raise BadAnswer(peer, "did not answer with multipart/mixed")
    parts = _Parts(peer, answer.chunks, b"\r\n--" + (boundary[1] or boundary[2]).encode())
    await parts.open_first()
    await parts.head()
    await parts.metadata()
    headers = await parts.head()
    return PeerMedia(
        headers.get("content-type", "application/octet-stream"), headers.get("content-disposition", ""),
        headers.get("location"), parts.rest(most_bytes),
    )


class _Parts:
    """The stream of bytes, cut at the boundary."""

    def __init__(self, peer: ServerName, chunks: AsyncIterator[bytes], delimiter: bytes) -> None:
        self._peer = peer
        self._chunks = chunks
        self._delimiter = delimiter
        self._held = bytearray(b"\r\n")  # the first boundary need not stand behind a line break

    async def open_first(self) -> None:
        """Skip to the first part."""
        await self._until(self._delimiter, HEAD_BYTES)
        await self._line_end()

    async def head(self) -> dict[str, str]:
        """Read the headers of a part, names in lower case."""
        while len(self._held) < 2 and await self._fill():
            continue
        if self._held.startswith(b"\r\n"):
            del self._held[:2]
            return {}
        lines = (await self._until(b"\r\n\r\n", HEAD_BYTES)).decode("utf-8", "replace").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    async def metadata(self) -> Mapping[str, canonical.Json]:
        """Read the JSON part."""
        raw = await self._until(self._delimiter, METADATA_BYTES)
        await self._line_end()
        try:
            return canonical.decode_object(raw)
        except MatrixError as error:
            raise BadAnswer(self._peer, "sent media without readable metadata") from error

    async def rest(self, most_bytes: int) -> AsyncIterator[bytes]:
        """Give the last part piece by piece; it must end with the closing boundary."""
        given = 0
        keep = len(self._delimiter) - 1
        while (found := self._held.find(self._delimiter)) < 0:
            if len(self._held) > keep:
                piece = bytes(self._held[:-keep])
                del self._held[:-keep]
                given = self._counted(given, piece, most_bytes)
                yield piece
            if not await self._fill():
                raise BadAnswer(self._peer, "broke off in the middle of a file")
        piece = bytes(self._held[:found])
        del self._held[: found + len(self._delimiter)]
        while len(self._held) < 2 and await self._fill():
            continue
        if not self._held.startswith(b"--"):
            raise BadAnswer(self._peer, "sent more than two parts")
        self._counted(given, piece, most_bytes)
        if piece:
            yield piece

    def _counted(self, given: int, piece: bytes, most_bytes: int) -> int:
        if given + len(piece) > most_bytes:
            raise BadAnswer(self._peer, f"sent a file of more than {most_bytes} bytes")
        return given + len(piece)

    async def _line_end(self) -> None:
        if (await self._until(b"\r\n", HEAD_BYTES)).strip(b" \t"):
            raise BadAnswer(self._peer, "ended its answer before the file")

    async def _until(self, mark: bytes, most: int) -> bytes:
        """Take what stands before the mark, and the mark away."""
        start = 0
        while (found := self._held.find(mark, start)) < 0:
            start = max(0, len(self._held) - len(mark))
            if len(self._held) > most + len(mark) or not await self._fill():
                raise BadAnswer(self._peer, "sent media in a form that cannot be read")
        taken = bytes(self._held[:found])
        del self._held[: found + len(mark)]
        if len(taken) > most:
            raise BadAnswer(self._peer, "sent media in a form that cannot be read")
        return taken

    async def _fill(self) -> bool:
        async for chunk in self._chunks:
            self._held += chunk
            return True
        return False

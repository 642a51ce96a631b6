"""Uploads: from the wire to the disk in pieces, and only then a row that refers to them.

The caller hands over an asynchronous iterator; at most `PIECE` bytes of it are held at any time. An upload that is too
large, too slow, cut off or refused leaves nothing behind.

Source: client-server API, "Content repository".
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from appliance.matrix.errors import Forbidden, LimitExceeded, MatrixError, NotFound, TooLarge, Unknown
from appliance.matrix.ids import ServerName
from appliance.media import names
from appliance.media.blobs import Blobs, DiskFull, Draft
from appliance.media.limits import MediaLimits
from appliance.store import media
from appliance.store.database import Store
from appliance.store.media import Content

Clock = Callable[[], int]
PIECE = 512 * 1024


class CannotOverwriteMedia(MatrixError):
    """The id has content already; content never changes."""

    status, errcode = 409, "M_CANNOT_OVERWRITE_MEDIA"


class Incoming(msgspec.Struct, frozen=True):
    """Bytes on their way in. `length` is what the sender announced, None if nothing."""

    chunks: AsyncIterator[bytes]
    length: int | None
    content_type: str | None
    filename: str | None


class Promise(msgspec.Struct, frozen=True):
    """An address to upload to later, and until when (milliseconds since the epoch)."""

    uri: str
    expires: int


class Arrivals:
    """Who waits for the content of a promised id."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}
        self._waiting: dict[str, int] = {}

    def announce(self, media_id: str) -> None:
        """Wake everybody who waits for this id."""
        event = self._events.get(media_id)
        if event is not None:
            event.set()

    @asynccontextmanager
    async def expected(self, media_id: str) -> AsyncIterator[asyncio.Event]:
        """Watch an id: the event is set when its content is there."""
        event = self._events.setdefault(media_id, asyncio.Event())
        self._waiting[media_id] = self._waiting.get(media_id, 0) + 1
        try:
            yield event
        finally:
            self._waiting[media_id] -= 1
            if not self._waiting[media_id]:
                del self._waiting[media_id], self._events[media_id]


class Uploads:
    """Takes content in. `unauthenticated` says whether what arrives now may also be fetched by the old routes."""

    def __init__(
        self, store: Store, blobs: Blobs, *, server_name: ServerName, clock: Clock, limits: MediaLimits,
        unauthenticated: bool,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._server_name = server_name
        self._clock = clock
        self._limits = limits
        self._unauthenticated = unauthenticated
        self.arrivals = Arrivals()

    async def upload(self, user_id: str, incoming: Incoming) -> str:
        """Store a file and return its `mxc://` URI; it is on disk when this returns."""
        media_id = names.new_media_id()

        async def commit(content: Content) -> None:
            await self._store.write(media.insert, self._server_name, media_id, user_id, self._clock(), content)

        await self._take(user_id, incoming, commit)
        return f"mxc://{self._server_name}/{media_id}"

    async def create(self, user_id: str) -> Promise:
        """Hand out an id without content; `LimitExceeded` if the user has too many of them open."""
        now = self._clock()
        expires = now + self._limits.pending_ms
        media_id = names.new_media_id()
        first = await self._store.write(
            media.promise, self._server_name, media_id, user_id, now, expires, self._limits.pending_per_user)
        if first is not None:
            raise LimitExceeded(max(1000, first - now), "Too many uploads are pending; finish or wait for one of them")
        return Promise(f"mxc://{self._server_name}/{media_id}", expires)

    async def fill(self, user_id: str, origin: str, media_id: str, incoming: Incoming) -> None:
        """Upload the content of a promised id; `NotFound`, `Forbidden` or `CannotOverwriteMedia`."""
        names.check_id(origin, media_id)
        found = await self._store.read(media.find, origin, media_id)
        if found is None or origin != self._server_name:
            raise NotFound("Unknown media id")
        if found.uploader != user_id:
            raise Forbidden("Only the user who created the media id may upload to it")
        if found.expires is None:
            raise CannotOverwriteMedia("The media id already has content")
        if found.expires < self._clock():
            raise NotFound("The media id has expired")

        async def commit(content: Content) -> None:
            if not await self._store.write(media.fulfil, origin, media_id, content):
                raise CannotOverwriteMedia("The media id already has content")

        await self._take(user_id, incoming, commit)
        self.arrivals.announce(media_id)

    async def expire(self) -> int:
        """Forget promised ids that ran out more than an hour ago (an upload may still be arriving); return how many."""
        return await self._store.write(media.expire, self._clock() - 3_600_000)

    async def _take(self, user_id: str, incoming: Incoming, commit: Callable[[Content], Awaitable[None]]) -> None:
        name = names.filename(incoming.filename)
        await self._admit(user_id, incoming.length or 0)
        intake = Intake(self._blobs, self._limits)
        async with intake.receive(incoming) as draft:
            if incoming.length is None:
                await self._admit(user_id, draft.size)
            digest = await self._blobs.run(draft.finish)
            content = Content(digest, draft.size, names.content_type(incoming.content_type), name,
                              self._unauthenticated)
            await intake.keep(draft, digest, lambda: commit(content))

    async def _admit(self, user_id: str, size: int) -> None:
        """Refuse before reading a byte what could not be kept anyway."""
        if size > self._limits.upload_bytes:
            raise _too_large(self._limits)
        if self._limits.user_bytes is not None:
            used = await self._store.read(media.used_by, user_id)
            if used + size > self._limits.user_bytes:
                raise Forbidden("Your uploads have reached the space that is set aside for them")


class Intake:
    """The way of bytes into `Blobs`, with every limit; shared by uploads and by content fetched from peers."""

    def __init__(self, blobs: Blobs, limits: MediaLimits) -> None:
        self._blobs = blobs
        self._limits = limits

    @asynccontextmanager
    async def receive(self, incoming: Incoming) -> AsyncIterator[Draft]:
        """Read everything into a draft that is removed at the end unless it was kept."""
        try:
            await self._blobs.run(self._blobs.require_space, incoming.length or 0)
            draft = await self._blobs.run(self._blobs.draft)
        except (DiskFull, OSError) as error:
            raise _disk_error(error) from error
        try:
            await self._copy(incoming.chunks, draft)
            yield draft
        except (DiskFull, OSError) as error:
            if isinstance(error, ConnectionError):
                raise
            raise _disk_error(error) from error
        finally:
            # Even a cancelled request must not leave its file behind.
            await asyncio.shield(self._blobs.run(draft.discard))

    async def keep(self, draft: Draft, digest: bytes, commit: Callable[[], Awaitable[object]]) -> None:
        """Move the draft to its place and run `commit` while nobody can delete that digest."""
        async with self._blobs.lock(digest):
            await self._blobs.run(self._blobs.place, draft.path, digest)
            await commit()

    async def _copy(self, chunks: AsyncIterator[bytes], draft: Draft) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        piece = bytearray()
        received = 0
        try:
            async with asyncio.timeout(self._limits.grace_seconds) as deadline:
                async for chunk in chunks:
                    received += len(chunk)
                    if received > self._limits.upload_bytes:
                        raise _too_large(self._limits)
                    piece += chunk
                    if len(piece) >= PIECE:
                        await self._write(draft, piece)
                        piece = bytearray()
                        allowed = self._limits.grace_seconds + received / self._limits.bytes_per_second
                        deadline.reschedule(began + allowed)
        except TimeoutError as error:
            raise Unknown("The upload was too slow", status=408) from error
        await self._write(draft, piece)

    async def _write(self, draft: Draft, piece: bytearray) -> None:
        def step() -> None:
            self._blobs.require_space(len(piece))
            draft.append(piece)

        await self._blobs.run(step)


def _too_large(limits: MediaLimits) -> TooLarge:
    return TooLarge(f"Files larger than {limits.upload_bytes} bytes are not accepted")


def _disk_error(error: BaseException) -> Unknown:
    full = isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT))
    words = "The server has no room for further files" if full else "The server cannot store files at the moment"
    return Unknown(words, status=507 if full else 503, errcode="M_RESOURCE_LIMIT_EXCEEDED" if full else "M_UNKNOWN")

"""Downloads: from an `mxc://` address to a file on disk.

Content of another server is fetched through `Peers`, kept like an upload and served from here afterwards. Until
federation provides that Protocol, foreign addresses are simply not found.
"""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import msgspec

from appliance.matrix.errors import MatrixError, NotFound, TooLarge, Unknown
from appliance.matrix.ids import ServerName
from appliance.media import names
from appliance.media.blobs import Blobs
from appliance.media.limits import MediaLimits
from appliance.media.upload import Arrivals, Clock, Incoming, Intake
from appliance.store import media
from appliance.store.database import Store
from appliance.store.media import Content, MediaRow

DEFAULT_WAIT_MS = 20_000


class NotYetUploaded(MatrixError):
    """The id was created, its content is still to come."""

    status, errcode = 504, "M_NOT_YET_UPLOADED"


class Peers(Protocol):
    """How content of other servers is fetched; federation implements it."""

    def open(self, origin: ServerName, media_id: str, timeout_ms: int) -> AbstractAsyncContextManager[Incoming]:
        """Begin to read content from its server; raises `NotFound` if it has none."""


class Stored(msgspec.Struct, frozen=True):
    """Content ready to be sent: the file, its digest, size in bytes, declared type and name."""

    path: Path
    digest: bytes
    size: int
    content_type: str
    filename: str | None


class Query(msgspec.Struct, frozen=True):
    """What somebody asks for. `authenticated`: by a route that knows who asks; `remote`: other servers may be asked."""

    origin: str
    media_id: str
    timeout_ms: int = DEFAULT_WAIT_MS
    authenticated: bool = True
    remote: bool = True


class Downloads:
    """Finds content, waits for content that was promised, fetches content of others."""

    def __init__(
        self, store: Store, blobs: Blobs, arrivals: Arrivals, *, server_name: ServerName, clock: Clock,
        limits: MediaLimits, unauthenticated: bool, peers: Peers | None = None,
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._arrivals = arrivals
        self._server_name = server_name
        self._clock = clock
        self._limits = limits
        self._unauthenticated = unauthenticated
        self._peers = peers
        self._fetches: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def find(self, query: Query) -> Stored:
        """Return the content; `NotFound`, `NotYetUploaded`, or 502 `M_TOO_LARGE` for what a peer sends without end."""
        names.check_id(query.origin, query.media_id)
        row = await self._store.read(media.find, query.origin, query.media_id)
        if row is None and query.origin != self._server_name and query.remote and self._peers is not None:
            if not query.authenticated and not self._unauthenticated:
                raise NotFound("There is no such media")  # it would count as new, and new content is frozen here
            await self._fetch_once(self._peers, query)
            row = await self._store.read(media.find, query.origin, query.media_id)
        if row is not None and row.sha256 is None:
            row = await self._wait(row, query)
        return await self._visible(row, query)

    async def _visible(self, row: MediaRow | None, query: Query) -> Stored:
        if row is None or row.sha256 is None or row.quarantined or not (query.authenticated or row.open):
            raise NotFound("There is no such media")
        path = self._blobs.path(row.sha256)
        if not await self._blobs.run(path.is_file):
            raise NotFound("The file is missing on this server")
        return Stored(path, row.sha256, row.size, row.content_type, row.filename)

    async def _wait(self, row: MediaRow, query: Query) -> MediaRow | None:
        if row.expires is not None and row.expires < self._clock():
            raise NotFound("There is no such media")
        async with self._arrivals.expected(row.media_id) as arrived:
            # It may have arrived between the first look and the watch.
            fresh = await self._store.read(media.find, row.origin, row.media_id)
            if fresh is None or fresh.sha256 is not None:
                return fresh
            try:
                async with asyncio.timeout(min(query.timeout_ms, self._limits.wait_ms) / 1000):
                    await arrived.wait()
            except TimeoutError as error:
                raise NotYetUploaded("The content has not been uploaded yet") from error
        return await self._store.read(media.find, row.origin, row.media_id)

    async def _fetch_once(self, peers: Peers, query: Query) -> None:
        """Fetch content of a peer; simultaneous requests share one transfer, and one that leaves does not end it."""
        key = (query.origin, query.media_id)
        task = self._fetches.get(key)
        if task is None:
            task = self._fetches[key] = asyncio.create_task(self._fetch(peers, query))
            task.add_done_callback(lambda _: self._fetches.pop(key, None))
        await asyncio.shield(task)

    async def _fetch(self, peers: Peers, query: Query) -> None:
        wait = min(query.timeout_ms, self._limits.wait_ms)
        intake = Intake(self._blobs, self._limits)
        try:
            async with (
                peers.open(ServerName(query.origin), query.media_id, wait) as incoming,
                intake.receive(incoming) as draft,
            ):
                digest = await self._blobs.run(draft.finish)
                content = Content(digest, draft.size, names.content_type(incoming.content_type),
                                  _short(incoming.filename), self._unauthenticated)
                await intake.keep(draft, digest, lambda: self._store.write(
                    media.insert, query.origin, query.media_id, None, self._clock(), content))
        except TooLarge as error:
            raise TooLarge("The content is too large to be fetched from its server", status=502) from error
        except TimeoutError as error:
            raise Unknown("The server of this content did not answer in time", status=504) from error


def _short(name: str | None) -> str | None:
    return names.filename(name[:names.FILENAME_LIMIT]) if name else None

"""Thumbnails, made by a process that may die: bounded memory, bounded time, bounded pixels.

Decoding a stranger's picture is the most dangerous thing a homeserver does, and the decoder is large. So it lives in
a process of its own (`thumbnail_worker.py`): started with the first picture, used for the next ones, ended when idle,
killed when it takes too long. Results are files beside the blob; a lost one is made again.

Which sizes are made: the sizes of the specification, the next one that is large enough (a client may always shrink
further); a crop keeps the asked proportions, so other sizes exist too, but only `variants` of them per picture are
kept.

Source: client-server API, "Thumbnails".
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from appliance.matrix.errors import InvalidParam, LimitExceeded, MatrixError, TooLarge, Unknown
from appliance.media.blobs import Blobs
from appliance.media.download import Stored
from appliance.media.limits import MediaLimits

WORKER: Final = Path(__file__).with_name("thumbnail_worker.py")
SIZES: Final = ((32, 32), (96, 96), (320, 240), (640, 480), (800, 600), (1600, 1200))
SQUARES: Final = (32, 96, 320, 640, 800, 1600)
EDGE: Final = 1600
"""Longest edge that is made; a client that wants more downloads the picture."""
KINDS: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
ORIGINAL: Final = {"image/jpeg", "image/png", "image/gif", "image/webp"}


class CannotThumbnail(MatrixError):
    """The content is no picture that can be shrunk."""

    status, errcode = 400, "M_UNKNOWN"


class Shape(msgspec.Struct, frozen=True):
    """What a client asks for, brought to a size that is made. `crop` False means scale."""

    width: int
    height: int
    crop: bool
    animated: bool

    @property
    def kind(self) -> str:
        """Name the shape within a file name."""
        how = "crop" if self.crop else "scale"
        return f"{self.width}x{self.height}-{how}{'-animated' if self.animated else ''}"


class Thumbnail(msgspec.Struct, frozen=True):
    """A picture ready to be sent."""

    path: Path
    content_type: str


def shape(width: int, height: int, crop: bool, animated: bool) -> Shape:
    """Return the size that is made for a wish of `width` x `height` pixels; `InvalidParam` for less than one pixel."""
    if width < 1 or height < 1:
        raise InvalidParam("width and height must be at least 1")
    width, height = min(width, EDGE), min(height, EDGE)
    if crop and width == height:
        edge = next(size for size in SQUARES if size >= width)
        return Shape(edge, edge, True, animated)
    if crop:
        return Shape(width, height, True, animated)
    fitting = next((size for size in SIZES if size[0] >= width and size[1] >= height), (EDGE, EDGE))
    return Shape(*fitting, False, animated)


class Thumbnails:
    """Makes and keeps thumbnails. `close` ends the worker."""

    def __init__(self, blobs: Blobs, limits: MediaLimits) -> None:
        self._blobs = blobs
        self._limits = limits
        self._worker = _Worker(limits)
        self._making: dict[tuple[bytes, Shape], asyncio.Task[Thumbnail]] = {}

    async def of(self, stored: Stored, wanted: Shape) -> Thumbnail:
        """Return the thumbnail of some content; `CannotThumbnail`, `TooLarge`, `LimitExceeded` when too many wait."""
        if stored.size > self._limits.image_bytes:
            raise TooLarge("The picture is too large to be shrunk")
        found = await self._blobs.run(self._kept, stored.digest, wanted)
        if found is not None:
            return found
        key = (stored.digest, wanted)
        task = self._making.get(key)
        if task is None:
            if len(self._making) >= self._limits.worker_queue:
                raise LimitExceeded(2000, "Too many pictures wait to be shrunk")
            task = self._making[key] = asyncio.create_task(self._make(stored, wanted))
            task.add_done_callback(lambda _: self._making.pop(key, None))
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Give up what is being made and end the worker."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._worker.stop()

    def _kept(self, digest: bytes, wanted: Shape) -> Thumbnail | None:
        path = self._blobs.path(digest)
        for content_type, ending in KINDS.items():
            candidate = path.with_name(f"{path.name}-{wanted.kind}.{ending}")
            if candidate.is_file():
                return Thumbnail(candidate, content_type)
        return None

    async def _make(self, stored: Stored, wanted: Shape) -> Thumbnail:
        target = self._blobs.spare()
        try:
            answer = await self._worker.ask({
                "source": str(stored.path), "target": str(target), "width": wanted.width, "height": wanted.height,
                "crop": wanted.crop, "animated": wanted.animated,
            })
            if answer.get("original") in ORIGINAL:
                return Thumbnail(stored.path, answer["original"])
            if answer.get("made") not in KINDS:
                raise _refusal(answer.get("error"))
            ending = KINDS[answer["made"]]
            final = stored.path.with_name(f"{stored.path.name}-{wanted.kind}.{ending}")
            async with self._blobs.lock(stored.digest):
                await self._blobs.run(self._keep, stored, target, final)
            return Thumbnail(final, answer["made"])
        finally:
            with suppress(OSError):
                await self._blobs.run(lambda: target.unlink(missing_ok=True))

    def _keep(self, stored: Stored, target: Path, final: Path) -> None:
        if not stored.path.exists():
            raise CannotThumbnail("The content was deleted meanwhile")
        others = sorted(self._blobs.variants(stored.digest), key=lambda path: path.stat().st_mtime)
        for old in others[: max(0, len(others) + 1 - self._limits.variants)]:
            old.unlink(missing_ok=True)
        handle = os.open(target, os.O_RDONLY)
        try:
            os.fsync(handle)  # a power cut must not leave an empty picture under a good name
        finally:
            os.close(handle)
        target.replace(final)


def _refusal(error: str | None) -> MatrixError:
    if error == "too large":
        return TooLarge("The picture is too large to be shrunk")
    return CannotThumbnail("Cannot generate thumbnails for the requested content")


class _Worker:
    """One shrinking process at a time, one picture at a time."""

    def __init__(self, limits: MediaLimits) -> None:
        self._limits = limits
        self._turn = asyncio.Lock()
        self._process: Process | None = None
        self._idle: asyncio.TimerHandle | None = None

    async def ask(self, request: dict[str, object]) -> dict[str, str]:
        """Have one picture shrunk; `TooLarge` if it took the process too long or killed it."""
        async with self._turn:
            self._keep_awake()
            try:
                async with asyncio.timeout(self._limits.worker_seconds):
                    process = await self._running()
                    answer = await self._exchange(process, request)
            except (TimeoutError, OSError, ValueError) as error:
                await self._end()
                raise TooLarge("The picture could not be shrunk within the limits") from error
            except BaseException:
                await self._end()  # a cancelled question would leave its answer in the pipe
                raise
            self._rest()
            return answer

    async def stop(self) -> None:
        """End the process."""
        async with self._turn:
            self._keep_awake()
            await self._end()

    async def _exchange(self, process: Process, request: dict[str, object]) -> dict[str, str]:
        if process.stdin is None or process.stdout is None:
            raise ValueError("the worker has no pipes")
        process.stdin.write(json.dumps(request).encode() + b"\n")
        await process.stdin.drain()
        answer = json.loads(await process.stdout.readline())
        if not isinstance(answer, dict):
            raise ValueError("the worker answered something else")
        return answer

    async def _running(self) -> Process:
        if self._process is None or self._process.returncode is not None:
            self._process = None
            try:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable, "-I", str(WORKER), str(self._limits.worker_bytes), str(self._limits.image_pixels),
                    stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={"LANG": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}, cwd="/",
                )
            except OSError as error:
                raise Unknown("Thumbnails cannot be made at the moment", status=503) from error
        return self._process

    def _keep_awake(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _rest(self) -> None:
        self._idle = asyncio.get_running_loop().call_later(self._limits.worker_idle_seconds, self._close_pipe)

    def _close_pipe(self) -> None:
        """Idle for long enough: the process ends by itself when its input ends."""
        self._idle = None
        if self._process is not None and self._process.stdin is not None and not self._turn.locked():
            self._process.stdin.close()
            self._process = None

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

"""Files under their SHA-256: written once, never changed, kept once however often they are uploaded.

    media/incoming/<random>            an upload under way; emptied at start, for nobody can finish it
    media/blobs/ab/cd/<digest>         the file
    media/blobs/ab/cd/<digest>-<kind>  a thumbnail of it, made again if it is lost

An upload is hashed while it is written, synchronised, renamed to its digest, and the directories are synchronised too;
only then may a row refer to it. All of it happens on two threads of our own: a slow disk never holds up the loop.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

T = TypeVar("T")

SYNC_EVERY = 8 * 1024 * 1024
"""Write-back in steps: one flush of 100 MB at the end would make the database's next commit wait behind it."""


class DiskFull(Exception):
    """The file system has no room left beyond the reserve."""


class Draft:
    """One upload under way: a file in `incoming`, its digest so far, its size in bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256()
        self._unsynced = 0
        self._file: BinaryIO = open(path, "xb", buffering=0)

    def append(self, data: bytes | bytearray) -> None:
        """Write and hash the next piece."""
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view):]
        self.size += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_EVERY:
            os.fdatasync(self._file.fileno())
            self._unsynced = 0

    def finish(self) -> bytes:
        """Put the file on disk and return its digest."""
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.digest()

    def discard(self) -> None:
        """Close and remove; harmless after the file was moved to its place."""
        self._file.close()
        self.path.unlink(missing_ok=True)


class Blobs:
    """The media folder. `reserve_bytes` of the file system are left to the database."""

    LOCKS = 64

    def __init__(self, folder: Path, reserve_bytes: int) -> None:
        self._incoming = folder / "incoming"
        self._blobs = folder / "blobs"
        self._reserve = reserve_bytes
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="media")
        # Placing a file and deleting the last reference to the same digest must not overlap.
        self._locks = tuple(asyncio.Lock() for _ in range(self.LOCKS))

    def open(self) -> None:
        """Create the folders and remove what interrupted uploads left behind."""
        self._blobs.mkdir(parents=True, exist_ok=True)
        if self._incoming.exists():
            shutil.rmtree(self._incoming)
        self._incoming.mkdir()

    def close(self) -> None:
        """Let running writes end."""
        self._pool.shutdown()

    async def run(self, fn: Callable[..., T], *args: object) -> T:
        """Run a blocking piece of file work on the media threads."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, fn, *args)

    def lock(self, digest: bytes) -> asyncio.Lock:
        """Return the lock that covers this digest."""
        return self._locks[digest[0] % self.LOCKS]

    def path(self, digest: bytes) -> Path:
        """Return where the file of this digest lies, whether or not it does."""
        name = digest.hex()
        return self._blobs / name[:2] / name[2:4] / name

    def spare(self) -> Path:
        """Return an unused path in `incoming`."""
        return self._incoming / secrets.token_hex(16)

    def draft(self) -> Draft:
        """Begin a file. Blocking: call it through `run`."""
        return Draft(self.spare())

    def require_space(self, size: int) -> None:
        """Raise `DiskFull` unless `size` further bytes leave the reserve untouched."""
        room = os.statvfs(self._incoming)
        if room.f_bavail * room.f_frsize - size < self._reserve:
            raise DiskFull

    def place(self, path: Path, digest: bytes) -> None:
        """Move a finished file to its digest, durably. One that is there already stays; the caller holds `lock`."""
        target = self.path(digest)
        self._make_folders(target.parent)
        if target.exists() and target.stat().st_size == path.stat().st_size:
            path.unlink()
        else:
            path.replace(target)
        _sync_folder(target.parent)

    def _make_folders(self, folder: Path) -> None:
        for level in (folder.parent, folder):
            with suppress(FileExistsError):
                level.mkdir()
                _sync_folder(level.parent)

    def variants(self, digest: bytes) -> list[Path]:
        """Return the thumbnails stored beside a file."""
        path = self.path(digest)
        return sorted(path.parent.glob(f"{path.name}-*"))

    def remove(self, digest: bytes) -> None:
        """Delete a file and its thumbnails; the caller holds `lock` and has made sure that no row refers to it."""
        for path in (self.path(digest), *self.variants(digest)):
            path.unlink(missing_ok=True)

    def digests(self) -> Iterator[bytes]:
        """Walk over every file, one folder at a time."""
        for folder in sorted(self._blobs.glob("??/??")):
            for path in folder.iterdir():
                if len(path.name) == 64:
                    yield bytes.fromhex(path.name)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

"""A real repository on a real file, with a clock that the test turns."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.matrix.ids import ServerName
from appliance.media.limits import MediaLimits
from appliance.media.repository import Repository
from appliance.media.upload import Incoming
from appliance.store.database import Store

HERE = ServerName("hospital.example")
ANNA = "@anna:hospital.example"
BERT = "@bert:hospital.example"


@dataclass
class Shelf:
    """What a test of media holds in its hands."""

    store: Store
    media: Repository
    folder: Path
    now: int = 1_700_000_000_000

    def files(self) -> list[str]:
        """Name every file under the media folder."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())


@asynccontextmanager
async def shelf(tmp_path: Path, limits: MediaLimits | None = None, **extra: Any) -> AsyncIterator[Shelf]:
    """Open a store and a repository; `extra` goes to `Repository.open`."""
    store = await Store.open(tmp_path / "house.db")
    holder: list[Shelf] = []
    media = await Repository.open(
        store, tmp_path / "media", server_name=HERE, clock=lambda: holder[0].now if holder else 1_700_000_000_000,
        limits=limits or MediaLimits(reserve_bytes=0), **extra)
    holder.append(Shelf(store, media, tmp_path / "media"))
    try:
        yield holder[0]
    finally:
        await media.close()
        await store.close()


def incoming(data: bytes, *, content_type: str | None = "image/png", filename: str | None = None,
             length: int | None = None, step: int = 1000) -> Incoming:
    """Make an upload of some bytes that arrive in steps."""
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(data), step):
            yield data[start:start + step]

    return Incoming(chunks(), length, content_type, filename)


def media_id(uri: str) -> str:
    """Return the id of an `mxc://` URI of this house."""
    prefix = f"mxc://{HERE}/"
    assert uri.startswith(prefix)
    return uri.removeprefix(prefix)

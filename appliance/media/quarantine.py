"""Taking content away again: hide it, delete it, sweep what nobody refers to. Retention builds on these."""

from __future__ import annotations

from appliance.media.blobs import Blobs
from appliance.store import media
from appliance.store.database import Store

BATCH = 200


class Removal:
    """Deletes and hides content. Deleting the last reference deletes the file and its thumbnails."""

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self._store = store
        self._blobs = blobs

    async def quarantine(self, origin: str, media_id: str, hidden: bool = True) -> bool:
        """Hide content from everybody, or show it again; False if there is none."""
        return await self._store.write(media.quarantine, origin, media_id, hidden)

    async def delete(self, origin: str, media_id: str) -> bool:
        """Delete content for good; False if there was none."""
        found = await self._store.read(media.find, origin, media_id)
        if found is None:
            return False
        if found.sha256 is None:
            await self._store.write(media.delete, origin, media_id)
            return True
        async with self._blobs.lock(found.sha256):
            # The row goes first: a crash in between leaves a file without a row (`sweep`), never a row without a file.
            last = await self._store.write(media.delete, origin, media_id)
            if last is not None:
                await self._blobs.run(self._blobs.remove, last)
        return True

    async def delete_older(self, before: int) -> int:
        """Delete content that arrived before a time (milliseconds since the epoch); return how many references."""
        removed = 0
        while batch := await self._store.read(media.older_than, before, BATCH):
            for origin, media_id in batch:
                removed += await self.delete(origin, media_id)
        return removed

    async def delete_of(self, user_id: str) -> int:
        """Delete everything a user has uploaded; return how many references."""
        batch = await self._store.read(media.by_uploader, user_id)
        for origin, media_id in batch:
            await self.delete(origin, media_id)
        return len(batch)

    async def sweep(self) -> int:
        """Delete files that no row refers to (a crash between the file and its row); return how many."""
        removed = 0
        for digest in await self._blobs.run(lambda: list(self._blobs.digests())):
            async with self._blobs.lock(digest):
                if not await self._store.read(media.references, digest):
                    await self._blobs.run(self._blobs.remove, digest)
                    removed += 1
        return removed

"""The content repository as one resource: open it, hand its parts to the doors, close it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from appliance.matrix.ids import ServerName
from appliance.media.blobs import Blobs
from appliance.media.download import Downloads, Peers
from appliance.media.limits import MediaLimits
from appliance.media.quarantine import Removal
from appliance.media.thumbnails import Thumbnails
from appliance.media.upload import Clock, Uploads
from appliance.store.database import Store


class Repository(msgspec.Struct, frozen=True):
    """Everything about media. `limits` are what `/media/config` announces."""

    uploads: Uploads
    downloads: Downloads
    thumbnails: Thumbnails
    removal: Removal
    limits: MediaLimits
    blobs: Blobs

    @classmethod
    async def open(
        cls, store: Store, folder: Path, *, server_name: ServerName, clock: Clock, limits: MediaLimits | None = None,
        unauthenticated: bool = False, peers: Peers | None = None,
    ) -> Repository:
        """Open the repository in `folder`, removing what interrupted uploads left behind.

        `unauthenticated`: content that arrives from now on may also be fetched by the old routes without a token
        (the specification froze those with version 1.12; content from before stays reachable by them).
        """
        bounds = limits or MediaLimits()
        blobs = Blobs(folder, bounds.reserve_bytes)
        await blobs.run(blobs.open)
        uploads = Uploads(store, blobs, server_name=server_name, clock=clock, limits=bounds,
                          unauthenticated=unauthenticated)
        await uploads.expire()
        downloads = Downloads(store, blobs, uploads.arrivals, server_name=server_name, clock=clock, limits=bounds,
                              unauthenticated=unauthenticated, peers=peers)
        return cls(uploads, downloads, Thumbnails(blobs, bounds), Removal(store, blobs), bounds, blobs)

    async def close(self) -> None:
        """End the worker and let running file work finish."""
        await self.thumbnails.close()
        self.blobs.close()

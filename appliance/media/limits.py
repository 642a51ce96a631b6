"""The numbers that keep media from filling the disk, the memory or the time of the house."""

from __future__ import annotations

import msgspec

MIB = 1024 * 1024


class MediaLimits(msgspec.Struct, frozen=True):
    """Bounds of the content repository. Sizes in bytes, times in seconds unless the name says `_ms`.

    `upload_bytes`: largest file. `user_bytes`: all files of one user together, None for no bound. `reserve_bytes`:
    free space that uploads never touch, because the database lives on the same disk. `grace_seconds` and
    `bytes_per_second`: an upload may take the grace plus its size at that pace. `pending_per_user`, `pending_ms`:
    created ids without content. `wait_ms`: longest wait for content that is not there yet. `image_bytes`,
    `image_pixels`: largest picture that is shrunk. `worker_bytes`, `worker_seconds`: memory and time the shrinking
    process may take. `worker_idle_seconds`: when it ends by itself. `worker_queue`: pictures that may wait for it.
    `variants`: stored thumbnails of one picture.
    """

    upload_bytes: int = 100 * MIB
    user_bytes: int | None = None
    reserve_bytes: int = 512 * MIB
    grace_seconds: float = 60
    bytes_per_second: int = 16 * 1024
    pending_per_user: int = 30
    pending_ms: int = 24 * 3600 * 1000
    wait_ms: int = 60_000
    image_bytes: int = 64 * MIB
    image_pixels: int = 50_000_000
    worker_bytes: int = 1024 * MIB
    worker_seconds: float = 20
    worker_idle_seconds: float = 60
    worker_queue: int = 32
    variants: int = 16

"""The shrinking process: the only place where picture files of strangers are decoded.

Started by `thumbnails.py` as a script of its own (`python -I thumbnail_worker.py BYTES PIXELS`), with no part of the
house in it. It limits its own memory and file size, reads one JSON request per line and answers one JSON line:

    {"source", "target", "width", "height", "crop", "animated"}
    -> {"made": kind}        written to target
     | {"original": kind}    the source is small enough as it is
     | {"error": "unsupported" or "too large"}

If it dies or hangs, the house starts another; nothing but one thumbnail is lost.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from typing import Any

FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WEBP": "image/webp"}
MAX_FRAMES = 150
JPEG_QUALITY = 80
OUTPUT_BYTES = 64 * 1024 * 1024


def confine(memory: int) -> None:
    """Give the process bounds that the kernel enforces; nothing here can be raised again."""
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (OUTPUT_BYTES, OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(10)


Size = tuple[int, int]
Box = tuple[int, int, int, int]


def geometry(size: Size, wanted: Size, crop: bool) -> tuple[Box, Size]:
    """Return (box of the source to take, size of the result); the result is never larger than the box."""
    width, height = size
    want_width, want_height = wanted
    if not crop:
        scale = min(want_width / width, want_height / height, 1.0)
        return (0, 0, width, height), (max(1, round(width * scale)), max(1, round(height * scale)))
    scale = min(width / want_width, height / want_height)
    box_width = min(width, max(1, round(want_width * scale)))
    box_height = min(height, max(1, round(want_height * scale)))
    left, top = (width - box_width) // 2, (height - box_height) // 2
    scale = min(1.0, want_width / box_width)
    result = (max(1, round(box_width * scale)), max(1, round(box_height * scale)))
    return (left, top, left + box_width, top + box_height), result


def shrink(request: dict[str, Any], pixels: int) -> dict[str, str]:
    """Make one thumbnail."""
    from PIL import Image, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = pixels
    wanted = (int(request["width"]), int(request["height"]))
    try:
        with Image.open(request["source"], formats=tuple(FORMATS)) as image:
            if image.width * image.height > pixels:
                return {"error": "too large"}
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            if turned:
                wanted = wanted[::-1]
            frames = int(getattr(image, "n_frames", 1))
            animate = bool(request["animated"]) and 1 < frames and image.width * image.height * frames <= 4 * pixels
            small = image.width <= wanted[0] and image.height <= wanted[1]
            if small and (frames == 1 or animate):
                return {"original": FORMATS[str(image.format)]}
            box, size = geometry(image.size, wanted, bool(request["crop"]))
            if animate:
                return _animation(image, box, size, request["target"], min(frames, MAX_FRAMES))
            return _still(image, box, size, request["target"])
    except (Image.DecompressionBombError, MemoryError):
        return {"error": "too large"}
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, IndexError, EOFError, KeyError, TypeError):
        return {"error": "unsupported"}


def _reduced(image: Any, box: Box, size: Size) -> Any:
    from PIL import Image

    clear = "A" in image.getbands() or "transparency" in image.info
    if image.mode not in ("RGB", "RGBA", "L"):
        image = image.convert("RGBA" if clear else "RGB")
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=2.0)


def _still(image: Any, box: Box, size: Size, target: str) -> dict[str, str]:
    from PIL import ImageOps

    if image.format == "JPEG":
        full = image.size
        least = (size[0] * full[0] // (box[2] - box[0]), size[1] * full[1] // (box[3] - box[1]))
        image.draft("RGB", (max(1, least[0]), max(1, least[1])))  # decodes at a fraction of the size
        factor = image.width / full[0], image.height / full[1]
        box = (round(box[0] * factor[0]), round(box[1] * factor[1]),
               min(image.width, round(box[2] * factor[0])), min(image.height, round(box[3] * factor[1])))
    orientation = image.getexif().get(0x0112, 1)
    result = _reduced(image, box, size)
    if orientation != 1:
        result.getexif()[0x0112] = orientation
        result = ImageOps.exif_transpose(result)
    if result.mode == "RGBA":
        result.save(target, "PNG")
        return {"made": "image/png"}
    result.save(target, "JPEG", quality=JPEG_QUALITY, exif=b"")
    return {"made": "image/jpeg"}


def _animation(image: Any, box: Box, size: Size, target: str, frames: int) -> dict[str, str]:
    pictures, durations = [], []
    for index in range(frames):
        image.seek(index)
        durations.append(int(image.info.get("duration", 100)) or 100)
        pictures.append(_reduced(image, box, size))
    pictures[0].save(target, "WEBP", save_all=True, append_images=pictures[1:], duration=durations, loop=0, exif=b"")
    return {"made": "image/webp"}


def main(memory: int, pixels: int) -> None:
    """Serve requests until the house closes the pipe."""
    confine(memory)
    for line in sys.stdin:
        try:
            answer = shrink(json.loads(line), pixels)
        except MemoryError:
            answer = {"error": "too large"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

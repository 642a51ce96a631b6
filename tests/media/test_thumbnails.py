"""Pictures of strangers are decoded in a process that may die; the house goes on."""

from __future__ import annotations

import asyncio
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from PIL import Image

from appliance.matrix.errors import InvalidParam, LimitExceeded, MatrixError, TooLarge
from appliance.media.download import Query, Stored
from appliance.media.limits import MediaLimits
from appliance.media.thumbnails import CannotThumbnail, Shape, Thumbnails, shape
from tests.media.shelf import ANNA, HERE, Shelf, incoming, media_id, shelf

SMALL = MediaLimits(reserve_bytes=0, image_pixels=2_000_000, worker_seconds=20)


def picture(kind: str, size: tuple[int, int] = (1000, 600), mode: str = "RGB", **extra: Any) -> bytes:
    image = Image.linear_gradient("L").resize(size).convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **extra)
    return out.getvalue()


def film(kind: str, frames: int = 4) -> bytes:
    pictures = [Image.new("RGB", (400, 300), (60 * i, 0, 0)) for i in range(frames)]
    out = io.BytesIO()
    pictures[0].save(out, kind, save_all=True, append_images=pictures[1:], duration=50, loop=0)
    return out.getvalue()


async def stored(s: Shelf, data: bytes) -> Stored:
    uri = await s.media.uploads.upload(ANNA, incoming(data, step=65536))
    return await s.media.downloads.find(Query(HERE, media_id(uri)))


def measure(path: Path) -> tuple[str | None, tuple[int, int], int]:
    with Image.open(path) as image:
        return image.format, image.size, getattr(image, "n_frames", 1)


@pytest.mark.parametrize(("wish", "made"), [
    ((100, 100, False, False), Shape(320, 240, False, False)),
    ((32, 32, False, False), Shape(32, 32, False, False)),
    ((33, 30, True, False), Shape(33, 30, True, False)),
    ((40, 40, True, True), Shape(96, 96, True, True)),
    ((99999, 99999, False, False), Shape(1600, 1600, False, False)),
])
def test_a_wish_becomes_a_size_that_is_at_least_as_large(
    wish: tuple[int, int, bool, bool], made: Shape
) -> None:
    assert shape(*wish) == made


def test_a_wish_for_nothing_is_refused() -> None:
    with pytest.raises(InvalidParam):
        shape(0, 10, False, False)


async def test_scale_keeps_the_proportions_and_crop_fills_the_frame(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        for kind, output in (("JPEG", "JPEG"), ("PNG", "JPEG"), ("WEBP", "JPEG")):
            source = await stored(s, picture(kind))
            scaled = await s.media.thumbnails.of(source, shape(320, 240, False, False))
            assert measure(scaled.path) == (output, (320, 192), 1)
            cropped = await s.media.thumbnails.of(source, shape(96, 96, True, False))
            assert measure(cropped.path) == (output, (96, 96), 1)
            wide = await s.media.thumbnails.of(source, shape(200, 50, True, False))
            assert measure(wide.path)[1] == (200, 50)


async def test_transparency_survives(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        thumb = await s.media.thumbnails.of(await stored(s, picture("PNG", mode="RGBA")), shape(96, 96, True, False))
        assert (thumb.content_type, measure(thumb.path)[0]) == ("image/png", "PNG")


async def test_a_picture_is_never_enlarged(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        source = await stored(s, picture("JPEG", (50, 40)))
        thumb = await s.media.thumbnails.of(source, shape(320, 240, False, False))
        assert (thumb.path, thumb.content_type) == (source.path, "image/jpeg")
        narrow = await s.media.thumbnails.of(await stored(s, picture("PNG", (1000, 20))), shape(96, 96, True, False))
        assert measure(narrow.path)[1] == (20, 20)


async def test_a_turned_photograph_stands_upright_and_carries_no_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "Camera of a patient"
    async with shelf(tmp_path) as s:
        source = await stored(s, picture("JPEG", exif=exif))
        thumb = await s.media.thumbnails.of(source, shape(320, 240, False, False))
        assert measure(thumb.path)[1] == (144, 240)
        assert b"Camera of a patient" not in thumb.path.read_bytes()


async def test_animation_only_on_request(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        for kind in ("GIF", "WEBP", "PNG"):
            source = await stored(s, film(kind))
            still = await s.media.thumbnails.of(source, shape(96, 96, True, False))
            assert measure(still.path)[1:] == ((96, 96), 1)
            moving = await s.media.thumbnails.of(source, shape(96, 96, True, True))
            assert measure(moving.path) == ("WEBP", (96, 96), 4)
            small = await s.media.thumbnails.of(source, shape(1600, 1200, False, False))
            assert measure(small.path)[2] == 1
        rigid = await s.media.thumbnails.of(await stored(s, picture("JPEG")), shape(96, 96, True, True))
        assert rigid.content_type == "image/jpeg"


async def test_the_second_request_finds_what_the_first_made(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        source = await stored(s, picture("JPEG"))
        first = await s.media.thumbnails.of(source, shape(96, 96, True, False))
        stamp = first.path.stat().st_mtime_ns
        again = await s.media.thumbnails.of(source, shape(90, 90, True, False))
        assert (again.path, again.path.stat().st_mtime_ns) == (first.path, stamp)


async def test_only_so_many_sizes_of_a_picture_are_kept(tmp_path: Path) -> None:
    async with shelf(tmp_path, replace(SMALL, variants=3)) as s:
        source = await stored(s, picture("JPEG"))
        for width in range(100, 107):
            thumb = await s.media.thumbnails.of(source, shape(width, 50, True, False))
            assert thumb.path.exists()
        assert len(s.media.blobs.variants(source.digest)) == 3


def bomb(width: int, height: int) -> bytes:
    """Write a PNG of almost no bytes that unpacks to width x height grey pixels."""
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    packer = zlib.compressobj(9)
    row = bytes(width + 1)
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


async def test_a_decompression_bomb_is_too_large(tmp_path: Path) -> None:
    async with shelf(tmp_path, SMALL) as s:
        source = await stored(s, bomb(20_000, 2_000))
        assert source.size < 100_000
        with pytest.raises(TooLarge) as refused:
            await s.media.thumbnails.of(source, shape(96, 96, True, False))
        assert refused.value.status == 413
        assert (await s.media.thumbnails.of(await stored(s, picture("JPEG")), shape(96, 96, True, False))).path.exists()


async def test_a_bomb_that_lies_about_its_size_meets_the_memory_limit(tmp_path: Path) -> None:
    tight = replace(SMALL, image_pixels=10**9, worker_bytes=300 * 1024 * 1024)
    async with shelf(tmp_path, tight) as s:
        with pytest.raises(TooLarge):
            await s.media.thumbnails.of(await stored(s, bomb(30_000, 20_000)), shape(96, 96, True, False))
        assert (await s.media.thumbnails.of(await stored(s, picture("JPEG")), shape(96, 96, True, False))).path.exists()


@pytest.mark.parametrize("data", [
    b"", b"no picture at all", picture("PNG")[:400], picture("JPEG")[:500], film("GIF")[:60], b"GIF89a",
    b"\xff\xd8\xff\xe0",
    b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", b"%!PS-Adobe-3.0 EPSF-3.0\n",
])
async def test_truncated_and_foreign_files_are_refused(tmp_path: Path, data: bytes) -> None:
    async with shelf(tmp_path, SMALL) as s:
        with pytest.raises(CannotThumbnail) as refused:
            await s.media.thumbnails.of(await stored(s, data), shape(96, 96, True, False))
        assert (refused.value.status, refused.value.errcode) == (400, "M_UNKNOWN")
        assert [name for name in s.files() if "incoming" in name] == []


async def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = tmp_path / "hanging.py"
    hanging.write_text("import time\ntime.sleep(60)\n")
    async with shelf(tmp_path, replace(SMALL, worker_seconds=0.5)) as s:
        source = await stored(s, picture("JPEG"))
        with monkeypatch.context() as patch:
            patch.setattr("appliance.media.thumbnails.WORKER", hanging)
            with pytest.raises(TooLarge):
                await s.media.thumbnails.of(source, shape(96, 96, True, False))
        slow = Thumbnails(s.media.blobs, SMALL)
        assert (await slow.of(source, shape(96, 96, True, False))).path.exists()
        await slow.close()


async def test_a_worker_that_was_killed_from_outside_is_replaced(tmp_path: Path) -> None:
    async with shelf(tmp_path, SMALL) as s:
        source = await stored(s, picture("JPEG"))
        await s.media.thumbnails.of(source, shape(96, 96, True, False))
        worker = s.media.thumbnails._worker._process
        assert worker is not None
        worker.kill()
        await worker.wait()
        assert (await s.media.thumbnails.of(source, shape(32, 32, True, False))).path.exists()


async def test_an_idle_worker_ends(tmp_path: Path) -> None:
    async with shelf(tmp_path, replace(SMALL, worker_idle_seconds=0.05)) as s:
        source = await stored(s, picture("JPEG"))
        await s.media.thumbnails.of(source, shape(96, 96, True, False))
        worker = s.media.thumbnails._worker._process
        assert worker is not None
        async with asyncio.timeout(5):
            assert await worker.wait() == 0
        assert (await s.media.thumbnails.of(source, shape(32, 32, True, False))).path.exists()


async def test_too_many_pictures_at_once_are_put_off(tmp_path: Path) -> None:
    async with shelf(tmp_path, replace(SMALL, worker_queue=2)) as s:
        source = await stored(s, picture("JPEG"))
        results = await asyncio.gather(
            *(s.media.thumbnails.of(source, Shape(100 + i, 50, True, False)) for i in range(5)), return_exceptions=True)
        assert sum(isinstance(result, LimitExceeded) for result in results) == 3
        assert sum(not isinstance(result, MatrixError) for result in results) == 2


async def test_equal_wishes_at_once_are_one_piece_of_work(tmp_path: Path) -> None:
    async with shelf(tmp_path, replace(SMALL, worker_queue=1)) as s:
        source = await stored(s, picture("JPEG"))
        made = await asyncio.gather(*(s.media.thumbnails.of(source, Shape(96, 96, True, False)) for _ in range(9)))
        assert len({thumb.path for thumb in made}) == 1


def test_the_house_itself_never_loads_the_decoder() -> None:
    code = "import sys, appliance.media.repository, appliance.doors.client.media; print('PIL' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                         cwd=Path(__file__).parents[2])
    assert out.stdout.strip() == "False"


def test_the_thumbnails_object_starts_no_process_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with shelf(tmp_path) as s:
            assert isinstance(s.media.thumbnails, Thumbnails)
            assert s.media.thumbnails._worker._process is None

    asyncio.run(main())

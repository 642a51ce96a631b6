"""What arrives is kept once, whole and durably, or leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.matrix.errors import Forbidden, LimitExceeded, MatrixError, NotFound, TooLarge
from appliance.media.blobs import Blobs
from appliance.media.download import NotYetUploaded, Query
from appliance.media.limits import MediaLimits
from appliance.media.upload import CannotOverwriteMedia, Incoming
from tests.media.shelf import ANNA, BERT, HERE, incoming, media_id, shelf

ROOMY = MediaLimits(reserve_bytes=0)


async def test_what_is_uploaded_is_found_again_under_its_digest(tmp_path: Path) -> None:
    data = os.urandom(1_300_000)
    async with shelf(tmp_path) as s:
        uri = await s.media.uploads.upload(ANNA, incoming(data, filename="Röntgen.png", step=70_000))
        stored = await s.media.downloads.find(Query(HERE, media_id(uri)))
        digest = hashlib.sha256(data)
        assert (stored.digest, stored.size) == (digest.digest(), len(data))
        assert (stored.content_type, stored.filename) == ("image/png", "Röntgen.png")
        assert stored.path.read_bytes() == data
        name = digest.hexdigest()
        assert s.files() == [f"blobs/{name[:2]}/{name[2:4]}/{name}"]


async def test_the_same_content_from_many_people_at_once_is_one_file(tmp_path: Path) -> None:
    data = os.urandom(200_000)
    async with shelf(tmp_path) as s:
        uris = await asyncio.gather(*(s.media.uploads.upload(ANNA, incoming(data)) for _ in range(20)))
        assert len(set(uris)) == 20
        assert len(s.files()) == 1
        for uri in uris:
            assert (await s.media.downloads.find(Query(HERE, media_id(uri)))).path.read_bytes() == data


async def test_a_file_too_large_is_refused_with_and_without_a_declared_length(tmp_path: Path) -> None:
    async with shelf(tmp_path, MediaLimits(upload_bytes=10_000, reserve_bytes=0)) as s:
        for length in (None, 10_001):
            with pytest.raises(TooLarge) as refused:
                await s.media.uploads.upload(ANNA, incoming(bytes(10_001), length=length))
            assert (refused.value.status, refused.value.errcode) == (413, "M_TOO_LARGE")
        await s.media.uploads.upload(ANNA, incoming(bytes(10_000)))
        assert len(s.files()) == 1


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        yield bytes(600_000)
        raise ConnectionResetError

    async with shelf(tmp_path) as s:
        with pytest.raises(ConnectionResetError):
            await s.media.uploads.upload(ANNA, Incoming(breaking(), None, None, None))
        assert s.files() == []


async def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield bytes(600_000)
        begun.set()
        await asyncio.Event().wait()

    async with shelf(tmp_path) as s:
        task = asyncio.create_task(s.media.uploads.upload(ANNA, Incoming(endless(), None, None, None)))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert s.files() == []


async def test_an_upload_that_trickles_is_ended(tmp_path: Path) -> None:
    async def trickle() -> AsyncIterator[bytes]:
        while True:
            yield b"x"
            await asyncio.sleep(0.02)

    async with shelf(tmp_path, MediaLimits(reserve_bytes=0, grace_seconds=0.2)) as s:
        with pytest.raises(MatrixError) as refused:
            await s.media.uploads.upload(ANNA, Incoming(trickle(), None, None, None))
        assert refused.value.status == 408
        assert s.files() == []


async def test_the_reserve_of_the_disk_is_never_touched(tmp_path: Path) -> None:
    async with shelf(tmp_path, MediaLimits(reserve_bytes=2**60)) as s:
        with pytest.raises(MatrixError) as refused:
            await s.media.uploads.upload(ANNA, incoming(b"x"))
        assert (refused.value.status, refused.value.errcode) == (507, "M_RESOURCE_LIMIT_EXCEEDED")
        assert s.files() == []


async def test_a_disk_that_fills_up_in_the_middle_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: object, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("appliance.media.blobs.Draft.append", full)
    async with shelf(tmp_path) as s:
        with pytest.raises(MatrixError) as refused:
            await s.media.uploads.upload(ANNA, incoming(b"x"))
        assert refused.value.status == 507
        assert s.files() == []


async def test_a_person_has_a_share_of_the_disk(tmp_path: Path) -> None:
    async with shelf(tmp_path, MediaLimits(reserve_bytes=0, user_bytes=1500)) as s:
        await s.media.uploads.upload(ANNA, incoming(bytes(1000)))
        with pytest.raises(Forbidden):
            await s.media.uploads.upload(ANNA, incoming(bytes(1000)))
        await s.media.uploads.upload(BERT, incoming(bytes(1000)))


async def test_a_promised_id_gets_its_content_once_and_only_from_its_owner(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        promise = await s.media.uploads.create(ANNA)
        assert promise.expires == s.now + ROOMY.pending_ms
        name = media_id(promise.uri)
        with pytest.raises(NotYetUploaded) as early:
            await s.media.downloads.find(Query(HERE, name, timeout_ms=10))
        assert (early.value.status, early.value.errcode) == (504, "M_NOT_YET_UPLOADED")
        with pytest.raises(Forbidden):
            await s.media.uploads.fill(BERT, HERE, name, incoming(b"hers"))
        waiting = asyncio.create_task(s.media.downloads.find(Query(HERE, name)))
        await s.media.uploads.fill(ANNA, HERE, name, incoming(b"mine"))
        assert (await waiting).path.read_bytes() == b"mine"
        with pytest.raises(CannotOverwriteMedia) as again:
            await s.media.uploads.fill(ANNA, HERE, name, incoming(b"other"))
        assert (again.value.status, again.value.errcode) == (409, "M_CANNOT_OVERWRITE_MEDIA")
        with pytest.raises(NotFound):
            await s.media.uploads.fill(ANNA, HERE, "never-made", incoming(b"x"))


async def test_two_uploads_to_one_promise_race_and_one_wins(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        name = media_id((await s.media.uploads.create(ANNA)).uri)
        results = await asyncio.gather(
            *(s.media.uploads.fill(ANNA, HERE, name, incoming(str(i).encode())) for i in range(8)),
            return_exceptions=True)
        assert sum(result is None for result in results) == 1
        assert sum(isinstance(result, CannotOverwriteMedia) for result in results) == 7


async def test_promises_are_few_and_run_out(tmp_path: Path) -> None:
    async with shelf(tmp_path, MediaLimits(reserve_bytes=0, pending_per_user=2, pending_ms=60_000)) as s:
        first = await s.media.uploads.create(ANNA)
        await s.media.uploads.create(ANNA)
        with pytest.raises(LimitExceeded) as refused:
            await s.media.uploads.create(ANNA)
        assert refused.value.retry_after_ms == 60_000
        await s.media.uploads.create(BERT)
        s.now += 60_001
        with pytest.raises(NotFound):
            await s.media.uploads.fill(ANNA, HERE, media_id(first.uri), incoming(b"late"))
        await s.media.uploads.create(ANNA)
        s.now += 3_600_000
        assert await s.media.uploads.expire() == 3


async def test_ids_that_are_no_ids_reach_no_disk(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("signing key")
    async with shelf(tmp_path) as s:
        for origin, name in [(HERE, "../secret"), (HERE, ".."), (HERE, "a/b"), (HERE, ""), (HERE, "a\0"), (HERE, "ä"),
                             (HERE, "x" * 300), ("..", "secret"), ("a/../..", "secret"), ("", "secret")]:
            with pytest.raises(NotFound):
                await s.media.downloads.find(Query(origin, name))
            with pytest.raises(NotFound):
                await s.media.uploads.fill(ANNA, origin, name, incoming(b"x"))


async def test_media_of_other_servers_is_not_found_until_there_is_a_way_to_them(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        with pytest.raises(NotFound):
            await s.media.downloads.find(Query("elsewhere.example", "abc"))


def test_a_start_removes_what_interrupted_uploads_left(tmp_path: Path) -> None:
    left = tmp_path / "media" / "incoming" / "0123"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a file")
    Blobs(tmp_path / "media", 0).open()
    assert not left.exists()
    assert left.parent.is_dir()


KILLED = """
import asyncio, sys
from pathlib import Path
from tests.media.shelf import ANNA, incoming, shelf
from appliance.media.upload import Incoming

async def endless():
    while True:
        yield bytes(100_000)

async def main():
    async with shelf(Path(sys.argv[1])) as s:
        for i in range(30):
            uri = await s.media.uploads.upload(ANNA, incoming(str(i).encode() * 50_000, step=60_000))
            print(uri, i, flush=True)
        print("now", flush=True)
        await s.media.uploads.upload(ANNA, Incoming(endless(), None, None, None))

asyncio.run(main())
"""


async def test_kill_in_the_middle_of_an_upload_loses_nothing_that_was_acknowledged(tmp_path: Path, root: Path) -> None:
    process = subprocess.Popen(  # noqa: ASYNC220 (the test waits for its lines one by one)
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root)
    assert process.stdout is not None
    acknowledged = []
    for line in process.stdout:
        if line.strip() == "now":
            break
        acknowledged.append(line.split())
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(acknowledged) == 30
    async with shelf(tmp_path) as s:
        assert not [name for name in s.files() if name.startswith("incoming")]
        for uri, number in acknowledged:
            stored = await s.media.downloads.find(Query(HERE, media_id(uri)))
            assert stored.path.read_bytes() == number.encode() * 50_000
        assert len(s.files()) == 30

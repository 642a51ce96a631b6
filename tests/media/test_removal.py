"""Hiding, deleting, sweeping, and content of other servers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from appliance.matrix.errors import MatrixError, NotFound
from appliance.matrix.ids import ServerName
from appliance.media.download import Query
from appliance.media.limits import MediaLimits
from appliance.media.upload import Incoming
from tests.media.shelf import ANNA, BERT, HERE, incoming, media_id, shelf


async def test_the_file_goes_with_its_last_reference(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        first = media_id(await s.media.uploads.upload(ANNA, incoming(b"same")))
        second = media_id(await s.media.uploads.upload(BERT, incoming(b"same")))
        assert await s.media.removal.delete(HERE, first)
        with pytest.raises(NotFound):
            await s.media.downloads.find(Query(HERE, first))
        assert (await s.media.downloads.find(Query(HERE, second))).path.read_bytes() == b"same"
        assert await s.media.removal.delete(HERE, second)
        assert s.files() == []
        assert not await s.media.removal.delete(HERE, second)


async def test_deleting_and_uploading_the_same_content_at_once_never_loses_it(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        current = media_id(await s.media.uploads.upload(ANNA, incoming(b"content")))
        for _ in range(25):
            _, uri = await asyncio.gather(
                s.media.removal.delete(HERE, current), s.media.uploads.upload(ANNA, incoming(b"content")))
            current = media_id(uri)
            assert (await s.media.downloads.find(Query(HERE, current))).path.read_bytes() == b"content"
        assert len(s.files()) == 1


async def test_quarantined_content_is_hidden_and_can_come_back(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        name = media_id(await s.media.uploads.upload(ANNA, incoming(b"bad")))
        assert await s.media.removal.quarantine(HERE, name)
        with pytest.raises(NotFound):
            await s.media.downloads.find(Query(HERE, name))
        assert await s.media.removal.quarantine(HERE, name, hidden=False)
        assert (await s.media.downloads.find(Query(HERE, name))).size


async def test_retention_deletes_by_age_and_by_person(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        await s.media.uploads.upload(ANNA, incoming(b"old"))
        s.now += 1000
        await s.media.uploads.upload(ANNA, incoming(b"new"))
        await s.media.uploads.upload(BERT, incoming(b"his"))
        assert await s.media.removal.delete_older(s.now) == 1
        assert await s.media.removal.delete_of(ANNA) == 1
        assert len(s.files()) == 1


async def test_a_sweep_removes_files_without_a_row(tmp_path: Path) -> None:
    async with shelf(tmp_path) as s:
        kept = media_id(await s.media.uploads.upload(ANNA, incoming(b"kept")))
        orphan = s.media.blobs.path(bytes(32))
        orphan.parent.mkdir(parents=True)
        orphan.write_bytes(b"nobody's")
        assert await s.media.removal.sweep() == 1
        assert not orphan.exists()
        assert (await s.media.downloads.find(Query(HERE, kept))).size


class _Elsewhere:
    """Another server that has one file, and counts how often it was asked."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked = 0

    @asynccontextmanager
    async def open(self, origin: ServerName, media_id: str, timeout_ms: int) -> AsyncIterator[Incoming]:
        self.asked += 1
        if media_id != "there":
            raise NotFound("Not here either")
        yield incoming(self.data, filename="far.png")


async def test_content_of_another_server_is_fetched_once_and_kept(tmp_path: Path) -> None:
    peer = _Elsewhere(b"from afar")
    async with shelf(tmp_path, peers=peer) as s:
        wanted = Query("elsewhere.example", "there")
        found = await asyncio.gather(*(s.media.downloads.find(wanted) for _ in range(5)))
        assert {stored.path.read_bytes() for stored in found} == {b"from afar"}
        assert found[0].filename == "far.png"
        assert peer.asked == 1
        with pytest.raises(NotFound):
            await s.media.downloads.find(Query("elsewhere.example", "absent"))
        with pytest.raises(NotFound):
            await s.media.downloads.find(Query("elsewhere.example", "there", authenticated=False))


async def test_content_of_another_server_has_the_same_limit(tmp_path: Path) -> None:
    async with shelf(tmp_path, MediaLimits(upload_bytes=100, reserve_bytes=0), peers=_Elsewhere(bytes(101))) as s:
        with pytest.raises(MatrixError) as refused:
            await s.media.downloads.find(Query("elsewhere.example", "there"))
        assert (refused.value.status, refused.value.errcode) == (502, "M_TOO_LARGE")
        assert s.files() == []

"""Media from peers, however their bytes are cut, and what is no media."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.federation.multipart import PeerMedia, read
from appliance.link.errors import BadAnswer
from appliance.link.exchange import Streamed
from appliance.matrix.ids import ServerName

PEER = ServerName("a.example")
KIND = "multipart/mixed; boundary=gränze"


def answer(raw: bytes, size: int, kind: str = "multipart/mixed; boundary=b0und") -> Streamed:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(raw), size):
            yield raw[start : start + size]

    return Streamed(200, {"Content-Type": kind}, chunks())


def wrapped(body: bytes, head: bytes = b"Content-Type: image/png\r\nContent-Disposition: inline\r\n") -> bytes:
    first = b"--b0und\r\nContent-Type: application/json\r\n\r\n{}\r\n"
    return first + b"--b0und\r\n" + head + b"\r\n" + body + b"\r\n--b0und--\r\n"


async def taken(raw: bytes, size: int = 7, most: int = 10**6) -> tuple[PeerMedia, bytes]:
    media = await read(PEER, answer(raw, size), most)
    return media, b"".join([chunk async for chunk in media.chunks])


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 13, 21, 1000])
@pytest.mark.parametrize(
    "body", [b"", b"x", b"\r\n", b"\r\n--b0un", b"--b0und--", b"\r\n--b0unx\r\n--b0un", bytes(range(256)) * 9]
)
async def test_bytes_come_through_unchanged_however_they_are_cut(body: bytes, size: int) -> None:
    media, got = await taken(wrapped(body), size)
    assert got == body and (media.content_type, media.disposition) == ("image/png", "inline")


@given(st.binary(max_size=200).filter(lambda b: b"\r\n--b0und" not in b), st.integers(1, 60))
async def test_any_bytes(body: bytes, size: int) -> None:
    assert (await taken(wrapped(body), size))[1] == body


async def test_other_ways_of_writing_the_same() -> None:
    plain = wrapped(b"PNG")
    for raw in (b"\r\n" + plain, b"preamble\r\n" + plain, plain.replace(b"--b0und\r\n", b"--b0und \t\r\n"),
                plain.replace(b"Content-Type: application/json\r\n", b""), plain + b"epilogue" * 9):  # fmt: skip
        assert (await taken(raw))[1] == b"PNG"
    media, _ = await taken(wrapped(b"PNG", head=b""))
    assert media.content_type == "application/octet-stream" and media.location is None
    media, _ = await taken(wrapped(b"", head=b"Location: https://cdn.example/x\r\n"))
    assert media.location == "https://cdn.example/x"
    quoted = answer(wrapped(b"PNG"), 5, 'Multipart/Mixed; charset=x; BOUNDARY="b0und"')
    assert b"".join([c async for c in (await read(PEER, quoted, 9)).chunks]) == b"PNG"


@pytest.mark.parametrize("kind", ["application/json", "multipart/mixed", "multipart/mixed; boundary=", KIND[:30], ""])
async def test_answers_of_another_kind(kind: str) -> None:
    with pytest.raises(BadAnswer):
        await read(PEER, answer(wrapped(b"x"), 9, kind), 10)


@pytest.mark.parametrize("cut", range(0, len(wrapped(b"PNG")) - 4, 5))
async def test_whatever_breaks_off_is_noticed(cut: int) -> None:
    with pytest.raises(BadAnswer):
        await taken(wrapped(b"PNG")[:cut], 4)


@pytest.mark.parametrize(
    "raw",
    [
        wrapped(b"x" * 101), wrapped(b"a").replace(b"{}", b"[]"), wrapped(b"a").replace(b"{}", b"{" * 70_000),
        wrapped(b"a", head=b"X: " + b"y" * 20_000 + b"\r\n"), b"z" * 30_000 + wrapped(b"a"),
        wrapped(b"a").replace(b"--b0und--", b"--b0und\r\n\r\nmore\r\n--b0und--"), b"--b0und--\r\n",
        b"--b0und\r\n\r\n{}\r\n--b0und--\r\n",
    ],
)  # fmt: skip
async def test_too_much_and_too_many(raw: bytes) -> None:
    with pytest.raises(BadAnswer):
        await taken(raw, 4096, most=100)

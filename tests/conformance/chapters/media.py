"""Uploads, downloads, thumbnails: authenticated v1 and the older v3."""

from __future__ import annotations

import io

from PIL import Image

from tests.conformance.walk import Walk

OLD, NEW = "/_matrix/media/v3", "/v1/media"


def picture() -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize((400, 300)).save(out, "PNG")
    return out.getvalue()


async def media(w: Walk) -> None:
    ada = await w.person("photographer")
    png = {"Content-Type": "image/png"}
    named = {"filename": "bed 4 – ü.png"}
    got = await w(ada, "POST", f"{OLD}/upload", data=picture(), headers=png, params=named)
    where = got.get("content_uri", "mxc://").removeprefix("mxc://")
    for root in (f"/_matrix/client{NEW}", OLD):
        answer = await w.raw(ada, "GET", f"{root}/download/{where}")
        assert answer.raw == picture(), f"{root} gives other bytes"
        assert answer.headers.get("X-Content-Type-Options") == "nosniff" or "Content-Security-Policy" in answer.headers
        assert "Content-Disposition" in answer.headers
        size = {"width": "64", "height": "48", "method": "scale"}
        thumbnail = await w.raw(ada, "GET", f"{root}/thumbnail/{where}", params=size)
        with Image.open(io.BytesIO(thumbnail.raw)) as small:
            assert small.width <= 400, "a thumbnail is not larger than its picture"
    for path in (f"{NEW}/download/{where}", f"{NEW}/download/{where}/other.png", f"{OLD}/download/{where}"):
        await w(ada, "GET", path)
    await w(ada, "GET", f"{OLD}/download/{where}/other.png")
    for path in (f"{NEW}/thumbnail/{where}", f"{OLD}/thumbnail/{where}"):
        await w(ada, "GET", path, params={"width": "32", "height": "32", "method": "crop", "animated": "false"})
        await w(ada, "GET", path, params={"width": "0", "height": "32"}, expect=400)
    await w(None, "GET", f"{NEW}/download/{where}", expect=401)
    await w(ada, "GET", f"{NEW}/download/localhost/nothing", expect=404)
    await w(ada, "GET", f"{NEW}/config")
    await w(ada, "GET", f"{OLD}/config")


async def later(w: Walk) -> None:
    ada, bob = await w.person("announcer"), await w.person("other")
    promised = (await w(ada, "POST", "/_matrix/media/v1/create")).get("content_uri", "mxc://").removeprefix("mxc://")
    await w(ada, "GET", f"{NEW}/download/{promised}", params={"timeout_ms": "0"}, expect=504)
    await w(bob, "PUT", f"{OLD}/upload/{promised}", data=b"not mine", expect=403)
    await w(ada, "PUT", f"{OLD}/upload/{promised}", data=b"at last", headers={"Content-Type": "text/plain"})
    await w(ada, "PUT", f"{OLD}/upload/{promised}", data=b"twice", expect=409)
    answer = await w.raw(ada, "GET", f"/_matrix/client{NEW}/download/{promised}")
    assert answer.raw == b"at last"


CHAPTERS = (media, later)

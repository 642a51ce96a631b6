"""Content repository: upload, download, thumbnails (client-server API, "Content repository").

Downloads are answered with the file itself: the kernel sends it, ranges and conditional requests included. Of links
this house makes no previews: it has no way out, and a preview would tell a foreign server what is talked about in a
hospital. The route answers the empty set of properties that the specification allows.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from aiohttp import web

from appliance.doors.web import CORS, Access, Call, Json, Reply, Route
from appliance.matrix.errors import InvalidParam, MissingParam
from appliance.media import names
from appliance.media.download import DEFAULT_WAIT_MS, Query
from appliance.media.repository import Repository
from appliance.media.thumbnails import shape
from appliance.media.upload import Incoming

CHUNK = 64 * 1024
POLICY = (
    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; "
    "object-src 'self';"
)
SAFE = {
    **CORS,
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Resource-Policy": "cross-origin",
    "X-Content-Type-Options": "nosniff",
}
PRIVATE = {**SAFE, "Cache-Control": "private, max-age=86400, immutable"}
PUBLIC = {**SAFE, "Cache-Control": "public, max-age=86400, immutable"}


def routes(repository: Repository) -> list[Route]:
    """Return the operations of the content repository, new and old."""
    door = _Door(repository)
    return [
        Route("POST", "/_matrix/media/v3/upload", door.upload, rate="upload"),
        Route("POST", "/_matrix/media/r0/upload", door.upload, rate="upload"),
        Route("POST", "/_matrix/media/v1/create", door.create, rate="upload"),
        Route("PUT", "/_matrix/media/v3/upload/{server}/{media}", door.fill, rate="upload"),
        Route("GET", "/_matrix/client/v1/media/config", door.config),
        Route("GET", "/_matrix/client/v1/media/preview_url", door.preview),
        Route("GET", "/_matrix/client/v1/media/download/{server}/{media}", door.download),
        Route("GET", "/_matrix/client/v1/media/download/{server}/{media}/{name}", door.download),
        Route("GET", "/_matrix/client/v1/media/thumbnail/{server}/{media}", door.thumbnail),
        Route("GET", "/_matrix/media/v3/config", door.config),
        Route("GET", "/_matrix/media/v3/preview_url", door.preview),
        Route("GET", "/_matrix/media/v3/download/{server}/{media}", door.download, Access.NONE),
        Route("GET", "/_matrix/media/v3/download/{server}/{media}/{name}", door.download, Access.NONE),
        Route("GET", "/_matrix/media/v3/thumbnail/{server}/{media}", door.thumbnail, Access.NONE),
    ]


class _Door:
    def __init__(self, repository: Repository) -> None:
        self._repository = repository

    async def upload(self, call: Call) -> Json:
        return {"content_uri": await self._repository.uploads.upload(call.requester.user_id, _incoming(call))}

    async def create(self, call: Call) -> Json:
        promise = await self._repository.uploads.create(call.requester.user_id)
        return {"content_uri": promise.uri, "unused_expires_at": promise.expires}

    async def fill(self, call: Call) -> Json:
        await self._repository.uploads.fill(call.requester.user_id, call.path("server"), call.path("media"),
                                            _incoming(call))
        return {}

    async def config(self, call: Call) -> Json:
        return {"m.upload.size": self._repository.limits.upload_bytes}

    async def preview(self, call: Call) -> Json:
        url = call.query("url")
        if url is None:
            raise MissingParam("Missing query parameter url")
        try:
            scheme = urlsplit(url).scheme
        except ValueError as error:
            raise InvalidParam("url is no address") from error
        if scheme not in ("http", "https"):
            raise InvalidParam("url must be an http or https address")
        call.query_int("ts", 0)
        return Reply({}, headers={"Cache-Control": "private, max-age=86400"})

    async def download(self, call: Call) -> Json:
        stored = await self._repository.downloads.find(_query(call))
        name = names.filename(call.request.match_info.get("name")) or stored.filename
        return web.FileResponse(stored.path, headers={
            **_headers(call), "Content-Type": stored.content_type,
            "Content-Disposition": names.disposition(stored.content_type, name),
        })

    async def thumbnail(self, call: Call) -> Json:
        for field in ("width", "height"):
            if call.query(field) is None:
                raise MissingParam(f"Missing query parameter {field}")
        wanted = shape(call.query_int("width", 0, 1), call.query_int("height", 0, 1),
                       call.query_choice("method", ("crop", "scale"), "scale") == "crop", call.query_bool("animated"))
        stored = await self._repository.downloads.find(_query(call))
        picture = await self._repository.thumbnails.of(stored, wanted)
        ending = picture.content_type.removeprefix("image/")
        return web.FileResponse(picture.path, headers={
            **_headers(call), "Content-Type": picture.content_type,
            "Content-Disposition": f'inline; filename="thumbnail.{ending}"',
        })


def _incoming(call: Call) -> Incoming:
    request = call.request
    return Incoming(request.content.iter_chunked(CHUNK), request.content_length, request.headers.get("Content-Type"),
                    call.query("filename"))


def _query(call: Call) -> Query:
    return Query(
        call.path("server"), call.path("media"), call.query_int("timeout_ms", DEFAULT_WAIT_MS),
        authenticated=call.route.access is not Access.NONE, remote=call.query_bool("allow_remote", True),
    )


def _headers(call: Call) -> dict[str, str]:
    return PUBLIC if call.route.access is Access.NONE else PRIVATE

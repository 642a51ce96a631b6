"""Ids, types and file names of media: what may come in, and how it is announced going out.

Source: client-server API, "Content repository" with its security considerations and "Serving inline content"; RFC
6266 and RFC 8187 for file names in headers.
"""

from __future__ import annotations

import re
import secrets
from typing import Final
from urllib.parse import quote

from appliance.matrix import ids
from appliance.matrix.errors import InvalidParam, NotFound

DEFAULT_TYPE: Final = "application/octet-stream"
FILENAME_LIMIT: Final = 255
TYPE_LIMIT: Final = 255

INLINE: Final = frozenset({
    "text/css", "text/plain", "text/csv", "application/json", "application/ld+json",
    "image/jpeg", "image/gif", "image/png", "image/apng", "image/webp", "image/avif",
    "video/mp4", "video/webm", "video/ogg", "video/quicktime",
    "audio/mp4", "audio/webm", "audio/aac", "audio/mpeg", "audio/ogg", "audio/wave", "audio/wav", "audio/x-wav",
    "audio/x-pn-wav", "audio/flac", "audio/x-flac",
})
"""Types a browser may show without running anything; everything else is offered as a download."""

_MEDIA_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")
_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 (RFC 9110 calls it a token)
_TYPE: Final = re.compile(rf'({_TOKEN}/{_TOKEN})(?:\s*;\s*{_TOKEN}=(?:{_TOKEN}|"[\x20\x21\x23-\x5b\x5d-\x7e]*"))*')
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def new_media_id() -> str:
    """Return an id nobody can guess: on the old routes knowing it is all it takes."""
    return secrets.token_urlsafe(24)


def check_id(origin: str, media_id: str) -> None:
    """Refuse an address that no `mxc://` URI may have; `NotFound`, because nothing can be stored under it."""
    try:
        ids.server_name(origin)
    except InvalidParam as error:
        raise NotFound("There is no such media") from error
    if _MEDIA_ID.fullmatch(media_id) is None:
        raise NotFound("There is no such media")


def content_type(header: str | None) -> str:
    """Return the declared type if it is one, else `application/octet-stream`."""
    if header is None or len(header) > TYPE_LIMIT or _TYPE.fullmatch(header.strip()) is None:
        return DEFAULT_TYPE
    return header.strip()


def filename(text: str | None) -> str | None:
    """Return the name of an upload without anything unprintable; `InvalidParam` if it is longer than 255 characters."""
    if text is None:
        return None
    if len(text) > FILENAME_LIMIT:
        raise InvalidParam(f"The file name must not exceed {FILENAME_LIMIT} characters")
    return _UNPRINTABLE.sub("", text) or None


def disposition(kind: str, name: str | None) -> str:
    """Return the `Content-Disposition` of content of type `kind`: shown in place only if the type is harmless."""
    essence = kind.partition(";")[0].strip().lower()
    how = "inline" if essence in INLINE else "attachment"
    if not name:
        return how
    if name.isascii():
        escaped = name.replace("\\", "\\\\").replace('"', '\\"')
        return f'{how}; filename="{escaped}"'
    return f"{how}; filename*=utf-8''{quote(name, safe='')}"

"""Media: who uploaded what, and which file on disk holds it.

The bytes lie outside the database under their SHA-256 (see `appliance.media.blobs`); a row is a reference. Several
rows may point at one file. `sha256` is NULL while an id was created but nothing has been uploaded to it; such a row
ends at `expires`. `open` says that the old, unauthenticated routes may hand the content out: it is decided once, when
the content arrives. All times are milliseconds since the epoch.
"""

from __future__ import annotations

from typing import Any

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE media (
    origin TEXT NOT NULL,
    media_id TEXT NOT NULL,
    sha256 BLOB,
    size INTEGER NOT NULL DEFAULT 0,
    content_type TEXT NOT NULL DEFAULT 'application/octet-stream',
    filename TEXT,
    uploader TEXT,
    ts INTEGER NOT NULL,
    expires INTEGER,
    open INTEGER NOT NULL DEFAULT 0,
    quarantined INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (origin, media_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX media_sha256 ON media (sha256) WHERE sha256 IS NOT NULL;
CREATE INDEX media_uploader ON media (uploader, size) WHERE uploader IS NOT NULL;
CREATE INDEX media_expires ON media (expires) WHERE expires IS NOT NULL;
"""

_COLUMNS = "origin, media_id, sha256, size, content_type, filename, uploader, ts, expires, open, quarantined"


class MediaRow(msgspec.Struct, frozen=True):
    """One reference to a stored file, or a promise of one (`sha256` None)."""

    origin: str
    media_id: str
    sha256: bytes | None
    size: int
    content_type: str
    filename: str | None
    uploader: str | None
    ts: int
    expires: int | None
    open: bool
    quarantined: bool


class Content(msgspec.Struct, frozen=True):
    """What an upload turned out to be; `open`: the old routes may show it."""

    sha256: bytes
    size: int
    content_type: str
    filename: str | None
    open: bool


def _row(found: tuple[Any, ...]) -> MediaRow:
    origin, media_id, sha256, size, content_type, filename, uploader, ts, expires, is_open, quarantined = found
    return MediaRow(origin, media_id, sha256, size, content_type, filename, uploader, ts, expires, bool(is_open),
                    bool(quarantined))


def find(rx: Rx | Tx, origin: str, media_id: str) -> MediaRow | None:
    """Return the reference, or None if there is none."""
    found = rx.execute(f"SELECT {_COLUMNS} FROM media WHERE origin=? AND media_id=?", (origin, media_id)).fetchone()
    return _row(found) if found else None


def insert(tx: Tx, origin: str, media_id: str, uploader: str | None, ts: int, content: Content) -> bool:
    """Add a reference to a file that is already on disk; False if the id exists."""
    cursor = tx.execute(
        "INSERT INTO media (origin, media_id, sha256, size, content_type, filename, uploader, ts, open)"
        " VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT DO NOTHING",
        (origin, media_id, content.sha256, content.size, content.content_type, content.filename, uploader, ts,
         int(content.open)),
    )
    return cursor.rowcount == 1


def promise(tx: Tx, origin: str, media_id: str, uploader: str, ts: int, expires: int, maximum: int) -> int | None:
    """Add an id without content; if the user already has `maximum` of them, only return when the first expires."""
    count, first = tx.execute(
        "SELECT count(*), min(expires) FROM media WHERE uploader=? AND size=0 AND expires>?", (uploader, ts)
    ).fetchone()
    if count >= maximum:
        return int(first)
    tx.execute("INSERT INTO media (origin, media_id, uploader, ts, expires) VALUES (?,?,?,?,?)",
               (origin, media_id, uploader, ts, expires))
    return None


def fulfil(tx: Tx, origin: str, media_id: str, content: Content) -> bool:
    """Give a promised id its content; False if it has one already or no longer exists."""
    cursor = tx.execute(
        "UPDATE media SET sha256=?, size=?, content_type=?, filename=?, open=?, expires=NULL"
        " WHERE origin=? AND media_id=? AND sha256 IS NULL",
        (content.sha256, content.size, content.content_type, content.filename, int(content.open), origin, media_id),
    )
    return cursor.rowcount == 1


def expire(tx: Tx, before: int) -> int:
    """Forget promised ids that ran out before `before`; return how many."""
    return int(tx.execute("DELETE FROM media WHERE expires IS NOT NULL AND expires<?", (before,)).rowcount)


def used_by(rx: Rx, user_id: str) -> int:
    """Return how many bytes the user's uploads take together (a file uploaded twice counts twice)."""
    return int(rx.execute("SELECT coalesce(sum(size), 0) FROM media WHERE uploader=?", (user_id,)).fetchone()[0])


def references(rx: Rx | Tx, sha256: bytes) -> int:
    """Return how many references the file has."""
    return int(rx.execute("SELECT count(*) FROM media WHERE sha256=?", (sha256,)).fetchone()[0])


def quarantine(tx: Tx, origin: str, media_id: str, quarantined: bool) -> bool:
    """Hide a reference from everybody, or show it again; False if it does not exist."""
    cursor = tx.execute("UPDATE media SET quarantined=? WHERE origin=? AND media_id=?",
                        (int(quarantined), origin, media_id))
    return cursor.rowcount == 1


def delete(tx: Tx, origin: str, media_id: str) -> bytes | None:
    """Remove a reference; return the digest of its file if that was the last one."""
    found = find(tx, origin, media_id)
    tx.execute("DELETE FROM media WHERE origin=? AND media_id=?", (origin, media_id))
    if found is None or found.sha256 is None or references(tx, found.sha256):
        return None
    return found.sha256


def older_than(rx: Rx, ts: int, limit: int) -> list[tuple[str, str]]:
    """Return (origin, media id) of content that arrived before `ts`, oldest first."""
    return [(origin, media_id) for origin, media_id in rx.execute(
        "SELECT origin, media_id FROM media WHERE ts<? AND sha256 IS NOT NULL ORDER BY ts LIMIT ?", (ts, limit))]


def by_uploader(rx: Rx, user_id: str) -> list[tuple[str, str]]:
    """Return (origin, media id) of everything the user has uploaded or promised."""
    return [(origin, media_id) for origin, media_id in rx.execute(
        "SELECT origin, media_id FROM media WHERE uploader=?", (user_id,))]

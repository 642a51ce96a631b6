"""Rooms and who is in them.

`room.rid` is the short id used by every other table. `room.sid` is the snapshot of the current state (see state.py).
`membership` has one row per user and room, local or remote, with the newest membership event in the current state and the
stream position of that change; `stripped` keeps what an invited or knocking person may know of a room.
"""

from __future__ import annotations

TABLES = """
CREATE TABLE room (
    rid INTEGER PRIMARY KEY,
    room_id TEXT NOT NULL UNIQUE,
    version TEXT NOT NULL,
    sid INTEGER
) STRICT;
CREATE TABLE membership (
    user_id TEXT NOT NULL,
    rid INTEGER NOT NULL,
    membership TEXT NOT NULL,
    eid INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    forgotten INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, rid)
) STRICT, WITHOUT ROWID;
CREATE INDEX membership_room ON membership (rid, membership);
CREATE TABLE stripped (
    user_id TEXT NOT NULL,
    rid INTEGER NOT NULL,
    json BLOB NOT NULL,
    PRIMARY KEY (user_id, rid)
) STRICT, WITHOUT ROWID;
CREATE TABLE alias (
    alias TEXT PRIMARY KEY,
    rid INTEGER NOT NULL,
    creator TEXT NOT NULL,
    ts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX alias_room ON alias (rid);
CREATE TABLE public_room (
    rid INTEGER PRIMARY KEY
) STRICT;
"""

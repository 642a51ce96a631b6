"""Profiles of local users: display name, avatar, and further fields.

Every account has a row from its registration on; `folded` is the display name in the form searches compare. Further
fields are one small JSON object per user, because they are always limited together.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from appliance.store.readers import Rx
from appliance.store.writer import Tx

TABLES = """
CREATE TABLE profile (
    user_id TEXT PRIMARY KEY,
    display_name TEXT,
    avatar_url TEXT,
    folded TEXT NOT NULL,
    fields BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""


class Profile(msgspec.Struct, frozen=True):
    """What everybody may know of a user. `fields` is a JSON object of all fields but display name and avatar."""

    user_id: str
    display_name: str | None
    avatar_url: str | None
    fields: bytes = b"{}"


def put(tx: Tx, profile: Profile) -> None:
    """Make or replace a profile."""
    tx.execute(
        "INSERT INTO profile (user_id, display_name, avatar_url, folded, fields) VALUES (?,?,?,?,?) "
        "ON CONFLICT DO UPDATE SET display_name=excluded.display_name, avatar_url=excluded.avatar_url, "
        "folded=excluded.folded, fields=excluded.fields",
        (profile.user_id, profile.display_name, profile.avatar_url, (profile.display_name or "").casefold(),
         profile.fields),
    )


def get(rx: Rx | Tx, user_id: str) -> Profile | None:
    """Return the profile of a local user, or None."""
    row = rx.execute(
        "SELECT user_id, display_name, avatar_url, fields FROM profile WHERE user_id=?", (user_id,)
    ).fetchone()
    return None if row is None else Profile(*row)


def get_many(rx: Rx | Tx, user_ids: Iterable[str]) -> dict[str, Profile]:
    """Return the profiles of those users that have one."""
    found = (get(rx, user_id) for user_id in dict.fromkeys(user_ids))
    return {profile.user_id: profile for profile in found if profile is not None}


def search(rx: Rx, term: str, limit: int) -> list[Profile]:
    """Return up to `limit` active local users whose display name or id contains the term, by user id.

    Case does not matter. The whole table is scanned: a hospital's staff is some ten thousand short rows.
    """
    needle = term.casefold().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    rows = rx.execute(
        "SELECT user_id, display_name, avatar_url, fields FROM profile JOIN account USING (user_id) "
        "WHERE deactivated=0 AND (folded LIKE ? ESCAPE '\\' OR user_id LIKE ? ESCAPE '\\') ORDER BY user_id LIMIT ?",
        (f"%{needle}%", f"%{needle}%", limit),
    )
    return [Profile(*row) for row in rows]


def delete(tx: Tx, user_id: str) -> None:
    """Remove a profile."""
    tx.execute("DELETE FROM profile WHERE user_id=?", (user_id,))

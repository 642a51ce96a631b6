"""Finding colleagues: everybody with an account here, and people of other servers whom one could meet anyway.

Case and accents do not matter ("muller" finds "Müller"). All words of the term must occur in the display name or the
user id; what begins a word comes first. Names of people of other servers are taken from rooms that the searching
person can see; names of our own people from their profile, so that a name given inside one room stays there.

Source: client-server API, "User Directory".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from appliance.matrix.ids import localpart
from appliance.store import directory
from appliance.store.readers import Rx

DEFAULT_LIMIT: Final = 10
MAX_LIMIT: Final = 50
MAX_TERM: Final = 255
MAX_FOREIGN: Final = 10_000
"""Memberships of people of other servers that are looked at."""

_WORDS: Final = re.compile(r"[\w]+")


class Person(msgspec.Struct, frozen=True):
    """Somebody who may be found."""

    user_id: str
    display_name: str | None
    avatar_url: str | None

    def shown(self) -> dict[str, str]:
        """Return the entry of the answer."""
        entry = {"user_id": self.user_id, "display_name": self.display_name, "avatar_url": self.avatar_url}
        return {name: value for name, value in entry.items() if isinstance(value, str)}


def folded(text: str) -> str:
    """Return the text in the form that is compared: no case, no accents."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def search(rx: Rx, user_id: str, server: str, term: str, limit: int) -> dict[str, Any]:
    """Return the people that match, the closest first, without the searching person."""
    wanted = folded(term.strip())
    needles = wanted.removeprefix("@").split()
    if not needles:
        return {"results": [], "limited": False}
    best: dict[str, tuple[int, bool, str, Person]] = {}
    for person in _people(rx, user_id, server):
        if person.user_id == user_id:
            continue
        rank = _rank(person, wanted, needles)
        if rank is not None:
            nameless = person.display_name is None and person.avatar_url is None
            place = (rank, nameless, folded(person.display_name or person.user_id), person)
            known = best.get(person.user_id)
            if known is None or place[:3] < known[:3]:
                best[person.user_id] = place
    ordered = sorted(best.values(), key=lambda place: (place[0], place[1], place[2], place[3].user_id))
    return {"results": [place[3].shown() for place in ordered[:limit]], "limited": len(ordered) > limit}


def _people(rx: Rx, user_id: str, server: str) -> Iterator[Person]:
    for row in directory.local_people(rx):
        yield Person(*row)
    for row in directory.foreign_people(rx, user_id, server, MAX_FOREIGN):
        name, avatar = (value if isinstance(value, str) else None for value in row[1:])
        yield Person(row[0], name, avatar)


def _rank(person: Person, wanted: str, needles: Iterable[str]) -> int | None:
    """Return how close the person is to the term, 0 being the same; None: not at all."""
    name = folded(person.display_name or "")
    mxid = folded(person.user_id)
    local = localpart(mxid)
    if wanted in (mxid, local, name) or f"@{wanted}" == mxid:
        return 0
    words = _WORDS.findall(name)
    begins = all(any(word.startswith(needle) for word in words) for needle in needles)
    if begins:
        return 1 if name.startswith(wanted) else 2
    if local.startswith(wanted):
        return 2
    return 3 if all(needle in name or needle in mxid for needle in needles) else None

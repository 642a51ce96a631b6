"""Messages, state and redactions of local users.

Source: client-server API, "Sending events to a room" and "Redactions".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from appliance.matrix import ids
from appliance.matrix.auth import CREATE, POWER_LEVELS
from appliance.matrix.errors import BadJson, Forbidden, MatrixError, NotFound, Unknown
from appliance.matrix.ids import EventId
from appliance.matrix.power import Power
from appliance.matrix.requester import Requester, require_active
from appliance.rooms.author import Author, Draft, Ticket
from appliance.rooms.invite import check_invitable, shown_state
from appliance.store import events, relations, rooms
from appliance.store.readers import Rx

Json = Any


class DuplicateAnnotation(MatrixError):
    """The user has reacted to the event in the same way before."""

    status, errcode = 400, "M_DUPLICATE_ANNOTATION"


class BadAlias(MatrixError):
    """A canonical alias that does not point to the room."""

    status, errcode = 400, "M_BAD_ALIAS"


async def message(
    author: Author, requester: Requester, room_id: str, type: str, content: Mapping[str, Json], txn: str
) -> EventId:
    """Send a message event; the same transaction id of the same device is the same event."""
    require_active(requester)
    if type == "m.room.redaction":
        target = content.get("redacts")
        if not isinstance(target, str):
            raise BadJson("A redaction must say what it redacts")
        rest = {key: value for key, value in content.items() if key != "redacts"}
        return await redact(author, requester, room_id, EventId(target), rest, txn)
    if type == "m.reaction":
        await _check_reaction(author, requester, content)
    await _check_thread(author, content)
    draft = Draft(type, requester.user_id, content)
    return await author.add(room_id, draft, Ticket(requester.session, txn))


async def state(
    author: Author, requester: Requester, room_id: str, type: str, state_key: str, content: Mapping[str, Json]
) -> EventId:
    """Set state; saying what already holds returns the event in force."""
    require_active(requester)
    if type == "m.room.canonical_alias":
        await _check_aliases(author, room_id, content)
    shown = None
    if type == "m.room.member":
        subject = ids.user_id(state_key)
        if content.get("membership") == "invite":
            await check_invitable(author, subject)
            shown = await shown_state(author, await author.head(room_id), requester.user_id)
    return await author.add(room_id, Draft(type, requester.user_id, content, state_key, shown=shown))


async def redact(
    author: Author, requester: Requester, room_id: str, target_id: EventId, content: Mapping[str, Json], txn: str
) -> EventId:
    """Take the content of an event away. The sender may always do so, others need the room's redact level."""
    head = await author.head(room_id)
    found = (await author.store.read(events.fetch, [target_id])).get(target_id)
    if found is None or found.event.room_id != room_id:
        raise NotFound("The event to be redacted is not known here")
    if found.event.type == "m.room.create":
        raise Forbidden("A room's creation cannot be redacted")
    if found.event.sender != requester.user_id:
        require_active(requester)
        levels = await author.heads.state_of(head, [CREATE, POWER_LEVELS])
        power = Power(head.version, levels.get(CREATE), levels.get(POWER_LEVELS))
        if power.of(requester.user_id) < power.redact:
            raise Forbidden("You may not redact what others sent")
    draft = Draft("m.room.redaction", requester.user_id, content, redacts=target_id, prunes=target_id)
    return await author.add(room_id, draft, Ticket(requester.session, txn))


async def _check_reaction(author: Author, requester: Requester, content: Mapping[str, Json]) -> None:
    relates = content.get("m.relates_to")
    if not isinstance(relates, dict):
        return
    parent, key = relates.get("event_id"), relates.get("key")
    if relates.get("rel_type") == "m.annotation" and isinstance(parent, str) and isinstance(key, str):
        if await author.store.read(relations.annotated, parent, requester.user_id, key):
            raise DuplicateAnnotation("You have reacted in this way already")


async def _check_thread(author: Author, content: Mapping[str, Json]) -> None:
    """A thread cannot hang under an event that itself relates to another ("Validation of m.thread relationships")."""
    relates = content.get("m.relates_to")
    if not isinstance(relates, dict) or relates.get("rel_type") != "m.thread":
        return
    root = relates.get("event_id")
    found = (await author.store.read(events.fetch, [root])).get(EventId(root)) if isinstance(root, str) else None
    above = found.event.content.get("m.relates_to") if found is not None else None
    if isinstance(above, dict) and isinstance(above.get("rel_type"), str):
        raise Unknown("A thread cannot begin at an event that relates to another event", status=400)


async def _check_aliases(author: Author, room_id: str, content: Mapping[str, Json]) -> None:
    """Every alias that is new in the event must point to this room."""
    head = await author.head(room_id)
    key = ("m.room.canonical_alias", "")
    before = (await author.heads.state_of(head, [key])).get(key)
    known = _aliases(before.content) if before is not None else []
    fresh = [alias for alias in _aliases(content) if alias not in known]
    if not await author.store.read(_all_point_to, fresh, room_id):
        raise BadAlias("An alias does not point to this room")


def _aliases(content: Mapping[str, Json]) -> list[str]:
    alias, others = content.get("alias"), content.get("alt_aliases", [])
    if not (alias is None or isinstance(alias, str)) or not isinstance(others, list):
        raise BadJson("alias must be a string and alt_aliases a list")
    if not all(isinstance(other, str) for other in others):
        raise BadJson("alt_aliases must be strings")
    return [*([alias] if alias else []), *others]


def _all_point_to(rx: Rx, aliases: list[str], room_id: str) -> bool:
    targets = (rooms.alias_target(rx, alias) for alias in aliases)
    return all(target is not None and target.room_id == room_id for target in targets)

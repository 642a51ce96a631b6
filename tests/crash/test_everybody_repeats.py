"""After a restart every telephone on the ward repeats what it had no answer for, all at once, and goes on writing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.world.client import Client, register_many, session
from tests.world.mains import Mains
from tests.world.server import homeserver

PEOPLE = 24


async def write_round(people: list[Client], room: str, name: str) -> list[str]:
    """Let everybody send one message under a transaction id that names the round; return the event ids."""
    content = {"msgtype": "m.text", "body": name}
    return list(await asyncio.gather(*(one.send(room, content, txn=name) for one in people)))


async def test_repeated_requests_get_their_old_answers_and_hold_up_nobody(tmp_path: Path) -> None:
    mains = Mains(homeserver(tmp_path / "data"))
    await asyncio.to_thread(mains.server.start)
    try:
        async with session() as http:
            people = await register_many(http, mains.server.base, [f"nurse{n}" for n in range(PEOPLE)])
            room = await people[0].create_room(preset="public_chat")
            await asyncio.gather(*(one.join(room) for one in people[1:]))
            first = await write_round(people, room, "first")
            for gently in (True, False):
                await mains.cut(gently=gently)
                again, fresh = await asyncio.gather(
                    write_round(people, room, "first"), write_round(people, room, f"after {gently}")
                )
                assert again == first
                assert len({*first, *fresh}) == 2 * PEOPLE
            events = await people[0].every_event(room)
            assert [event["content"].get("body") for event in events].count("first") == PEOPLE
    finally:
        mains.server.stop()

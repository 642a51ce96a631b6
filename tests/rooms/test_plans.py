"""No question of the reading side walks through a whole table, however large the house grows.

Every statement that the endpoints send is shown to the planner of SQLite; it may search the large tables by an index,
never scan them. (The planner decides without statistics here, as in the house, so its answer does not depend on the
data.)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance.rooms import (
    directory,
    hierarchy,
    relation_pages,
    search,
    state_reading,
    summary,
    threads,
    timeline,
    user_directory,
)
from appliance.rooms.event_filter import EVERYTHING
from appliance.store import receipts, rooms
from appliance.store.connection import open_reader
from tests.rooms.reading import NOW, edit, put_state, relate
from tests.world.rooms import SERVER, ward

LARGE = ("event", "relation", "membership", "current_state", "state_key", "snapshot", "state_log", "receipt", "alias")
SCANS = re.compile(rf"^SCAN (?:{'|'.join(LARGE)}|[a-z]{{1,2}})\b(?! VIRTUAL)")


class Spy:
    """A reading connection that asks the planner about every statement first."""

    def __init__(self, path: Path) -> None:
        self._db = open_reader(path)
        self.faults: set[str] = set()
        self.asked = 0

    def execute(self, sql: str, args: Any = ()) -> Any:
        self.asked += 1
        aliases = dict((short, table) for table, short in re.findall(r"(?:FROM|JOIN) (\w+) ([a-z]{1,2})\b", sql))
        for *_, step in self._db.execute(f"EXPLAIN QUERY PLAN {sql}", args):
            match = SCANS.match(step)
            if match is not None:
                name = match[0].split()[1]
                if aliases.get(name, name) in LARGE:
                    self.faults.add(f"{step}: {' '.join(sql.split())}")
        return self._db.execute(sql, args)

    def close(self) -> None:
        self._db.close()


async def test_the_large_tables_are_never_scanned(tmp_path: Path) -> None:
    async with ward(tmp_path) as w:
        ada, ben = await w.person("ada"), await w.person("ben")
        room_id = await w.room(ada, "public_chat", public=True, creation_content={"type": "m.space"})
        await put_state(w, ada, room_id, "m.space.child", {"via": [SERVER]}, room_id)
        await w.join(ben, room_id)
        root = await w.say(ada, room_id, "root")
        await edit(w, ada, room_id, root, "better")
        await relate(w, ben, room_id, root, "m.thread")
        await relate(w, ben, room_id, root, "m.reference")
        await search.Search(w.store).catch_up()
        room = await w.store.read(rooms.find, room_id)
        assert room is not None
        rid = room.rid
        page, kin = timeline.Page(True), relation_pages.Kin(root, recurse=True)
        wish = search.Wish("root", include_state=True, context=search.Context(2, 2, True))
        asks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
            (timeline.messages, (ben, room_id, page, NOW)),
            (timeline.messages, (ben, room_id, timeline.Page(False), NOW)),
            (timeline.context, (ben, room_id, root, 10, EVERYTHING, NOW)),
            (timeline.one_event, (ben, room_id, root, NOW)),
            (timeline.nearest, (ben, room_id, 1, True)),
            (timeline.nearest, (ben, room_id, 2**52, False)),
            (state_reading.whole, (ben, room_id, NOW)),
            (state_reading.one, (ben, room_id, ("m.room.create", ""), True, NOW)),
            (state_reading.members, (ben, room_id, 5, "join", None, NOW)),
            (state_reading.joined_members, (ben, room_id)),
            (state_reading.joined_rooms, (ben,)),
            (state_reading.aliases, (ben, room_id)),
            (relation_pages.page, (ben, room_id, kin, NOW)),
            (threads.listing, (ben, room_id, threads.Wanted(participated=True), NOW)),
            (hierarchy.hierarchy, (ben.user_id, room_id, hierarchy.Walk())),
            (summary.preview, (ben.user_id, room_id)),
            (directory.published, (directory.Listing(term="x"),)),
            (directory.visibility, (room_id,)),
            (user_directory.search, (ben.user_id, SERVER, "ada", 5)),
            (search.results, (ben, wish, NOW)),
            (receipts.changed, (rid, 0, 99)),
            (receipts.of_user, (rid, ben.user_id)),
        ]
        spy = Spy(tmp_path / "schleuse.db")
        for ask, args in asks:
            ask(spy, *args)
        assert spy.asked > 100
        assert spy.faults == set()
        spy.execute("SELECT * FROM event e WHERE e.sender=?", ("x",))
        assert len(spy.faults) == 1, "the spy would notice"
        spy.close()

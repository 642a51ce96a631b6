"""How a file becomes a current one.

A new file is made from the families' `TABLES` in one transaction. An older file is first copied beside itself
(`NAME.before-N-from-M`), then brought up step by step: each step is a function in `STEPS`, applied by sqlite-utils
inside one transaction together with the record that it was applied. A file of a newer release is refused, because an
older program could only damage it.

`PRAGMA user_version` holds the generation: 1 + the number of steps the file has seen.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from appliance.store import (
    account_data,
    accounts,
    dehydrated,
    device_lists,
    devices,
    events,
    filters,
    graph,
    inbox,
    key_backup,
    keys,
    media,
    outbox,
    profiles,
    push,
    receipts,
    reports,
    rooms,
    search,
    server_keys,
    state,
    timeline,
    to_device,
    tokens,
)
from appliance.store.connection import open_writer

APPLICATION_ID = 0x5343484C  # "SCHL"

STREAM = """
CREATE TABLE stream (pos INTEGER NOT NULL) STRICT;
INSERT INTO stream VALUES (0);
"""

FAMILIES: tuple[str, ...] = (
    STREAM,
    rooms.TABLES,
    state.TABLES,
    events.TABLES,
    graph.TABLES,
    accounts.TABLES,
    profiles.TABLES,
    devices.TABLES,
    tokens.TABLES,
    account_data.TABLES,
    to_device.TABLES,
    keys.TABLES,
    key_backup.TABLES,
    dehydrated.TABLES,
    timeline.TABLES,
    receipts.TABLES,
    search.TABLES,
    filters.TABLES,
    reports.TABLES,
    media.TABLES,
    push.TABLES,
    server_keys.TABLES,
    outbox.TABLES,
    inbox.TABLES,
    device_lists.TABLES,
)

Step = Callable[[sqlite3.Connection], None]
STEPS: tuple[tuple[str, Step], ...] = ()
"""Forward-only changes since the first release, in order: (name, function on the raw connection)."""


class StoreTooNew(Exception):
    """The file was written by a newer release; start that release again or restore the copy made before its upgrade."""


def current() -> int:
    """Return the generation that this release writes."""
    return 1 + len(STEPS)


def migrate(path: Path) -> None:
    """Create the file at `path`, or bring it to the current generation; raises `StoreTooNew`."""
    found = _generation(path)
    if found == current():
        return
    if found > current():
        raise StoreTooNew(
            f"{path} was written by a newer release (generation {found}, this one knows {current()}). "
            "Nothing was changed. Start the newer release, or restore the copy that was made before the upgrade."
        )
    db = open_writer(path)
    try:
        if found == 0:
            _create(db)
        else:
            _keep_copy(db, path, found)
            _upgrade(db)
    finally:
        db.close()


def _generation(path: Path) -> int:
    """Look into the file without touching it; 0 if there is none yet."""
    if not path.exists():
        return 0
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
    finally:
        db.close()


def _create(db: sqlite3.Connection) -> None:
    db.execute("BEGIN EXCLUSIVE")
    for family in FAMILIES:
        for statement in _statements(family):
            db.execute(statement)
    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
    db.execute(f"PRAGMA user_version={current()}")
    db.execute("COMMIT")


def _statements(script: str) -> list[str]:
    """Split a script into statements (`executescript` would commit our transaction)."""
    statements, pending = [], ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    if pending.strip():
        raise ValueError(f"unfinished statement in a family's tables: {pending.strip()[:80]}")
    return statements


def _keep_copy(db: sqlite3.Connection, path: Path, found: int) -> None:
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = path.with_name(f"{path.name}.before-{current()}-from-{found}")
    if not copy.exists():
        partial = copy.with_name(copy.name + ".part")
        shutil.copyfile(path, partial)
        partial.replace(copy)


def _upgrade(db: sqlite3.Connection) -> None:
    from sqlite_utils import Database, Migrations  # slow to import, and only an upgrade needs it

    steps = Migrations("schleuse")
    for generation, (name, step) in enumerate(STEPS, start=2):

        def apply(wrapped: Database, step: Step = step, generation: int = generation) -> None:
            step(wrapped.conn)
            wrapped.conn.execute(f"PRAGMA user_version={generation}")

        steps(name=name)(apply)
    steps.apply(Database(db))

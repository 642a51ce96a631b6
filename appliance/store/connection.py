"""How the house opens its file: one set of pragmas for the writer, one for readers."""

from __future__ import annotations

import sqlite3
from pathlib import Path

BUSY_MS = 10_000
CACHE_KIB = 8 * 1024
MMAP_BYTES = 256 * 1024 * 1024
WAL_LIMIT_BYTES = 1024 * 1024
# A checkpoint inside a busy commit costs an fsync of the main file; 2,000 pages (8 MB) is rare enough. When the
# writer is idle it checkpoints by itself (see writer.py), so the log is normally empty.
AUTOCHECKPOINT_PAGES = 2_000


class StoreUnavailable(Exception):
    """The disk refused (full, failing, read-only) or a question took too long. Nothing of a change was kept."""


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the one connection that may change the file. Acknowledged means on disk: WAL with synchronous=FULL."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
    db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    db.execute("PRAGMA auto_vacuum=INCREMENTAL")
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA foreign_keys=ON")
    db.execute("PRAGMA temp_store=MEMORY")
    db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    db.execute(f"PRAGMA journal_size_limit={WAL_LIMIT_BYTES}")
    db.execute(f"PRAGMA wal_autocheckpoint={AUTOCHECKPOINT_PAGES}")
    return db


def open_reader(path: Path) -> sqlite3.Connection:
    """Open a connection that cannot write, for the pool of readers."""
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False,
                         cached_statements=256)
    db.execute(f"PRAGMA busy_timeout={BUSY_MS}")
    db.execute("PRAGMA query_only=ON")
    db.execute("PRAGMA temp_store=MEMORY")
    db.execute(f"PRAGMA cache_size=-{CACHE_KIB // 4}")
    db.execute(f"PRAGMA mmap_size={MMAP_BYTES}")
    return db

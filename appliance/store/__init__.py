"""The hands on the disk: one SQLite file, one writer, several readers, and the only SQL in the house.

A change of the house is one function `fn(tx, ...)`. It is handed to `Store.write`, runs in the writer thread inside the
transaction of its group, and `write` returns after COMMIT with `synchronous=FULL`: what was acknowledged is on disk.
Every row that a `/sync` must notice takes its position from the one counter of the store (`tx.next_pos()`), inside that
transaction; positions therefore become visible in the order in which they were given out, without gaps, and a single
integer is a complete sync token.

    writer.py      the writer thread, Tx, group commit
    readers.py     the pool of read-only connections, Rx
    changes.py     position and wake-ups after each commit
    migrations.py  how an older file becomes a current one
    database.py    Store: the four of them as one resource
    the rest       one table family each: its DDL and the functions on it
"""

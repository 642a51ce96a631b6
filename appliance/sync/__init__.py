"""Telling clients what happened.

    waiters.py            who waits, and what became new for whom since when
    quick.py              plain messages in known rooms: answered from memory
    delta.py room.py      everything else: one read of the store, section by section
    stretch.py known.py   timelines and state events, in bytes that all readers share
    lazy.py filters.py    what a client wants to be spared
    sync.py               the classic sync: look, wait, render, token
    sliding*.py           the simplified sliding sync: windows over sorted rooms
    presence.py ephemeral.py   news that no disk ever sees
"""

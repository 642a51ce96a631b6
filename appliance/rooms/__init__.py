"""Rooms: how events come into them, and who may see what of them.

Writing. Events of our own users are drafted by a recipe (send, create, join, invite, leave, upgrade, profiles), built
and checked by the author, and appended by the ledger, the one way into the timeline. `head` keeps the end of a room's
graph at hand for that. `live` and `members` follow what was committed.

Reading. Everything that returns events goes through `access` (may one ask at all), `visibility` (what did the history
visibility allow at that moment) and `render` (the form for one reader). timeline, state_reading, relations, threads,
hierarchy, summary, search and the directories are questions of that kind.

Passing. typing and receipts are news that no history keeps.
"""

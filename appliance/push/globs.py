"""Glob patterns of push rules, matched in linear time.

`*` stands for any run of characters, `?` for exactly one. A pattern is cut at its stars; every piece is found as
early as possible after the one before, which is right for globs and needs no backtracking: a pattern written by a
stranger cannot make the server slow.

Source: appendices, "Glob-style matching"; client-server API, "Push rules", condition `event_match`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

Matcher = Callable[[str], bool]
"""Takes text in lower case."""

_START = "(?<![A-Za-z0-9_])"
_END = "(?![A-Za-z0-9_])"


def _literal(piece: str) -> str:
    return "".join("." if char == "?" else re.escape(char) for char in piece)


def has_wildcards(pattern: str) -> bool:
    """Tell whether the pattern is more than plain text."""
    return "*" in pattern or "?" in pattern


@lru_cache(maxsize=2048)
def whole(pattern: str) -> Matcher:
    """Return a matcher for the whole value, without regard to case."""
    text = pattern.lower()
    if not has_wildcards(text):
        return text.__eq__
    pieces = text.split("*")
    if len(pieces) == 1:
        only = re.compile(_literal(text), re.DOTALL)
        return lambda value: only.fullmatch(value) is not None
    first = re.compile(_literal(pieces[0]), re.DOTALL)
    middle = [re.compile(_literal(piece), re.DOTALL) for piece in pieces[1:-1] if piece]
    last = re.compile(_literal(pieces[-1]), re.DOTALL)
    tail = len(pieces[-1])

    def match(value: str) -> bool:
        found = first.match(value)
        if found is None:
            return False
        at = found.end()
        for piece in middle:
            found = piece.search(value, at)
            if found is None:
                return False
            at = found.end()
        return len(value) - tail >= at and last.fullmatch(value, len(value) - tail) is not None

    return match


@lru_cache(maxsize=2048)
def words(pattern: str, *, literal: bool = False) -> Matcher:
    """Return a matcher for any part of a text that begins and ends at a word boundary, without regard to case.

    `literal`: the pattern is plain text, its stars and question marks included.
    """
    text = pattern.lower()
    if literal or not has_wildcards(text):
        search = re.compile(_START + re.escape(text) + _END).search
        return lambda value: text in value and search(value) is not None
    pieces = [_literal(piece) for piece in text.split("*")]
    pieces[0] = _START + pieces[0]
    pieces[-1] += _END
    searches = [re.compile(piece, re.DOTALL).search for piece in pieces]

    def match(value: str) -> bool:
        at = 0
        for search in searches:
            found = search(value, at)
            if found is None:
                return False
            at = found.end()
        return True

    return match

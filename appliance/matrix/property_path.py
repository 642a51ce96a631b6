"""Paths into the content of an event, as push rules and filters write them.

Source: appendices, "Dot-separated property paths".
"""

from __future__ import annotations

Path = tuple[str, ...]


def path_of(text: str) -> Path:
    r"""Split a dot-separated property path; `\.` and `\\` stand for a dot and a backslash within a name."""
    names, name, escaped = [], "", False
    for char in text:
        if escaped:
            name += char if char in ".\\" else "\\" + char
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ".":
            names.append(name)
            name = ""
        else:
            name += char
    names.append(name + "\\" if escaped else name)
    return tuple(names)

"""No key, no password that opens anything, and no path of somebody's machine stands in the project."""

import re

import pytest

from tests.contracts.tree import ROOT, files

PATTERNS = {
    "private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----\s*\n[A-Za-z0-9+/=\s]{64,}"),
    "access token": re.compile(r"\b(syt_[A-Za-z0-9_]{20,}|ghp_[A-Za-z0-9]{30,}|glpat-[\w-]{20,}|AKIA[0-9A-Z]{16})\b"),
    "personal path": re.compile(r"(?<![\w.])/(home|Users)/[a-z][\w-]+/|(?<![\w.])/root/[\w.]"),
}


def findings(text: str) -> list[str]:
    """Name the kinds of secret in a text."""
    return [kind for kind, pattern in PATTERNS.items() if pattern.search(text)]


def test_no_secret_in_any_file() -> None:
    guilty = {}
    for name in files():
        found = findings((ROOT / name).read_text(errors="replace"))
        if found:
            guilty[str(name)] = found
    assert guilty == {}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("private key", "-----BEGIN EC PRIVATE" + " KEY-----\n" + "A" * 64),
        ("access token", "sy" + "t_" + "a" * 24),
        ("personal path", "see /ho" + "me/erika/notes"),
    ],
)
def test_the_search_finds_what_it_is_for(kind: str, text: str) -> None:
    assert findings(text) == [kind]

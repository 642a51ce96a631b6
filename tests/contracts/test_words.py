"""Two languages, nothing missing, nothing stale: every sentence is used, and both languages fill in the same places."""

import dataclasses
import re
from collections.abc import Mapping

import pytest

from appliance.guests.cli import words as cli
from tests.contracts.tree import ROOT, sources
from tests.world import demo_words as demo

Catalogue = cli.Words | demo.Words
CATALOGUES: Mapping[str, tuple[Catalogue, Catalogue]] = {"cli": (cli.DE, cli.EN), "demo": (demo.DE, demo.EN)}


def sentences(catalogue: Catalogue) -> Mapping[str, str]:
    """Give name and text of every sentence."""
    return {field.name: getattr(catalogue, field.name) for field in dataclasses.fields(catalogue)}


@pytest.mark.parametrize("name", CATALOGUES)
def test_both_languages_fill_in_the_same_places(name: str) -> None:
    german, english = (sentences(language) for language in CATALOGUES[name])
    for key, text in german.items():
        assert sorted(re.findall(r"\{(\w+)\}", text)) == sorted(re.findall(r"\{(\w+)\}", english[key])), key


@pytest.mark.parametrize("name", CATALOGUES)
def test_every_sentence_is_said_somewhere(name: str) -> None:
    german, _ = CATALOGUES[name]
    places = [path for path in sources("appliance", "tests") if path.name not in ("words.py", "demo_words.py")]
    code = "\n".join(path.read_text() for path in places)
    assert [key for key in sentences(german) if not re.search(rf"words(_for\(os\.environ\))?\.{key}\b", code)] == []


@pytest.mark.parametrize("name", CATALOGUES)
def test_no_sentence_is_empty(name: str) -> None:
    for language in CATALOGUES[name]:
        assert [key for key, text in sentences(language).items() if not text.strip()] == []


def test_the_scripts_of_the_project_are_sound() -> None:
    for script in (ROOT / ".ci").iterdir():
        first = script.read_text().splitlines()[0]
        assert first in ("#!/usr/bin/env bash", "#!/usr/bin/env python3")
        assert script.stat().st_mode & 0o111, f"{script.name} cannot be run"

"""ARCHITECTURE.md is true: its tree is the tree, its doors are the imports, its floors are the law that is checked."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.contracts.tree import HOUSE, ROOF, ROOT, files, imported, room_of, sources

PLAN = (ROOT / "ARCHITECTURE.md").read_text()
ROOT_FILES = {
    "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "Makefile", "README.md", "SECURITY.md",
    "constraints.txt", "pyproject.toml", ".gitignore",
}  # fmt: skip
ROOT_FOLDERS = {"appliance", "image", "playbooks", "tests", "hardware", ".ci"}


def chapter(heading: str) -> str:
    """Cut one chapter out of the plan."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PLAN, re.DOTALL | re.MULTILINE)
    assert found, f"ARCHITECTURE.md has no chapter {heading!r}"
    return found[1]


def drawn(heading: str) -> dict[str, str]:
    """Read the tree in a chapter's first fenced block: path -> what the line says about it."""
    block = re.search(r"^```\n(.*?)^```", chapter(heading), re.DOTALL | re.MULTILINE)
    assert block, f"no tree in {heading!r}"
    tree: dict[str, str] = {}
    folders: list[str] = []
    for line in block[1].splitlines():
        entry = re.match(r"^((?:  )*)(\S+)(?: {2,}(.+))?$", line)
        assert entry, f"this line of the tree cannot be read: {line!r}"
        depth = len(entry[1]) // 2
        assert depth <= len(folders), f"this line of the tree is indented too far: {line!r}"
        folders[depth:] = [entry[2].rstrip("/")] if entry[2].endswith("/") else []
        path = "/".join([*folders[:depth], entry[2]]) if not entry[2].endswith("/") else "/".join(folders) + "/"
        assert path not in tree, f"drawn twice: {path}"
        tree[path] = (entry[3] or "").strip()
    return tree


def in_git(top: str) -> set[str]:
    return {str(name) for name in files() if name.parts[0] == top}


def test_every_file_of_the_house_is_drawn_and_every_drawn_file_exists() -> None:
    plan = {path for path in drawn("The rooms and their files") if not path.endswith("/")}
    house = {name for name in in_git("appliance") if not (name.endswith("/__init__.py") and name.count("/") > 1)}
    assert sorted(house - plan) == [], "in the tree, not in ARCHITECTURE.md"
    assert sorted(plan - house) == [], "in ARCHITECTURE.md, not in the tree"


def test_every_folder_of_the_house_is_drawn() -> None:
    plan = {path for path in drawn("The rooms and their files") if path.endswith("/")}
    house = {f"{parent}/" for name in in_git("appliance") for parent in Path(name).parents if parent != Path(".")}
    assert plan == house


def test_every_line_of_the_plan_says_something() -> None:
    silent = [path for heading in ("The rooms and their files", "Tests") for path, text in drawn(heading).items()
              if len(text) < 8]  # fmt: skip
    assert silent == []


def test_every_folder_of_the_tests_is_drawn_and_exists() -> None:
    plan = {path for path in drawn("Tests") if path.endswith("/")}
    here = {"/".join(Path(name).parts[:2]) + "/" for name in in_git("tests") if len(Path(name).parts) > 2}
    assert plan == here | {"tests/"}


def test_top_level_is_what_the_plan_says() -> None:
    assert {str(name) for name in files() if len(name.parts) == 1} == ROOT_FILES
    assert {name.parts[0] for name in files() if len(name.parts) > 1} == ROOT_FOLDERS


def doors() -> dict[str, set[str]]:
    """Read the table of who uses whom."""
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", chapter("Who uses whom"), re.MULTILINE)
    return {room: set(re.findall(r"`(\w+)`", used)) for room, used in rows}


def real_doors() -> dict[str, set[str]]:
    """Read the imports themselves."""
    used: dict[str, set[str]] = {}
    rooms = {room_of(path) for path in sources("appliance")} - {"__init__"}
    for path in sources("appliance"):
        if path == HOUSE / "__init__.py":
            continue
        targets = {name.split(".")[1] for name in imported(path) if name.startswith("appliance.")}
        used.setdefault(room_of(path), set()).update((targets & rooms) - {room_of(path)})
    return used


def test_who_uses_whom_is_what_the_imports_say() -> None:
    assert doors() == real_doors()


def floors() -> list[set[str]]:
    """Read the law that import-linter checks, top first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    law = settings["tool"]["importlinter"]["contracts"][0]
    return [{room.strip().strip("()") for room in re.split(r"[|:]", floor)} for floor in law["layers"]]


def test_the_law_of_the_floors_names_every_room_and_no_other() -> None:
    named = set().union(*floors())
    assert named == {room_of(path) for path in sources("appliance")} - {"__init__"}


def test_the_drawn_floors_are_the_checked_floors() -> None:
    lines = re.findall(r"^\s*(?:roof|guests|\d\w?) .*$", chapter("Four floors"), re.MULTILINE)
    text = "\n".join(lines)
    order = [min(text.index(f" {room}") for room in floor) for floor in floors() if not floor & ROOF]
    assert order == sorted(order), "the drawing and pyproject.toml disagree about who is above whom"


@pytest.mark.parametrize("heading", ["Journeys", "Glossary", "Conventions", "Growth", "Decisions and what they cost"])
def test_the_plan_has_its_chapters(heading: str) -> None:
    assert len(chapter(heading).split()) > 100

"""The words on paper: every verb is explained, every command in the README exists, every link leads somewhere."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from appliance import __version__
from tests.contracts.tree import ROOT, files, imported, sources

README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
VERBS = dict(re.findall(r"^([a-z-]+):.*?## (.+)$", MAKEFILE, re.MULTILINE))
PAPERS = sorted(name for name in files() if name.suffix == ".md")
OF_TODAY = [paper for paper in PAPERS if paper.parts[0] not in ("image", "playbooks", "hardware")]
IMPORT_NAMES = {"pillow": "PIL", "prometheus-client": "prometheus_client", "pynacl": "nacl",
                "sqlite-utils": "sqlite_utils"}  # fmt: skip


def schleuse(*arguments: str) -> str:
    environment = {**os.environ, "LC_ALL": "en_GB.UTF-8", "COLUMNS": "200"}
    command = [sys.executable, "-m", "appliance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True).stdout


def commands() -> set[str]:
    """List the commands that `schleuse` shows."""
    return set(re.findall(r"^  (\w[\w-]*)  ", schleuse().split("Commands:")[1], re.MULTILINE))


def test_every_make_verb_is_said_by_bare_make() -> None:
    rules = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.MULTILINE))
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert rules == set(re.findall(r"make ([a-z-]+)", shown))


def test_every_make_verb_is_in_the_readme() -> None:
    assert [verb for verb in VERBS if verb != "help" and f"make {verb}" not in README] == []


@pytest.mark.parametrize("paper", OF_TODAY, ids=str)
def test_every_make_verb_on_paper_exists(paper: Path) -> None:
    spoken = set(re.findall(r"`make ([a-z][a-z-]*)", (ROOT / paper).read_text()))
    spoken |= set(re.findall(r"^ {4}make ([a-z][a-z-]*)", (ROOT / paper).read_text(), re.MULTILINE))
    assert spoken - set(VERBS) == set()


def test_every_command_is_in_the_readme_and_every_command_there_exists() -> None:
    spoken = set(re.findall(r"schleuse ([a-z][a-z-]+)", "\n".join(re.findall(r"`[^`]+`|^ {4}.+$", README, re.M))))
    assert spoken == commands()


def test_every_option_of_the_laboratory_is_in_the_readme() -> None:
    options = set(re.findall(r"(--[a-z][a-z-]+)", schleuse("homeserver", "--help"))) - {"--help"}
    assert [option for option in sorted(options) if f"`{option}" not in README] == []


@pytest.mark.parametrize("paper", PAPERS, ids=str)
def test_every_link_leads_somewhere(paper: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (ROOT / paper).read_text())
    here = [link for link in links if "://" not in link]
    assert [link for link in here if not (ROOT / paper).parent.joinpath(link).exists()] == []


def test_every_library_the_appliance_asks_for_is_used() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[\[<>=~! ]", text)[0] for text in project["dependencies"]]
    used = {name.split(".")[0] for path in sources("appliance") for name in imported(path)}
    assert [name for name in names if IMPORT_NAMES.get(name, name) not in used] == []


def test_every_library_the_appliance_uses_is_asked_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[\[<>=~! ]", text)[0] for text in project["dependencies"]}
    asked = {IMPORT_NAMES.get(name, name) for name in names} | {"appliance"} | set(sys.stdlib_module_names)
    used = {name.split(".")[0] for path in sources("appliance") for name in imported(path)}
    assert sorted(used - asked) == []


def test_every_library_has_one_pinned_version() -> None:
    pinned = re.findall(r"^([a-z0-9._-]+)==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert len(pinned) == len(set(pinned))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[\[<>=~! ]", text)[0].lower().replace("_", "-") for text in wanted}
    assert sorted(names - set(pinned)) == []


def test_changelog_begins_with_the_version_in_hand() -> None:
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first and first[1] == __version__

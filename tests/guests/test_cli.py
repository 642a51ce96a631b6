"""The command line: instant help, two languages, honest failures."""

import dataclasses
import json
import os
import subprocess
import sys

import click
import pytest

from appliance import __version__
from appliance.__main__ import main
from appliance.guests.cli.failure import Failure
from appliance.guests.cli.main import Elsewhere, build, run
from appliance.guests.cli.words import DE, EN, words_for

HEAVY = ("aiohttp", "uvloop", "PIL", "nacl", "rich", "sqlite3", "appliance.laboratory", "appliance.house")


def schleuse(*arguments: str, language: str = "en_GB.UTF-8") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": language}
    command = [sys.executable, "-m", "appliance", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)


def test_bare_command_shows_every_command() -> None:
    shown = schleuse()
    assert shown.returncode == 0
    assert {"homeserver", "version", "completion"} <= set(shown.stdout.split())


def test_help_loads_nothing_of_the_house() -> None:
    probe = (
        "import sys; sys.argv = ['schleuse', '--help']\n"
        "from appliance.__main__ import main\n"
        "try:\n    main()\n"
        f"finally:\n    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    shown = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, timeout=60)
    assert shown.stderr.strip().endswith("[]"), shown.stderr


def test_homeserver_explains_itself() -> None:
    shown = schleuse("homeserver", "--help")
    assert shown.returncode == 0
    for option in ("--server-name", "--data", "--listen", "--profile", "--registration-secret"):
        assert option in shown.stdout


def test_german_unless_the_locale_says_otherwise() -> None:
    assert DE.about in schleuse("--help", language="de_DE.UTF-8").stdout
    assert EN.about in schleuse("--help", language="en_GB.UTF-8").stdout


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({}, "de"),
        ({"LANG": "C.UTF-8"}, "de"),
        ({"LANG": "de_AT.UTF-8"}, "de"),
        ({"LANG": "en_US.UTF-8"}, "en"),
        ({"LANG": "fr_FR"}, "en"),
        ({"LANG": "de_DE", "LC_MESSAGES": "en_GB"}, "en"),
        ({"LANG": "en_GB", "LC_MESSAGES": "en_GB", "LC_ALL": "de_DE"}, "de"),
        ({"LANG": "de_DE", "LC_ALL": ""}, "de"),
    ],
)
def test_language_follows_the_locale(environment: dict[str, str], language: str) -> None:
    assert words_for(environment).language == language


def test_no_sentence_is_empty_or_forgotten_in_one_language() -> None:
    same = [f.name for f in dataclasses.fields(DE) if getattr(DE, f.name) == getattr(EN, f.name)]
    assert same == []
    assert all(getattr(words, f.name).strip() for words in (DE, EN) for f in dataclasses.fields(words))


def test_version_for_people_and_for_programs() -> None:
    assert schleuse("--version").stdout == f"schleuse {__version__}\n"
    assert schleuse("version").stdout.splitlines()[0].split() == ["schleuse", __version__]
    assert json.loads(schleuse("version", "--json").stdout)["schleuse"] == __version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell: str) -> None:
    assert "_SCHLEUSE_COMPLETE" in schleuse("completion", shell).stdout


@pytest.mark.parametrize("arguments", [["unlock"], ["version", "--yaml"], ["completion", "csh"], ["homeserver"]])
def test_misunderstood_commands_say_what_stayed_and_what_to_type(arguments: list[str]) -> None:
    shown = schleuse(*arguments)
    assert shown.returncode == 2
    assert shown.stdout == ""
    lines = shown.stderr.strip().splitlines()
    assert lines[-2] == EN.nothing_changed
    assert lines[-1].startswith(EN.next_step) and lines[-1].endswith("--help")


def one_command(action: object) -> click.Group:
    group = build(EN, {})
    group.add_command(click.Command("act", callback=action))  # type: ignore[arg-type]
    return group


def test_failure_tells_three_things(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise Failure("The port is taken.", unchanged="Nothing was started.", next_step="Choose another port.")

    assert run(one_command(fail), EN, ["act"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "The port is taken.",
        "Nothing was started.",
        "Choose another port.",
    ]


def test_the_outside_world_refusing_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def taken() -> None:
        raise OSError(98, "Address already in use")

    assert run(one_command(taken), EN, ["act"]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert "Address already in use" in shown[0]
    assert shown[1:] == [EN.unknown_kept, EN.look_there]


def test_interrupt_is_said_and_has_its_own_code(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    assert run(one_command(interrupted), EN, ["act"]) == 130
    assert EN.stopped in capsys.readouterr().err


def test_a_command_elsewhere_is_loaded_when_called(capsys: pytest.CaptureFixture[str]) -> None:
    group = build(EN, {"again": Elsewhere("tests.guests.elsewhere", "command", "A command of a test.")})
    assert "tests.guests.elsewhere" not in sys.modules
    assert run(group, EN, ["--help"]) == 0
    assert "A command of a test." in capsys.readouterr().out
    assert "tests.guests.elsewhere" not in sys.modules
    assert run(group, EN, ["again"]) == 0
    assert capsys.readouterr().out == "here\n"


def test_entry_point_leaves_with_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["schleuse", "nonsense"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2

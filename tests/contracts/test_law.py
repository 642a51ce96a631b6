"""The parts of the dependency law that import-linter cannot see: submodules of libraries, SQL text, clocks."""

import ast
import re
from pathlib import Path

import pytest

from tests.contracts.tree import HOUSE, ROOF, imported, room_of, short, sources, strings, syntax

SQL = re.compile(
    r"^\s*(SELECT\s.+\sFROM\s|INSERT\s+(OR\s+\w+\s+)?INTO\s|UPDATE\s+\w+\s+SET\s|DELETE\s+FROM\s|REPLACE\s+INTO\s"
    r"|CREATE\s+(UNIQUE\s+)?(TABLE|INDEX|TRIGGER|VIEW)\s|WITH\s+\w+.*\sAS\s*\(|PRAGMA\s+\w+)",
    re.IGNORECASE | re.DOTALL,
)


def test_http_server_only_in_doors_and_at_the_roof() -> None:
    guilty = [
        short(path)
        for path in sources("appliance")
        if room_of(path) not in ROOF | {"doors"} and any(name.startswith("aiohttp.web") for name in imported(path))
    ]
    assert guilty == []


def test_http_client_only_in_the_link_and_the_push_gateway() -> None:
    allowed = {HOUSE / "push" / "gateway.py", *(HOUSE / "link").glob("*.py")}
    guilty = [
        short(path)
        for path in sources("appliance")
        if path not in allowed
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Attribute | ast.Name)
        and "ClientSession" in (getattr(node, "attr", ""), getattr(node, "id", ""))
    ]
    assert guilty == []


def test_sql_text_only_in_the_store() -> None:
    guilty = [
        f"{short(path)}:{line}"
        for path in sources("appliance")
        if room_of(path) != "store"
        for line, text in strings(path)
        if SQL.match(text)
    ]
    assert guilty == []


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM b",
        "\n  INSERT OR IGNORE INTO room VALUES (?)",
        "UPDATE room SET a = 1",
        "delete from x",
        "PRAGMA journal_mode",
        "CREATE UNIQUE INDEX i ON t(a)",
        "WITH RECURSIVE a AS (SELECT 1)",
    ],
)
def test_the_search_for_sql_finds_sql(text: str) -> None:
    assert SQL.match(text)


@pytest.mark.parametrize("text", ["select a server", "update", "Delete this device", "with love", "create a room"])
def test_the_search_for_sql_leaves_prose_alone(text: str) -> None:
    assert not SQL.match(text)


def calls_of(path: Path) -> list[str]:
    """List every call in a file as dotted text."""
    return [ast.unparse(node.func) for node in ast.walk(syntax(path)) if isinstance(node, ast.Call)]


def test_nothing_sleeps_where_it_could_wait_and_nothing_prints() -> None:
    guilty = [
        f"{short(path)}: {call}"
        for path in sources("appliance")
        for call in calls_of(path)
        if call == "time.sleep" or (call == "print" and room_of(path) not in ROOF | {"guests"})
    ]
    assert guilty == []


def test_no_error_is_swallowed() -> None:
    guilty = [
        f"{short(path)}:{node.lineno}"
        for path in sources("appliance", "tests")
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and all(isinstance(line, ast.Pass) for line in node.body)
    ]
    assert guilty == []


def test_nothing_is_left_unfinished() -> None:
    words = re.compile(r"\b(TODO|FIXME|XXX|HACK|NotImplementedError)\b")
    here = Path(__file__)
    guilty = [
        f"{short(path)}:{number}"
        for path in sources("appliance", "tests")
        if path != here
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if words.search(line)
    ]
    assert guilty == []


def test_json_for_the_database_is_text() -> None:
    """A BLOB that happens to fit SQLite's own binary form of JSON is read as that from SQLite 3.45 on (Debian 13).

    `[1234]` has the bytes of a binary array of five bytes: whether a query works would depend on the numbers in it.
    """
    bare = re.compile(r"json_(each|extract|type|array_length)\((?!CAST)", re.IGNORECASE)
    guilty = [
        f"{short(path)}:{line}"
        for path in sources("appliance")
        for line, text in strings(path)
        if room_of(path) == "store" and bare.search(text)
    ]
    assert guilty == []

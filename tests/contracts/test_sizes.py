"""A newcomer can read any file in one sitting, and its name says what is in it."""

import ast

from tests.contracts.tree import files, short, sources, syntax

LINES_IN_A_FILE = 500
LINES_IN_A_FUNCTION = 40
NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc"}


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {short(path): len(path.read_text().splitlines()) for path in sources("appliance", "tests")}
    assert {name: lines for name, lines in lengths.items() if lines > LINES_IN_A_FILE} == {}


def test_no_function_of_the_house_is_longer_than_40_lines() -> None:
    long = {}
    for path in sources("appliance"):
        for node in ast.walk(syntax(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                told = ast.get_docstring(node, clean=False)
                lines = (node.end_lineno or node.lineno) - node.lineno + 1 - (told.count("\n") + 1 if told else 0)
                if lines > LINES_IN_A_FUNCTION:
                    long[f"{short(path)}:{node.name}"] = lines
    assert long == {}


def test_no_file_is_named_after_nothing() -> None:
    assert [str(path) for path in files() if path.stem in NAMES_THAT_SAY_NOTHING] == []


def test_every_file_and_folder_of_the_house_says_what_it_is() -> None:
    silent = [short(path) for path in sources("appliance") if not ast.get_docstring(syntax(path))]
    assert silent == []

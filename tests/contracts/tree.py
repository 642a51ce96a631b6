"""The checkout as the contracts see it: its files, their syntax trees, and which room imports which."""

import ast
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOUSE = ROOT / "appliance"
LEFT_BY_TOOLS = {".venv", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".bench"}
ROOF = {"house", "config", "laboratory", "__main__"}


@cache
def files() -> tuple[Path, ...]:
    """List every file that git knows or would take (ignored ones left out), relative to the checkout."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        names = [Path(line) for line in listed.splitlines()]
    else:  # an unpacked archive
        names = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
    known = {name for name in names if (ROOT / name).is_file()}
    return tuple(sorted(name for name in known if not LEFT_BY_TOOLS.intersection(name.parts)))


def sources(*tops: str) -> list[Path]:
    """List the Python files below the named top folders, absolute."""
    return [ROOT / name for name in files() if name.suffix == ".py" and name.parts[0] in tops]


@cache
def syntax(path: Path) -> ast.Module:
    """Parse one file."""
    return ast.parse(path.read_text(), str(path))


def room_of(path: Path) -> str:
    """Name the room (first level below appliance/) that a source file belongs to."""
    part = path.relative_to(HOUSE).parts[0]
    return part.removesuffix(".py")


def short(path: Path) -> str:
    """Name a file as people do, from the top of the checkout."""
    return str(path.relative_to(ROOT))


def imported(path: Path) -> Iterator[str]:
    """Yield every imported module as a full dotted name; `from a import b` gives `a.b`."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield every string constant that is not a docstring, with its line; f-strings come piece by piece."""
    tree = syntax(path)
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.lineno, node.value

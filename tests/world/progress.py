"""Visible progress: a spinner and a tick per step on a terminal, one plain line per step everywhere else."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape


class Step:
    """What is being done now; `result` is shown beside the tick."""

    def __init__(self) -> None:
        self.result = ""


class Progress:
    """Prints steps as they happen, each with the time it took."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while it runs; mark it done with its time, or failed if it raises."""
        step = Step()
        begin = time.perf_counter()
        try:
            with self.console.status(escape(title)):
                yield step
        except BaseException:
            self.line("✗", "red", title, "", time.perf_counter() - begin)
            raise
        self.line("✓", "green", title, step.result, time.perf_counter() - begin)

    def line(self, mark: str, colour: str, title: str, result: str, seconds: float) -> None:
        """Print one finished step."""
        took = f"{seconds * 1000:6.0f} ms" if seconds < 10 else f"{seconds:6.1f} s "
        self.console.print(f"  [{colour}]{mark}[/] [dim]{took}[/]  {escape(title)}", end="", soft_wrap=True)
        self.console.print(f"  [dim]{escape(result)}[/]" if result else "", soft_wrap=True)

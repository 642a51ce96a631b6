"""How a command fails: what went wrong, what stayed as it was, and what to type next."""

from typing import IO, Any

import click

from appliance.guests.cli.words import Words


class Failure(click.ClickException):
    """A failure told in three lines on stderr; exit code 1."""

    def __init__(self, problem: str, *, unchanged: str, next_step: str) -> None:
        super().__init__(problem)
        self.unchanged = unchanged
        self.next_step = next_step

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the three lines."""
        for line in (self.message, self.unchanged, self.next_step):
            click.echo(line, file=file, err=file is None)


def explain(problem: click.ClickException, words: Words) -> int:
    """Print any failure so that it ends with what stayed unchanged and the next step; return the exit code."""
    problem.show()
    if not isinstance(problem, Failure):
        # Click refuses arguments before a command begins, so nothing can have happened; later errors are Failures.
        context = problem.ctx if isinstance(problem, click.UsageError) else None
        click.echo(words.nothing_changed if context else words.unknown_kept, err=True)
        click.echo(f"{words.next_step} {context.command_path if context else 'schleuse'} --help", err=True)
    return problem.exit_code

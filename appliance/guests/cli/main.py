"""The group `schleuse` with its own commands, and commands that live elsewhere and are loaded only when called."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module

import click
from click.shell_completion import get_completion_class

from appliance import __version__
from appliance.guests.cli.failure import Failure, explain
from appliance.guests.cli.words import Words


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """A command whose code is imported only when it is called, so that `--help` stays instant."""

    module: str
    attribute: str
    summary: str


class Commands(click.Group):
    """A click group that also knows commands living elsewhere."""

    def __init__(self, *, elsewhere: Mapping[str, Elsewhere], words: Words, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]  # passed through to click untouched
        self.elsewhere = elsewhere
        self.words = words

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command, sorted."""
        return sorted([*super().list_commands(ctx), *self.elsewhere])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Find a command; import its module now if it lives elsewhere."""
        if cmd_name not in self.elsewhere:
            return super().get_command(ctx, cmd_name)
        place = self.elsewhere[cmd_name]
        command: click.Command = getattr(import_module(place.module), place.attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with one line each, importing nothing."""
        rows = {name: command.get_short_help_str(90) for name, command in self.commands.items()}
        rows |= {name: place.summary for name, place in self.elsewhere.items()}
        with formatter.section(self.words.commands):
            formatter.write_dl(sorted(rows.items()))


def build(words: Words, elsewhere: Mapping[str, Elsewhere]) -> click.Group:
    """Build the command line in one language."""
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

    def entrance(ctx: click.Context) -> None:
        if ctx.invoked_subcommand is None:
            click.echo(ctx.get_help())

    group = Commands(
        name="schleuse", callback=click.pass_context(entrance), help=words.about, invoke_without_command=True,
        context_settings=settings, elsewhere=elsewhere, words=words,
    )  # fmt: skip
    group = click.version_option(__version__, prog_name="schleuse", message="%(prog)s %(version)s",
                                 help=words.version_option)(group)  # fmt: skip
    group.add_command(_version(words))
    group.add_command(_completion(words))
    return group


def _version(words: Words) -> click.Command:
    @click.command("version", help=words.version)
    @click.option("--json", "as_json", is_flag=True, help=words.version_json)
    def version(as_json: bool) -> None:
        parts = {"schleuse": __version__, "python": sys.version.split()[0]}
        click.echo(json.dumps(parts) if as_json else "\n".join(f"{name:<9} {value}" for name, value in parts.items()))

    return version


def _completion(words: Words) -> click.Command:
    @click.command("completion", help=words.completion)
    @click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
    @click.pass_context
    def completion(ctx: click.Context, shell: str) -> None:
        kind = get_completion_class(shell)
        if kind is None:
            raise click.UsageError(shell)
        click.echo(kind(ctx.find_root().command, {}, "schleuse", "_SCHLEUSE_COMPLETE").source())

    return completion


def run(group: click.Group, words: Words, arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0 done, 1 failed, 2 not understood, 130 interrupted."""
    try:
        code = group.main(args=arguments, prog_name="schleuse", standalone_mode=False)
    except click.Abort:
        click.echo(words.stopped, err=True)
        return 130
    except click.ClickException as problem:
        return explain(problem, words)
    except BrokenPipeError:  # the reader of our output has gone; there is nobody left to tell
        return 1
    except OSError as problem:
        return explain(Failure(str(problem), unchanged=words.unknown_kept, next_step=words.look_there), words)
    return code if isinstance(code, int) else 0

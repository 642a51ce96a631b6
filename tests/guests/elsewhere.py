"""A command in a module of its own, for the test of lazy loading."""

import click


@click.command("again")
def command() -> None:
    """Say where it is."""
    click.echo("here")

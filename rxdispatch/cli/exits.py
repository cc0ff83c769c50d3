"""``exit_codes``: what an error of ours comes to on the command line."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import click

from rxdispatch.errors import ConfigError, RxDispatchError

__all__ = ["exit_codes"]


@contextmanager
def exit_codes() -> Generator[None]:
    """Say what went wrong in one sentence; see :func:`rxdispatch.cli.main.main` for the codes."""
    try:
        yield
    except RxDispatchError as error:
        click.echo(f"Error: {error}", err=True)
        raise click.exceptions.Exit(2 if isinstance(error, ConfigError) else 1) from None

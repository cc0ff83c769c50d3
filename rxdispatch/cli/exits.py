"""``exit_codes``: what an error of ours comes to on the command line."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import click

from rxdispatch.cli.text import visible
from rxdispatch.errors import ConfigError, RxDispatchError

__all__ = ["exit_codes", "sayable"]

# Up to the last @ of the word, as a password can hold any character; to its end where the word
# was cut before that. URLs that already hide their password stay.
_LOGIN: Final = re.compile(r"(\w:/+)(?!\S*?:\*\*\*@)(?:\S*@|\S*\.\.\.)")


@contextmanager
def exit_codes() -> Generator[None]:
    """Say what went wrong in one sentence; see :func:`rxdispatch.cli.main.main` for the codes."""
    try:
        yield
    except RxDispatchError as error:
        click.echo(f"Error: {sayable(str(error))}", err=True)
        raise click.exceptions.Exit(2 if isinstance(error, ConfigError) else 1) from None


def sayable(text: str) -> str:
    """
    Return *text* without the logins of URLs, and without what would steer a terminal.

    An argument that stands in the wrong place is repeated in the message about it, and may be the
    URL of a server.

    Example:
        >>> sayable("board must be short, got 'redis://me:geheim@host/0'")
        "board must be short, got 'redis://***@host/0'"
    """
    return visible(_LOGIN.sub(r"\1***@", text))

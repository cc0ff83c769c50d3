"""``exit_codes``: the exit code and the message of an error on the command line."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import click

from rxdispatch.cli.text import visible
from rxdispatch.errors import ConfigError, RxDispatchError

__all__ = ["exit_codes", "without_secrets"]

# The login reaches to the last @ of the word, because a password can hold any character, or to the
# end of the word if the message was cut before an @. A URL that hides its password does not match.
_LOGIN: Final = re.compile(r"(\w:/+)(?!\S*?:\*\*\*@)(?:\S*@|\S*\.\.\.)")


@contextmanager
def exit_codes() -> Generator[None]:
    """Print an error as one sentence; see :func:`rxdispatch.cli.main.main` for the codes."""
    try:
        yield
    except RxDispatchError as error:
        click.echo(f"Error: {without_secrets(str(error))}", err=True)
        raise click.exceptions.Exit(2 if isinstance(error, ConfigError) else 1) from None


def without_secrets(text: str) -> str:
    """
    Return *text* without the logins of URLs, and without terminal control characters.

    An error message may quote a misplaced argument, which may be the URL of a server.

    Example:
        >>> without_secrets("board must be short, got 'redis://me:secret@host/0'")
        "board must be short, got 'redis://***@host/0'"
    """
    return visible(_LOGIN.sub(r"\1***@", text))

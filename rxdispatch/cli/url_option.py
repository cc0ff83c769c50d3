"""``url_option``: the option ``--url`` of a command, which takes a URL or a file with one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

__all__ = ["url_option"]

#: A URL has a few hundred bytes; a much larger file does not hold a URL.
_LONGEST: Final = 65536


def url_option(what: str, default: str = "$RXDISPATCH_URL") -> Callable[[Any], Any]:
    """
    Return the decorator that gives a command the option ``--url``.

    Every user of a machine can read the arguments of all processes. So ``@FILE`` means the URL in
    FILE, as in curl, which keeps the password out of the arguments.

    Args:
        what: The description in the help.
        default: The text for the default in the help.
    """
    return click.option(
        "--url",
        metavar="URL",
        callback=_from_file,
        help=f"{what}. Other users of this machine can read this option, and a password in it. To"
        f" hide it, set RXDISPATCH_URL, or give @FILE with the URL in FILE.  [default: {default}]",
    )


def _from_file(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is None or not value.startswith("@"):
        return value
    path = Path(value[1:])
    try:
        with path.open(encoding="utf-8") as file:
            url = file.read(_LONGEST).strip()
    except (OSError, ValueError) as error:
        why = (isinstance(error, OSError) and error.strerror) or "it is not text"
        raise click.BadParameter(f"the file must be readable, got {str(path)!r} ({why})") from None
    if not url or len(url.split()) != 1:
        raise click.BadParameter(f"the file must hold one URL and nothing else, got {str(path)!r}")
    return url

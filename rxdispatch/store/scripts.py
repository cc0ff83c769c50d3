"""Lua scripts: read from the package, joined, and identified by their hash."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files

import attrs

__all__ = ["Script", "load_script"]


@attrs.frozen(slots=True)
class Script:
    """
    A Lua script.

    Attributes:
        text: The text, for EVAL.
        sha: The SHA-1 of the text in hexadecimal, for EVALSHA.
    """

    text: str = attrs.field(repr=False)
    sha: str = attrs.field(default=attrs.Factory(lambda self: _hash(self.text), takes_self=True))


def _hash(text: str) -> str:
    # The server's name for a script; nothing depends on its strength.
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


@cache
def load_script(package: str, *names: str) -> Script:
    """
    Join the files ``lua/<name>.lua`` of *package*, in the order of *names*.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    folder = files(package).joinpath("lua")
    texts = [folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names]
    return Script("\n".join(texts))

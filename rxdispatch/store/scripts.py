"""Lua scripts: read from the package, put together, and known by their hash."""

from __future__ import annotations

from functools import cache
from hashlib import sha1
from importlib.resources import files

import attrs

__all__ = ["Script", "load_script"]


@attrs.frozen(slots=True)
class Script:
    """
    A script as the server knows it.

    Attributes:
        text: What EVAL is given.
        sha: The SHA-1 of the text in hexadecimal, which EVALSHA is given.
    """

    text: str = attrs.field(repr=False)
    sha: str = attrs.field(default=attrs.Factory(lambda self: _hash(self.text), takes_self=True))


def _hash(text: str) -> str:
    # The name under which the server files a script; nothing rests on its secrecy.
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


@cache
def load_script(package: str, *names: str) -> Script:
    """
    Put ``lua/<name>.lua`` of each of *names* in *package* together, in that order.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    folder = files(package).joinpath("lua")
    texts = [folder.joinpath(f"{name}.lua").read_text("utf-8") for name in names]
    return Script("\n".join(texts))

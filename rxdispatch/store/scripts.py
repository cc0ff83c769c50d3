"""Lua scripts: put together from parts in the package, and identified by their hash."""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha1
from importlib.resources import files
from typing import Final

import attrs

__all__ = ["Script", "load_script"]

_SHARED: Final = "rxdispatch.store"
"""The package with the parts that several packages use."""

_DECLARATION: Final = re.compile(r"^-- (Parts|Keys): (.+)\n", re.MULTILINE)
_INSERTION: Final = re.compile(r"^( *)-- Insert: (.+)\n", re.MULTILINE)


@attrs.frozen(slots=True)
class Script:
    """
    A Lua script.

    Attributes:
        text: The text, for EVAL.
        keys: The names of the keys that it declares, in the order in which it expects them.
        sha: The SHA-1 of the text in hexadecimal, for EVALSHA.
    """

    text: str = attrs.field(repr=False)
    keys: tuple[str, ...] = ()
    sha: str = attrs.field(default=attrs.Factory(lambda self: _hash(self.text), takes_self=True))


def _hash(text: str) -> str:
    # The server's name for a script; nothing depends on its strength.
    return sha1(text.encode(), usedforsecurity=False).hexdigest()


@cache
def load_script(package: str, *names: str) -> Script:
    """
    Join the files ``lua/<name>.lua`` of *package*, in the order of *names*.

    A file may name parts and keys. ``-- Parts: a, b`` at its beginning puts ``lua/parts/a.lua`` and
    ``lua/parts/b.lua`` before it, each part once. ``-- Insert: c`` puts a part in the place of this
    line, such as into a branch that is rarely taken, because a script pays for each function when
    it comes to its definition. ``-- Keys: READY, TASKS`` declares the keys that the file touches:
    the script gets them as variables, and :attr:`Script.keys` has their names in lower case.

    A part that *package* does not have is one that packages share, in
    ``rxdispatch/store/lua/parts``.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    source = _Source(package)
    there: set[str] = set()
    text = "\n".join(source.expand(name, there) for name in names)
    if source.keys:
        places = ", ".join(f"KEYS[{place}]" for place in range(1, len(source.keys) + 1))
        text = f"local {', '.join(source.keys)} = {places}\n{text}"
    return Script(text, tuple(name.lower() for name in source.keys))


@cache
def _text_of(package: str, name: str) -> str:
    """Return the text of a file, which many scripts may need, from one read."""
    path = ("lua", *f"{name}.lua".split("/"))
    own = files(package).joinpath(*path)
    shared = files(_SHARED).joinpath(*path)
    return (shared if shared.is_file() and not own.is_file() else own).read_text("utf-8")


class _Source:
    """The files of a package, and the keys that those read so far declare."""

    def __init__(self, package: str) -> None:
        self._package = package
        self.keys: dict[str, None] = {}

    def expand(self, name: str, there: set[str]) -> str:
        """Return a file after the parts that it names, apart from those that are *there*."""
        if name in there:
            return ""
        there.add(name)
        text = _text_of(self._package, name)
        before: list[str] = []
        for kind, values in _DECLARATION.findall(text):
            for value in values.split(", "):
                if kind == "Parts":
                    before.append(self.expand(f"parts/{value}", there))
                else:
                    self.keys[value] = None

        def insert(found: re.Match[str]) -> str:
            # What is inserted into a branch, so indented, is not there after it.
            inside = there.copy() if found[1] else there
            return "".join(self.expand(f"parts/{part}", inside) for part in found[2].split(", "))

        text = _INSERTION.sub(insert, _DECLARATION.sub("", text))
        return "".join(before) + text

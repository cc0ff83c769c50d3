"""
The examples of the documentation, run as programs.

In a Markdown page, in order:

- a ``python`` block whose first line is ``# name.py`` is saved as that file;
- any other ``python`` block runs, in one namespace for the whole page;
- a ``console`` block runs its lines that begin with ``$ python``;
- the output must equal the ``output`` block that follows, or the rest of the ``console`` block.
  ``...`` matches anything.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

__all__ = ["ROOT", "Page", "pages"]

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^```(python|console|output)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")
# A slow machine may log warnings, which are not part of the example.
_LOGGED = re.compile(r"^\d{4}-\d\d-\d\d .*\n", re.MULTILINE)
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@attrs.frozen
class Block:
    """
    A fenced block.

    Args:
        kind: ``python``, ``console`` or ``output``.
        text: The contents of the block.
        line: The line at which it begins.
    """

    kind: str
    text: str
    line: int


@attrs.frozen
class Page:
    """A page of the documentation."""

    path: Path

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks that run, and those with expected output."""
        text = self.path.read_text("utf-8")
        for found in _FENCE.finditer(text):
            yield Block(found[1], found[2], text.count("\n", 0, found.start()) + 1)

    def run(self) -> None:
        """Run the page in the current directory."""
        namespace: dict[str, Any] = {"__name__": "__page__"}
        printed = ""
        for block in self.blocks():
            if block.kind == "output":
                self._compare(block, block.text, printed)
            elif block.kind == "console":
                self._console(block)
            elif named := _FILE.match(block.text):
                Path(named[1]).write_text(block.text, "utf-8")
            else:
                printed = self._python(block, namespace)

    def _python(self, block: Block, namespace: dict[str, Any]) -> str:
        # Empty lines come first, so that a traceback has the line numbers of the page.
        code = compile("\n" * block.line + block.text, str(self.path), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(code, namespace)
        return out.getvalue()

    def _console(self, block: Block) -> None:
        for call in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, _, expected = call.partition("\n")
            program, *arguments = shlex.split(line)
            if program == "python":
                done = subprocess.run(
                    [sys.executable, "-W", "error", *arguments],
                    env={**os.environ, "PYTHONPATH": str(ROOT)},
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                assert done.returncode == 0, f"{self.path}:{block.line}: {line}\n{done.stderr}"
                self._compare(block, expected, done.stdout)

    def _compare(self, block: Block, expected: str, printed: str) -> None:
        printed = _LOGGED.sub("", printed)
        if not doctest.OutputChecker().check_output(expected, printed, _FLAGS):
            raise AssertionError(
                f"{self.path}:{block.line}: expected\n{expected}\nbut it printed\n{printed}"
            )


def pages() -> list[Page]:
    """Return every page that has an example."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [Page(path) for path in paths if "_build" not in path.parts]
    return [page for page in found if any(block.kind != "output" for block in page.blocks())]

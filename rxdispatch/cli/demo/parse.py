"""The demo's handler: counts functions, classes and lines of a file, in a worker process."""

from __future__ import annotations

import ast
import functools
import os
import warnings
from pathlib import Path

from rxdispatch.cli.demo.ledger import FileCounts, Ledger
from rxdispatch.task import Task

__all__ = ["count", "count_file"]


def count_file(ledger: str, board: str, task: Task[bytes]) -> None:
    """
    Count the contents of a file and write the counts to the ledger.

    Args:
        ledger: The path of the ledger.
        board: The name of the board, under which the counts are written.
        task: The task; its payload is the absolute path of the file, as the system's bytes.

    Raises:
        OSError: If the file cannot be read.
        SyntaxError: If it cannot be parsed.
        ValueError: If it is not text.
    """
    path = os.fsdecode(task.payload)
    counts = count(Path(path).read_bytes(), path)
    # Written before this function returns, because then the task is settled; see Ledger.
    _open(ledger).put(board, task.id, counts)


def count(source: bytes, filename: str = "<unknown>") -> FileCounts:
    r"""
    Count functions, classes and lines of Python source.

    Raises:
        SyntaxError: If it cannot be parsed.
        ValueError: If it is not text.

    Example:
        >>> count(b"class A:\n    def f(self): pass\n")
        FileCounts(functions=1, classes=1, lines=2)
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid escapes in other people's files
        tree = ast.parse(source, filename)
    functions = classes = 0
    # Only statements contain functions and classes, so expressions, most of a tree, are skipped.
    blocks: list[ast.AST] = [tree]
    while blocks:
        block = blocks.pop()
        for field in ("body", "orelse", "finalbody", "handlers", "cases"):
            blocks.extend(getattr(block, field, ()))
        functions += isinstance(block, (ast.FunctionDef, ast.AsyncFunctionDef))
        classes += isinstance(block, ast.ClassDef)
    return FileCounts(functions, classes, len(source.splitlines()))


@functools.cache
def _open(path: str) -> Ledger:
    """Return the ledger at *path*; each process opens it once."""
    return Ledger(Path(path))

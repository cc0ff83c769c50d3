"""``Ledger``: a SQLite file with the counts of each task."""

from __future__ import annotations

import os
import secrets
import sqlite3
from pathlib import Path
from typing import Final, Self

import attrs

from rxdispatch.errors import ConfigError
from rxdispatch.files.private_database import open_database

__all__ = ["FileCounts", "Ledger"]

_BUSY: Final = 30.0
"""Seconds to wait for the write of another process."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS identity (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS counts (
    board TEXT NOT NULL, id BLOB NOT NULL,
    functions INTEGER NOT NULL, classes INTEGER NOT NULL, lines INTEGER NOT NULL,
    PRIMARY KEY (board, id)
) WITHOUT ROWID;
"""


@attrs.frozen
class FileCounts:
    """The numbers of functions (methods included), classes and lines of a file."""

    functions: int
    classes: int
    lines: int


class Ledger:
    """
    A SQLite file with the counts of each task; each worker process writes over its own connection.

    A task settles once, but it runs *at least* once: if a worker is killed between its work and the
    settlement, the task runs again. So the effect of a handler must be idempotent, that is, the
    same after two runs as after one, and it must be written *before* the task is settled. Here the
    effect is one row for each task id, written with INSERT OR REPLACE. Adding to a total would
    count a file twice if its task runs twice; writing after the settlement could lose its counts.

    Every commit is flushed to the disk (``synchronous=FULL``): the board may remember that a file
    is done, so its counts must survive a power cut too.

    Args:
        path: The database file.
        create: Whether to create it if it does not exist.

    Raises:
        ConfigError: If *path* is not a writable database, or another user may have made or
            changed it.

    Example:
        >>> ledger = Ledger(Path(":memory:"), create=True)
        >>> for _ in range(2):
        ...     ledger.put("demo", "a.py", FileCounts(functions=2, classes=1, lines=9))
        >>> ledger.counts("demo")
        {'a.py': FileCounts(functions=2, classes=1, lines=9)}
        >>> ledger.close()
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        try:
            self._db = _connect(path, create=create)
            try:
                self._db.execute("PRAGMA synchronous = FULL")
                if create:
                    self._db.execute("PRAGMA journal_mode = WAL")
                    self._db.executescript(_SCHEMA)
                    self._db.execute(
                        "INSERT OR IGNORE INTO identity VALUES (1, ?)", (secrets.token_hex(8),)
                    )
            except BaseException:
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"the ledger must be a database ({error})", str(path)) from error

    @property
    def identity(self) -> str:
        """A random name of the file; part of the board's name, so that a board has one ledger."""
        (name,) = self._db.execute("SELECT name FROM identity").fetchone()
        return str(name)

    def put(self, board: str, task_id: str, counts: FileCounts) -> None:
        """Write the counts of one task, replacing earlier ones."""
        # The id is stored as bytes, because a file name need not be valid text.
        row = (board, os.fsencode(task_id), *attrs.astuple(counts))
        self._db.execute("INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?, ?)", row)

    def counts(self, board: str) -> dict[str, FileCounts]:
        """Return the counts of a board by task id."""
        rows = self._db.execute(
            "SELECT id, functions, classes, lines FROM counts WHERE board = ? ORDER BY id", (board,)
        )
        return {os.fsdecode(task_id): FileCounts(*counts) for task_id, *counts in rows}

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connect(path: Path, *, create: bool) -> sqlite3.Connection:
    if path == Path(":memory:"):
        return sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    return open_database(
        path, what="the ledger", create=create, timeout=_BUSY, isolation_level=None
    )

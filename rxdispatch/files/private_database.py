"""SQLite databases that no other user of the machine can have planted or can write."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import check_private

__all__ = ["open_database"]

# SQLite plays back what it finds in these, as if it had been written by itself.
_BESIDE: Final = ("-journal", "-wal", "-shm")

_FOREIGN: Final = """
SELECT type, name FROM sqlite_master
WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%' LIMIT 1
"""

# A process that finds its own file damaged makes another while others are opening it.
_TRIES: Final = 5


class _ExchangedError(Exception):
    """What was opened is not what was looked at."""


def open_database(
    path: Path, *, what: str, create: bool = True, **options: Any
) -> sqlite3.Connection:
    """
    Open a database of this user's alone; a new one has mode 0600.

    The database holds nothing that runs by itself: no trigger and no view, and functions in its
    schema are not trusted.

    The file is looked at by name, before and after SQLite opens it, and not through a descriptor:
    POSIX drops all locks that a process has on a file when the process closes any descriptor of
    it, those of another connection too.

    Args:
        path: The file.
        what: What errors call it.
        create: Whether to make it where there is none.
        options: As for :func:`sqlite3.connect`.

    Raises:
        ConfigError: If the file, or a journal beside it, can be another user's work, or it holds
            a trigger, a view or a virtual table, or is exchanged again and again.
        OSError: If it cannot be made.
        sqlite3.Error: If it cannot be opened, or is no database.
    """
    for _ in range(_TRIES):
        with suppress(_ExchangedError):
            return _opened(path, what, options, create=create)
    raise ConfigError(f"{what} must not be replaced while it is opened", str(path))


def _opened(path: Path, what: str, options: dict[str, Any], *, create: bool) -> sqlite3.Connection:
    if create:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        before = _checked(path, what)
        # By its mode, as SQLite would make a file that has gone meanwhile for all to read.
        connection: sqlite3.Connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw", uri=True, **options
        )
    except (FileNotFoundError, sqlite3.OperationalError) as error:
        if create and not os.path.lexists(path):
            raise _ExchangedError from error
        raise
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        found = connection.execute(_FOREIGN).fetchone()
        if found is not None:
            kind, name = found
            rule = f"{what} must hold neither triggers nor views, but has the {kind} {name!r}"
            raise ConfigError(rule, str(path))
        try:
            after = _checked(path, what)
        except FileNotFoundError as error:
            raise _ExchangedError from error
        if (before.st_dev, before.st_ino) != (after.st_dev, after.st_ino):
            raise _ExchangedError
    except BaseException:
        connection.close()
        raise
    return connection


def _checked(path: Path, what: str) -> os.stat_result:
    """Compare the database and what stands beside it; returns what the database is."""
    found = path.lstat()
    check_private(found, path, what=what)
    for suffix in _BESIDE:
        beside = path.with_name(path.name + suffix)
        try:
            other = beside.lstat()
        except FileNotFoundError:
            continue
        check_private(other, beside, what=f"what stands beside the {what}")
    return found

"""SQLite databases that no other user of the machine can plant or write."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import check_private

__all__ = ["open_database"]

# SQLite replays these files as if it had written them itself.
_BESIDE: Final = ("-journal", "-wal", "-shm")

_FOREIGN: Final = """
SELECT type, name FROM sqlite_master
WHERE type IN ('trigger', 'view') OR sql LIKE 'CREATE VIRTUAL%' LIMIT 1
"""

# A process that finds its file damaged may replace it while other processes open it.
_TRIES: Final = 5


class _ExchangedError(Exception):
    """The file that was opened is not the file that was checked."""


def open_database(
    path: Path, *, what: str, create: bool = True, **options: Any
) -> sqlite3.Connection:
    """
    Open a private database of this user; a new one has mode 0600.

    The database contains no code that SQLite would run without being asked: no trigger and no view.
    Functions in its schema are not trusted.

    The file is checked by name, before and after SQLite opens it, and not through a descriptor:
    when a process closes any descriptor of a file, POSIX drops all locks of the process on that
    file, even those of another connection.

    Args:
        path: The file.
        what: Its name in errors.
        create: Whether to create it if it does not exist.
        options: As for :func:`sqlite3.connect`.

    Raises:
        ConfigError: If another user may have made the file or a journal beside it, or it has a
            trigger, a view or a virtual table, or it is replaced over and over.
        OSError: If it cannot be created.
        sqlite3.Error: If it cannot be opened, or is not a database.
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
        # mode=rw: by default SQLite would create a removed file again, readable for all users.
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
    """Check the database and its journals; return the identity of the database file."""
    found = path.lstat()
    check_private(found, path, what=what)
    for suffix in _BESIDE:
        beside = path.with_name(path.name + suffix)
        try:
            other = beside.lstat()
        except FileNotFoundError:
            continue
        check_private(other, beside, what=f"the file beside the {what}")
    return found

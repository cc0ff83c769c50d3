"""``DatabaseFile``: a SQLite file with a thread of its own, so that no loop waits for a disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from rxdispatch.errors import ConfigError
from rxdispatch.files.lock import FileLock
from rxdispatch.files.private_database import open_database

__all__ = ["DatabaseFile"]

T = TypeVar("T")


class DatabaseFile:
    """
    A private SQLite file, its thread, and a lock file beside it.

    The thread does the work on the file, one call after the other. All methods but ``open``,
    ``run`` and ``close`` are for that work.

    Args:
        path: The file.
        what: Its name in errors.
        label: The name of the thread, after ``rxdispatch-``.
    """

    def __init__(self, path: Path, *, what: str, label: str) -> None:
        self.path = path
        self.what = what
        #: The lock file; the kernel releases the lock when the process dies.
        self.lock_path = path.with_name(f"{path.name}.lock")
        #: The connection; None before ``connect`` and after ``disconnect``.
        self.connection: sqlite3.Connection | None = None
        self._label = label
        self._lock: FileLock | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def running(self) -> bool:
        """Whether the file is open."""
        return self._pool is not None

    async def open(self, work: Callable[[], None]) -> None:
        """
        Start the thread, and open the file with *work*.

        Raises:
            ConfigError: If the file cannot be written, or if *work* raises it; the thread ends.
        """
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"rxdispatch-{self._label}")
        try:
            await self.run(work)
        except BaseException as error:
            await self.close()
            if isinstance(error, (OSError, sqlite3.Error)):
                rule = f"{self.what} must be a file that can be written ({error})"
                raise ConfigError(rule, str(self.path)) from error
            raise

    async def run(self, work: Callable[[], T]) -> T:
        """
        Run *work* in the thread; once started it runs to its end, even if this call is cancelled.

        Raises:
            ConfigError: If the file is not open.
        """
        if self._pool is None:
            raise ConfigError(f"{self.what} must be open", str(self.path))
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def close(self) -> None:
        """Close the file once the current work has ended; a second call does nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.submit(self._close)
            # In another thread, so that the loop is not blocked until the current work has ended.
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)

    # -- in the thread -----------------------------------------------------------------------

    def connect(self, **options: Any) -> sqlite3.Connection:
        """Connect to the file, which is created if it does not exist; see ``open_database``."""
        self.connection = open_database(
            self.path, what=self.what, isolation_level=None, check_same_thread=False, **options
        )
        return self.connection

    def disconnect(self) -> None:
        """Close the connection; without one it does nothing."""
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def locked(self) -> bool:
        """Return whether this process holds the lock; it takes the lock if it is free."""
        if self._lock is None:
            self._lock = FileLock.take(self.lock_path)
        return self._lock is not None

    def _close(self) -> None:
        self.disconnect()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

"""``FileThread``: one thread for the work on one file, so that the loop never waits for a disk."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rxdispatch.errors import ConfigError

__all__ = ["FileThread"]

T = TypeVar("T")


class FileThread:
    """
    A thread that does the work on one file, one call after the other.

    Args:
        path: The file.
        what: Its name in errors.
        label: The name of the thread, after ``rxdispatch-``.
        close: A function that closes the file; the thread calls it last.
    """

    def __init__(
        self, path: os.PathLike[str], *, what: str, label: str, close: Callable[[], None]
    ) -> None:
        self._path = path
        self._what = what
        self._label = label
        self._close = close
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
                rule = f"{self._what} must be a file that can be written ({error})"
                raise ConfigError(rule, str(self._path)) from error
            raise

    async def run(self, work: Callable[[], T]) -> T:
        """
        Run *work* in the thread; once started it runs to its end, even if this call is cancelled.

        Raises:
            ConfigError: If the file is not open.
        """
        if self._pool is None:
            raise ConfigError(f"{self._what} must be open", str(self._path))
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def close(self) -> None:
        """Close the file once the current work has ended; a second call does nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.submit(self._close)
            # In another thread, so that the loop is not blocked until the current work has ended.
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)

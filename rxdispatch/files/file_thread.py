"""``FileThread``: a thread of its own for a file, so that a slow disk does not hold up the loop."""

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
    Does work on one file, one piece after the other.

    Args:
        path: The file.
        what: What errors call it.
        label: What the thread is called, after ``rxdispatch-``.
        close: Lets go of the file; done in the thread, as its last work.
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
        """Whether it was opened and not closed."""
        return self._pool is not None

    async def open(self, work: Callable[[], None]) -> None:
        """
        Start the thread, and open the file by *work*.

        Raises:
            ConfigError: If it cannot be written, or *work* says so; the thread has ended then.
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
        Do *work*; once begun it is done to its end, even if this is cancelled.

        Raises:
            ConfigError: If the file is not open.
        """
        if self._pool is None:
            raise ConfigError(f"{self._what} must be open", str(self._path))
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def close(self) -> None:
        """Let go of the file once what is under way has ended; the second time does nothing."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.submit(self._close)
            # Not waited for in the loop: what is under way ends by itself, and soon.
            await asyncio.get_running_loop().run_in_executor(None, pool.shutdown)

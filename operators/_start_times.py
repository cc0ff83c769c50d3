"""
``StartTimes``: when calls began in other processes.

The processes write a small file, and their parent reads it. A process pool offers no other way to
tell a running call from a call that waits for a process, or whose process died before it began.
"""

from __future__ import annotations

import os
import struct
import tempfile
import time
import weakref
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

from rxdispatch.files.private_file import open_private
from rxdispatch.files.temporary import temporary_folder

__all__ = ["StartKey", "StartTimes", "record_start"]

StartKey = tuple[str, int, int]
"""The path of the file, the place in it, and the number of the call."""

_ENTRY: Final = struct.Struct("=Qd")


def record_start(key: StartKey) -> None:
    """Record that the call of *key* begins now; called in the process that runs it."""
    path, place, number = key
    file = open_private(path, os.O_WRONLY, what="the file of start times")
    try:
        # The clock is that of the host: the same for all of its processes.
        os.pwrite(file, _ENTRY.pack(number, time.monotonic()), place * _ENTRY.size)
    finally:
        os.close(file)


class StartTimes:
    """The file of one process pool. Its places are reused; the numbers of calls are not."""

    def __init__(self) -> None:
        self._file, self._path = tempfile.mkstemp(prefix="rxdispatch-", dir=temporary_folder())
        self._places: list[int] = []
        self._next_place = count()
        self._numbers = count(1)
        self.close = weakref.finalize(self, _remove, self._file, self._path, os.getpid())

    def new_key(self) -> StartKey:
        """Return the key of a new call."""
        try:
            place = self._places.pop()
        except IndexError:
            place = next(self._next_place)
        return self._path, place, next(self._numbers)

    def release(self, key: StartKey) -> None:
        """Free the place of *key* for another call; called in any thread."""
        self._places.append(key[1])

    def age(self, key: StartKey) -> float | None:
        """Return how many seconds ago the call of *key* began; None if it has not."""
        entry = os.pread(self._file, _ENTRY.size, key[1] * _ENTRY.size)
        if len(entry) < _ENTRY.size:
            return None
        number, began = _ENTRY.unpack(entry)
        return time.monotonic() - began if number == key[2] else None


def _remove(file: int, path: str, owner: int) -> None:
    if os.getpid() != owner:
        return  # a forked child, which has inherited the file
    os.close(file)
    with suppress(OSError):
        Path(path).unlink()

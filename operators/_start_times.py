"""
``StartTimes``: when functions began in other processes.

A small file that the processes write and their parent reads: of all that a process pool offers,
nothing tells a call that runs from one that waits for a process, or from one whose process died
before it began.
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

__all__ = ["StartKey", "StartTimes", "begin"]

StartKey = tuple[str, int, int]
"""The path of the file, the place in it, and the number of the call."""

_ENTRY: Final = struct.Struct("=Qd")


def begin(mark: StartKey) -> None:
    """Note that the call of *mark* begins now; called in the process that runs it."""
    path, place, number = mark
    file = open_private(path, os.O_WRONLY, what="the file of starts")
    try:
        # The clock is that of the host: the same for all of its processes.
        os.pwrite(file, _ENTRY.pack(number, time.monotonic()), place * _ENTRY.size)
    finally:
        os.close(file)


class StartTimes:
    """A file of its own; a place in it may be used again, a number may not."""

    def __init__(self) -> None:
        self._file, self._path = tempfile.mkstemp(prefix="rxdispatch-", dir=temporary_folder())
        self._places: list[int] = []
        self._next_place = count()
        self._numbers = count(1)
        self.close = weakref.finalize(self, _remove, self._file, self._path, os.getpid())

    def mark(self) -> StartKey:
        """Return a new mark."""
        try:
            place = self._places.pop()
        except IndexError:
            place = next(self._next_place)
        return self._path, place, next(self._numbers)

    def release(self, mark: StartKey) -> None:
        """Make the place of *mark* free for another call; called in any thread."""
        self._places.append(mark[1])

    def age(self, mark: StartKey) -> float | None:
        """Return how many seconds ago the call of *mark* began; None if it has not."""
        entry = os.pread(self._file, _ENTRY.size, mark[1] * _ENTRY.size)
        if len(entry) < _ENTRY.size:
            return None
        number, began = _ENTRY.unpack(entry)
        return time.monotonic() - began if number == mark[2] else None


def _remove(file: int, path: str, owner: int) -> None:
    if os.getpid() != owner:
        return  # a fork of ours, which has the file too
    os.close(file)
    with suppress(OSError):
        Path(path).unlink()

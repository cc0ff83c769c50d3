"""
``Watch``: what a process and all that descend from it take of CPU and memory, seen from outside.

For Linux: elsewhere there is neither the CPU clock of another process nor its share of memory.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import psutil

__all__ = ["WINDOW", "Watch", "cpu_seconds", "memory_mib", "tree"]

#: Seconds over which the use of CPU is averaged before the peak of it is taken.
WINDOW: Final = 0.1

# Programs and libraries are left out: who else on the machine has them open changes their share.
_SHARE: Final = re.compile(rb"^Pss_(?:Anon|Shmem): +(\d+) kB$", re.MULTILINE)


def tree(pid: int) -> list[int]:
    """Return that process and all that descend from it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process; 0.0 when it is gone."""
    # The kernel makes the number of this clock of the process id, see clock_getcpuclockid(3).
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)
    return 0.0


def memory_mib(pid: int) -> float:
    """
    Return what a process has of memory; 0.0 when it is gone.

    A page that *n* processes share counts for each of them as an *n*-th, so that the sum over a
    tree is what the tree takes.
    """
    # The file of a process that has ended is there until it is reaped, and cannot be read.
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
        return sum(int(kib) for kib in _SHARE.findall(text)) / 1024
    return 0.0


class Watch:
    """
    Follows the tree of a process.

    Args:
        root: Its process id.

    Attributes:
        cpu_peak: Percent of one core, the highest in any :data:`WINDOW` since :meth:`begin`.
        growth: MiB, the highest seen less what there was at first.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._pids = tree(root)
        self._first = self._memory()
        self.growth = 0.0
        self.begin()

    def find(self) -> None:
        """Learn which processes there are now, which takes milliseconds."""
        self._pids = tree(self._root)

    def begin(self) -> None:
        """Find the processes, and forget the peak of CPU."""
        self.find()
        self.cpu_peak = 0.0
        self._at, self._cpu = time.monotonic(), _cpu(self._pids)

    def look(self) -> None:
        """Read CPU and memory of the processes found."""
        now = time.monotonic()
        if now - self._at >= WINDOW:
            cpu = _cpu(self._pids)
            spent = sum(max(0.0, cpu[pid] - self._cpu.get(pid, 0.0)) for pid in cpu)
            self.cpu_peak = max(self.cpu_peak, 100 * spent / (now - self._at))
            self._at, self._cpu = now, cpu
        self.growth = max(self.growth, self._memory() - self._first)

    def _memory(self) -> float:
        return sum(memory_mib(pid) for pid in self._pids)


def _cpu(pids: Iterable[int]) -> dict[int, float]:
    return {pid: cpu_seconds(pid) for pid in pids}

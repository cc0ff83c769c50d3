"""
``Watch``: the CPU and memory of a process and its descendants, seen from outside.

Linux only: elsewhere a process can read neither the CPU clock of another nor its share of memory.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import psutil

import rxdispatch as rxd

__all__ = ["WINDOW", "Watch", "cpu_seconds", "memory_mib", "server_seconds", "tree"]

#: Seconds over which the use of CPU is averaged before its peak is taken.
WINDOW: Final = 0.1

# Without programs and libraries: their share depends on the other processes that map them.
_SHARE: Final = re.compile(rb"^Pss_(?:Anon|Shmem): +(\d+) kB$", re.MULTILINE)


def tree(pid: int) -> list[int]:
    """Return the ids of that process and of its descendants."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    return []


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of all threads of a process; 0.0 when it is gone."""
    # The kernel computes the number of this clock from the process id, see clock_getcpuclockid(3).
    with contextlib.suppress(OSError):
        return time.clock_gettime(~pid << 3 | 2)
    return 0.0


def memory_mib(pid: int) -> float:
    """
    Return the memory of a process in MiB; 0.0 when it is gone.

    If *n* processes share a page, each counts one *n*-th of it, so the sum over a tree of processes
    is the memory of the tree.
    """
    # The file of an ended process exists until the process is reaped, but cannot be read.
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_bytes()
        return sum(int(kib) for kib in _SHARE.findall(text)) / 1024
    return 0.0


class Watch:
    """
    The resource use of a process and its descendants.

    Args:
        root: Its process id.

    Attributes:
        cpu_peak: Percent of one core, the highest in any :data:`WINDOW` since :meth:`begin`.
        growth: MiB, the highest value seen minus the first.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._pids = tree(root)
        self._first = self._memory()
        self.growth = 0.0
        self.begin()

    def find(self) -> None:
        """List the processes again, which takes milliseconds."""
        self._pids = tree(self._root)

    def begin(self) -> None:
        """List the processes, and reset the peak of CPU."""
        self.find()
        self.cpu_peak = 0.0
        self._at, self._cpu = time.monotonic(), _cpu(self._pids)

    def look(self) -> None:
        """Read CPU and memory of the listed processes."""
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


async def server_seconds(hub: rxd.Hub) -> float:
    """Return the CPU seconds of the server's main thread so far."""
    redis: Any = hub.client.redis  # The types of redis-py's commands are partial.
    info = await redis.info("cpu")
    return float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])

"""
``OutboxClock``: for how long events have waited, whatever happens to the host's clock.

A device without a battery for its clock boots in the past and jumps forward once it has the time
from the network. Judged by that clock, all that waits would be decades old. So ages are measured
by a clock of the file's own, which only grows:

- while one process has the file, and from one process to the next of the same boot, by the host's
  steady clock, which nobody sets;
- across a boot, by the host's wall clock, if it was set at both ends, and never backwards.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["ClockRow", "OutboxClock", "boot_id", "steady"]

_SET: Final = 1_704_067_200.0
"""A wall clock that shows less, the start of 2024, was never set."""


class ClockRow(NamedTuple):
    """What is stored of the clock: all readings of one moment."""

    boot: str
    steady: float
    wall: float
    lived: float


def steady() -> float:
    """Return seconds of a clock that nobody sets, and that goes on while the host sleeps."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if kind is None else time.clock_gettime(kind)


def boot_id() -> str:
    """Return what names this boot of the host; an empty string where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, UnicodeError):
        return ""


class OutboxClock:
    """
    Tells seconds since the file was made, of which it knows.

    Args:
        steady: A clock that nobody sets.
        wall: The host's clock, in seconds since 1970.
        boot: Names this boot of the host.
    """

    def __init__(
        self,
        steady: Callable[[], float] = steady,
        wall: Callable[[], float] = time.time,
        boot: Callable[[], str] = boot_id,
    ) -> None:
        self._steady = steady
        self._wall = wall
        self._boot = boot()
        self._offset = -steady()

    def resume(self, row: ClockRow) -> None:
        """Go on from *row*."""
        steady = self._steady()
        if row.boot and row.boot == self._boot and steady >= row.steady:
            gap = steady - row.steady
        else:
            wall = self._wall()
            gap = max(0.0, wall - row.wall) if min(wall, row.wall) > _SET else 0.0
        self._offset = row.lived + gap - steady

    def now(self) -> float:
        """Return the time."""
        return self._steady() + self._offset

    def row(self) -> ClockRow:
        """Return what the file stores."""
        steady = self._steady()
        return ClockRow(self._boot, steady, self._wall(), steady + self._offset)

"""
``OutboxClock``: measures the age of events, whatever happens to the host's clock.

A device whose clock has no battery boots in the past and jumps forward once it gets the time from
the network. By that clock all waiting events would be decades old. So the file has a clock of its
own, which never goes back:

- within one boot, also from one process to the next, it follows the host's steady clock, which
  cannot be set;
- across a boot it follows the host's wall clock, if that was set both before and after.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["ClockRow", "OutboxClock", "boot_id", "steady"]

_SET: Final = 1_704_067_200.0
"""The start of 2024; a wall clock that shows less was never set."""


class ClockRow(NamedTuple):
    """The stored state of the clock: its readings at one moment."""

    boot: str
    steady: float
    wall: float
    lived: float


def steady() -> float:
    """Return seconds of a clock that cannot be set, and that runs while the host sleeps."""
    kind = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if kind is None else time.clock_gettime(kind)


def boot_id() -> str:
    """Return the id of this boot of the host; an empty string if it has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except (OSError, UnicodeError):
        return ""


class OutboxClock:
    """
    A clock that counts seconds since the file was made, without time that no clock measured.

    Args:
        steady: A clock that cannot be set.
        wall: The host's clock, in seconds since 1970.
        boot: Returns the id of this boot of the host.
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
        """Continue from the stored *row*."""
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
        """Return the state that the file stores."""
        steady = self._steady()
        return ClockRow(self._boot, steady, self._wall(), steady + self._offset)

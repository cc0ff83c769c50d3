"""The states of many marks at once, groups of states, and the ticks until a lease lapses."""

from __future__ import annotations

from typing import Final

from rxdispatch.boards.shm.storage import layout

__all__ = ["BEGUN", "UNDECIDED", "lapses", "states_of"]

BEGUN: Final = frozenset((layout.MOVED, layout.PENDING, layout.GONE, layout.DISCARD, layout.ABORT))
"""The states of cells with which a process has begun something."""
UNDECIDED: Final = frozenset((layout.FRESH, layout.FRESH_LATER))
"""The states of tasks that do not exist if STAGING is their number."""

_HALF: Final = 1 << (layout.LOW_BITS - 1)
_STATES: Final = bytes(top >> 4 for top in range(256))
"""The state of a mark, by the last byte of the mark, which has its highest bits."""


def states_of(raw: bytes) -> bytes:
    """Return the states of marks, one byte for each."""
    return raw[7::8].translate(_STATES)


def lapses(mark: int, tick: int) -> int:
    """Return the ticks until a lease lapses; 0 or less if it has lapsed."""
    left = ((mark & layout.LOWS) - tick) & layout.LOWS
    return left if left < _HALF else left - (1 << layout.LOW_BITS)

"""``QuickKinds``: which kinds of tasks lately ended soon after they were handed over."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final
from weakref import WeakKeyDictionary

from rxdispatch.claim import Change, Claim

__all__ = ["QuickKinds", "quick_kinds_of"]

ENDS: Final = 3
"""So many tasks of a kind must have ended in a row, each soon, before it counts as quick."""

_KINDS: Final = 1000

_WATCHED: Final = 10_000
"""The most claims to watch: those that downstream drops do not tell that they have ended."""


_known: WeakKeyDictionary[object, QuickKinds] = WeakKeyDictionary()


def quick_kinds_of(board: object, within: float, clock: Callable[[], float]) -> QuickKinds:
    """Return what is known about the kinds of *board*, for all its streams in this process."""
    known = _known.get(board)
    if known is None:
        known = _known[board] = QuickKinds(within, clock)
    return known


class QuickKinds:
    """
    Learns from claims how long tasks of each kind take.

    Args:
        within: Seconds in which a quick task ends.
        clock: The time in seconds.
    """

    def __init__(self, within: float, clock: Callable[[], float]) -> None:
        self._within = within
        self._clock = clock
        self._began: dict[int, float] = {}
        self._ends: dict[str, int] = {}

    def watch(self, claims: Iterable[Claim[Any]]) -> None:
        """Learn from *claims*, which begin now."""
        now = self._clock()
        if len(self._began) >= _WATCHED:
            self._began.clear()
        for claim in claims:
            self._began[claim.token] = now
            claim._watch(self)

    def quick(self, claims: Iterable[Claim[Any]]) -> bool:
        """Whether all of *claims* are of quick kinds."""
        ends = self._ends
        return all(ends.get(claim.task.kind, 0) >= ENDS for claim in claims)

    def claim_changed(self, claim: Claim[Any], change: Change) -> None:
        """Learn when *claim* has ended."""
        if change == "recalled":
            return
        began = self._began.pop(claim.token, None)
        if began is None:
            return
        kind, ends = claim.task.kind, self._ends
        if change == "settled" and self._clock() - began <= self._within:
            if len(ends) >= _KINDS and kind not in ends:
                ends.clear()
            ends[kind] = ends.get(kind, 0) + 1
        else:
            ends.pop(kind, None)

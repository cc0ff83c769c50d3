"""``Placements``: what this process placed lately, and what was refused it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["GENERATION", "PASS_OVER", "REFUSALS", "Placements", "Recent"]

GENERATION: Final = 0.5
"""Seconds; what happened is forgotten after one to two of these."""

REFUSALS: Final = 3
"""Refusals in a row after which a node is passed over (Nomad's rejection tracker)."""

PASS_OVER: Final = (0.1, 0.3)
"""Seconds for which it is, at least and at most; shorter than a generation."""

Recent = tuple[Mapping[str, int], Mapping[str, int]]


class Placements:
    """
    What this process knows before the registry tells: its own placements and refusals.

    Nodes are told apart by their ids. Entries live in two generations, a young and an old one;
    twice a second the old one is dropped whole. That takes no timer and no clean-up, keeps
    nothing of nodes that are gone, and bounds every mistake: a node whose heartbeat never
    changes is not thought loaded for ever (Ray #12711). Every call takes constant time.

    Args:
        clock: Seconds that never go backwards, such as ``loop.time``.
        rng: Where the jitter comes from; by default a source of its own.

    Example:
        >>> import time
        >>> placements = Placements(time.monotonic)
        >>> placements.placed("gpu-1")
        >>> placements.load("gpu-1")
        1
        >>> placements.heard("gpu-1")
        >>> placements.load("gpu-1")
        0
    """

    __slots__ = ("_clock", "_old", "_old_refusals", "_rng", "_until", "_young", "_young_refusals")

    def __init__(self, clock: Callable[[], float], rng: random.Random | None = None) -> None:
        self._clock = clock
        self._rng = rng or random.Random()
        self._until = clock() + GENERATION
        self._young: dict[str, int] = {}
        self._old: dict[str, int] = {}
        # How often in a row, and until when the node is passed over.
        self._young_refusals: dict[str, tuple[int, float]] = {}
        self._old_refusals: dict[str, tuple[int, float]] = {}

    def placed(self, node_id: str) -> None:
        """Count a job that is being given to a node, before anybody knows whether it takes it."""
        self._turn()
        self._young[node_id] = self._young.get(node_id, 0) + 1

    def unplaced(self, node_id: str) -> None:
        """Take back a placement, if it is still counted: the job has ended, or never came."""
        self._turn()
        for generation in (self._young, self._old):
            count = generation.get(node_id, 0)
            if count > 1:
                generation[node_id] = count - 1
                return
            if count:
                del generation[node_id]
                return

    def heard(self, node_id: str) -> None:
        """
        Forget the placements on a node: the registry has told how loaded it is.

        Refusals stay: a busy node is heard of all the time.
        """
        if self._young or self._old:
            self._young.pop(node_id, None)
            self._old.pop(node_id, None)

    def load(self, node_id: str) -> int:
        """Return how many jobs were placed on a node that the registry has not told of yet."""
        self._turn()
        return self._young.get(node_id, 0) + self._old.get(node_id, 0)

    def recent(self) -> Recent:
        """Return both generations of placements, whose sums are the loads; to be read at once."""
        self._turn()
        return self._young, self._old

    def refused(self, node_id: str) -> None:
        """Count that a node had no room after all; at the third time it is passed over."""
        now = self._turn()
        young, old = self._young_refusals, self._old_refusals
        count = (young.get(node_id) or old.get(node_id) or (0,))[0] + 1
        until = now + self._rng.uniform(*PASS_OVER) if count >= REFUSALS else now
        young[node_id] = (count, until)

    def accepted(self, node_id: str) -> None:
        """End a row of refusals: the node has taken a job."""
        if self._young_refusals or self._old_refusals:
            self._young_refusals.pop(node_id, None)
            self._old_refusals.pop(node_id, None)

    def rejecting(self, node_id: str) -> bool:
        """Return whether a node is to be passed over for now."""
        if not self._young_refusals and not self._old_refusals:
            return False
        now = self._turn()
        entry = self._young_refusals.get(node_id) or self._old_refusals.get(node_id)
        return entry is not None and now < entry[1]

    @property
    def refusals(self) -> bool:
        """Whether any node refused something lately; if not, none is rejecting."""
        return bool(self._young_refusals or self._old_refusals)

    def forget(self, node_id: str) -> None:
        """Forget all of a node that is gone."""
        self.heard(node_id)
        self.accepted(node_id)

    def _turn(self) -> float:
        """Let the generations follow the clock, and return what it says."""
        now = self._clock()
        if now >= self._until:
            # The steps keep to a grid, or an entry could get older than two of them.
            late = now >= self._until + GENERATION
            self._until = (now if late else self._until) + GENERATION
            self._old = {} if late else self._young
            self._old_refusals = {} if late else self._young_refusals
            self._young = {}
            self._young_refusals = {}
        return now

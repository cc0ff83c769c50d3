"""``Placements``: what this process has recently placed on nodes, and which nodes refused."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["GENERATION", "PASS_OVER", "REFUSALS", "Placements", "Recent"]

GENERATION: Final = 0.5
"""Seconds of a generation; an entry is forgotten after one to two generations."""

REFUSALS: Final = 3
"""Refusals in a row after which a node is passed over (Nomad's rejection tracker)."""

PASS_OVER: Final = (0.1, 0.3)
"""The least and the most seconds for which a node is passed over; less than a generation."""

Recent = tuple[Mapping[str, int], Mapping[str, int]]


class Placements:
    """
    The placements and refusals that this process knows of before the registry reports them.

    Entries are kept by node id, in two generations, a young and an old one; twice a second the old
    one is dropped as a whole. That takes no timer and no clean-up, keeps nothing of removed nodes,
    and bounds every mistake: a node whose reported load never changes does not count as loaded
    forever (Ray #12711). Every call takes constant time.

    Args:
        clock: Seconds that never go backwards, such as ``loop.time``.
        rng: The source of the jitter; by default one of its own.

    Example:
        >>> import time
        >>> placements = Placements(time.monotonic)
        >>> placements.placed("gpu-1")
        >>> placements.load("gpu-1")
        1
        >>> placements.reported("gpu-1")
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
        # By node: refusals in a row, and the time until which the node is passed over.
        self._young_refusals: dict[str, tuple[int, float]] = {}
        self._old_refusals: dict[str, tuple[int, float]] = {}

    def placed(self, node_id: str) -> None:
        """Count a job that is being placed on a node, before the node or the registry agrees."""
        self._turn()
        self._young[node_id] = self._young.get(node_id, 0) + 1

    def unplaced(self, node_id: str) -> None:
        """Take back a placement, if it still counts: the job has ended, or was never placed."""
        self._turn()
        for generation in (self._young, self._old):
            count = generation.get(node_id, 0)
            if count > 1:
                generation[node_id] = count - 1
                return
            if count:
                del generation[node_id]
                return

    def reported(self, node_id: str) -> None:
        """
        Forget the placements on a node, because the registry has reported its load.

        Refusals stay: the registry reports a busy node all the time.
        """
        if self._young or self._old:
            self._young.pop(node_id, None)
            self._old.pop(node_id, None)

    def load(self, node_id: str) -> int:
        """Return the number of jobs placed on a node that the registry has not yet reported."""
        self._turn()
        return self._young.get(node_id, 0) + self._old.get(node_id, 0)

    def recent(self) -> Recent:
        """Return both generations, whose sums are the loads; valid until the next call."""
        self._turn()
        return self._young, self._old

    def refused(self, node_id: str) -> None:
        """Count a refusal of a node; after the third in a row the node is passed over."""
        now = self._turn()
        young, old = self._young_refusals, self._old_refusals
        count = (young.get(node_id) or old.get(node_id) or (0,))[0] + 1
        until = now + self._rng.uniform(*PASS_OVER) if count >= REFUSALS else now
        young[node_id] = (count, until)

    def accepted(self, node_id: str) -> None:
        """Count a node's refusals in a row from 0 again, because it has accepted a job."""
        if self._young_refusals or self._old_refusals:
            self._young_refusals.pop(node_id, None)
            self._old_refusals.pop(node_id, None)

    def rejecting(self, node_id: str) -> bool:
        """Return whether a node is passed over now."""
        if not self._young_refusals and not self._old_refusals:
            return False
        now = self._turn()
        entry = self._young_refusals.get(node_id) or self._old_refusals.get(node_id)
        return entry is not None and now < entry[1]

    @property
    def refusals(self) -> bool:
        """Whether any node refused a job recently; if not, none is rejecting."""
        return bool(self._young_refusals or self._old_refusals)

    def forget(self, node_id: str) -> None:
        """Forget a node that was removed."""
        self.reported(node_id)
        self.accepted(node_id)

    def _turn(self) -> float:
        """Advance the generations to the present, and return the time."""
        now = self._clock()
        if now >= self._until:
            # Generations change at fixed intervals, or an entry could outlive two of them.
            late = now >= self._until + GENERATION
            self._until = (now if late else self._until) + GENERATION
            self._old = {} if late else self._young
            self._old_refusals = {} if late else self._young_refusals
            self._young = {}
            self._young_refusals = {}
        return now

"""``Observed``: a counter of the changes of a fleet."""

from __future__ import annotations

from collections import deque
from typing import Final

from msgspec.structs import replace

from rxdispatch.node import NodeChange

__all__ = ["Observed", "of_pool"]

_WINDOW: Final = 5.0


class Observed:
    """
    A counter of the changes of a fleet, and of their rate in the last seconds.

    Args:
        now: The time at which watching began, in seconds.
    """

    def __init__(self, now: float) -> None:
        self.changes = 0
        self._began = now
        self._recent: deque[list[float]] = deque()

    def record(self, change: NodeChange, now: float) -> None:
        """Record a change of a node."""
        if change.node is None:
            return
        self.changes += 1
        # One entry counts a tenth of a second: an entry for each change would mean thousands.
        if self._recent and now - self._recent[-1][0] < 0.1:
            self._recent[-1][1] += 1
        else:
            self._recent.append([now, 1.0])
            self._forget(now)

    def rate(self, now: float) -> float:
        """Return the changes per second, over the last five seconds."""
        self._forget(now)
        count = sum(count for _, count in self._recent)
        return count / min(_WINDOW, max(1.0, now - self._began))

    def _forget(self, now: float) -> None:
        while self._recent and now - self._recent[0][0] > _WINDOW:
            self._recent.popleft()


def of_pool(change: NodeChange, pool: str | None) -> NodeChange | None:
    """
    Return *change* as a change of one pool; None if it does not concern the pool.

    A node that moves into the pool counts as added, and a node that moves to another pool as
    removed. If *pool* is None or the change has no node, it is returned as it is.
    """
    node, previous = change.node, change.previous
    if pool is None or node is None:
        return change
    if node.pool == pool:
        if change.kind != "added" and previous is not None and previous.pool != pool:
            return replace(change, kind="added", previous=None)
        return change
    if previous is not None and previous.pool == pool:
        return replace(change, kind="removed", node=previous)
    return None

"""``TopView``: what there is to see of boards and a fleet, before it has a form."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

import attrs

from rxdispatch.boards.base import Board
from rxdispatch.node import Mode, NodeStatus
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.results import Counts

__all__ = ["BoardRow", "PoolRow", "TopView", "Watched", "pools_of"]

_WINDOW: Final = 5.0
"""Seconds over which a rate is told."""


@attrs.frozen
class BoardRow:
    """
    A board.

    Attributes:
        name: What it is called.
        counts: By mark.
        rate_in: Tasks a second that were added, None until that is known.
        rate_out: The same for those that were done.
        lag: Age of the oldest ready task in seconds.
    """

    name: str
    counts: Counts
    rate_in: float | None
    rate_out: float | None
    lag: float


@attrs.frozen
class PoolRow:
    """
    The nodes of a pool.

    Attributes:
        name: What it is called.
        statuses: How many nodes there are of each status.
        jobs: How many jobs they have.
        capacity: How many they could have if all were ready.
        room: How many more they take now.
    """

    name: str
    statuses: Mapping[NodeStatus, int]
    jobs: int
    capacity: int
    room: int


@attrs.frozen
class TopView:
    """
    Boards and fleet at one moment.

    Attributes:
        away: Whole seconds since the server last answered, None while it does.
        mode: Of the feed.
        boards: In the order given; as of when the server last answered.
        pools: By name.
    """

    away: int | None
    mode: Mode
    boards: tuple[BoardRow, ...]
    pools: tuple[PoolRow, ...]

    def document(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {
            "away": self.away,
            "mode": self.mode.value,
            "boards": [
                {
                    "name": row.name,
                    **attrs.asdict(row.counts),
                    "rate_in": row.rate_in,
                    "rate_out": row.rate_out,
                    "lag": row.lag,
                }
                for row in self.boards
            ],
            "pools": [
                {
                    "name": row.name,
                    "statuses": {status.value: many for status, many in row.statuses.items()},
                    "jobs": row.jobs,
                    "capacity": row.capacity,
                    "room": row.room,
                }
                for row in self.pools
            ],
        }


class Watched:
    """
    A board, and what it was lately.

    Args:
        board: The board.
    """

    def __init__(self, board: Board[Any]) -> None:
        self._board = board
        self._past: deque[tuple[float, int, int]] = deque()

    async def read(self, now: float) -> BoardRow:
        """
        Ask it.

        Args:
            now: Seconds, on any clock that goes on.

        Raises:
            StoreUnavailableError: If the server does not answer.
        """
        counts = await self._board.counts()
        lag = await self._board.lag()
        # Everything that was ever added has a mark or is done; but discarded dead letters.
        added = counts.scheduled + counts.ready + counts.claimed + counts.done + counts.dead
        past = self._past
        past.append((now, added, counts.done))
        while len(past) > 2 and past[1][0] <= now - _WINDOW:
            past.popleft()
        began, added_then, done_then = past[0]
        passed = now - began
        if passed <= 0:
            return BoardRow(self._board.name, counts, None, None, round(lag, 3))
        return BoardRow(
            self._board.name,
            counts,
            round(max(0, added - added_then) / passed, 1),
            round(max(0, counts.done - done_then) / passed, 1),
            round(lag, 3),
        )


def pools_of(feed: Feed) -> tuple[PoolRow, ...]:
    """Return the nodes that *feed* knows, by pool."""
    statuses: dict[str, Counter[NodeStatus]] = {}
    sums: dict[str, tuple[int, int, int]] = {}
    for node in feed.nodes():
        statuses.setdefault(node.pool, Counter())[node.status] += 1
        jobs, capacity, room = sums.get(node.pool, (0, 0, 0))
        sums[node.pool] = (jobs + node.current_jobs, capacity + node.capacity, room + node.room)
    return tuple(
        PoolRow(name, {status: statuses[name][status] for status in NodeStatus}, *sums[name])
        for name in sorted(statuses)
    )

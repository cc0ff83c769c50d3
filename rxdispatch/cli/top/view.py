"""``TopView``: the values of boards and a fleet that ``top`` shows."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Any, Final

import attrs

from rxdispatch.boards.base import Board
from rxdispatch.node import Mode, NodeStatus
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.results import Counts

__all__ = ["BoardRow", "PoolRow", "TopView", "WatchedBoard", "pools_of"]

_WINDOW: Final = 5.0
"""Seconds over which a rate is computed."""


@attrs.frozen
class BoardRow:
    """
    The values of a board.

    Attributes:
        name: Its name.
        counts: The number of tasks by mark.
        rate_in: Added tasks per second; None until known.
        rate_out: Done tasks per second; None until known.
        lag: The age of the oldest ready task in seconds.
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
        name: Its name.
        statuses: The number of nodes by status.
        jobs: How many jobs the nodes have.
        capacity: How many jobs the nodes could have if all were ready.
        room: How many more jobs the nodes take now.
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
        away: Whole seconds since the server last answered; None while it answers.
        mode: The mode of the feed.
        boards: The boards in the given order, as of the last answer.
        pools: The pools by name.
    """

    away: int | None
    mode: Mode
    boards: tuple[BoardRow, ...]
    pools: tuple[PoolRow, ...]

    def document(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
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


class WatchedBoard:
    """
    A board with its recent readings.

    Args:
        board: The board.
    """

    def __init__(self, board: Board[Any]) -> None:
        self._board = board
        self._past: deque[tuple[float, int, int]] = deque()

    async def read(self, now: float) -> BoardRow:
        """
        Read the board.

        Args:
            now: Seconds on a monotonic clock.

        Raises:
            StoreUnavailableError: If the server does not answer.
        """
        counts = await self._board.counts()
        lag = await self._board.lag()
        # The counts contain every task ever added, except discarded dead letters.
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
    """Return the nodes of *feed* by pool."""
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

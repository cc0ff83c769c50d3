"""``TopView``: the values of boards and a fleet that ``top`` shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs

from rxdispatch.node import Mode, NodeStatus
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.results import Counts

__all__ = ["BoardRow", "KindRow", "PoolRow", "TopView", "pools_of"]


@attrs.frozen
class KindRow:
    """
    The tasks of one kind on a board.

    Attributes:
        name: The kind.
        unfinished: How many are scheduled, ready or claimed.
        change: How many more are unfinished per second, below 0 if the number falls; None until
            known.
        paused: Whether the kind is paused.
    """

    name: str
    unfinished: int
    change: float | None
    paused: bool


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
        kinds: The kinds with the most unfinished tasks, the largest first.
        more_kinds: How many kinds that have unfinished tasks are not among them.
        more_unfinished: How many tasks of those other kinds are unfinished.
    """

    name: str
    counts: Counts
    rate_in: float | None
    rate_out: float | None
    lag: float
    kinds: tuple[KindRow, ...] = ()
    more_kinds: int = 0
    more_unfinished: int = 0


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
                    "kinds": [attrs.asdict(kind) for kind in row.kinds],
                    "more_kinds": row.more_kinds,
                    "more_unfinished": row.more_unfinished,
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

"""What is read of boards, feeds and meters, and what they must have for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import attrs
from reactivex import Observable

from rxdispatch.node import Mode, Node, NodeStatus
from rxdispatch.results import Counts, TaskEvent

__all__ = [
    "BoardReading",
    "FeedReading",
    "Reading",
    "WatchedBoard",
    "WatchedFeed",
    "read_board",
    "read_feed",
]


class Reading(Protocol):
    """What a meter showed; see ``rxdispatch.Measurement``."""

    @property
    def streams(self) -> int: ...  # noqa: D102 - those of a Measurement
    @property
    def entered(self) -> int: ...  # noqa: D102
    @property
    def left(self) -> int: ...  # noqa: D102
    @property
    def in_flight(self) -> int: ...  # noqa: D102
    @property
    def rate_in(self) -> float: ...  # noqa: D102
    @property
    def rate(self) -> float: ...  # noqa: D102
    @property
    def latency(self) -> Any: ...  # noqa: D102
    @property
    def completed(self) -> int: ...  # noqa: D102
    @property
    def errors(self) -> int: ...  # noqa: D102


class WatchedBoard(Protocol):
    """A board, as far as it is watched."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def events(self) -> Observable[TaskEvent]:
        """What happens to tasks."""
        ...

    @property
    def stats(self) -> Any:
        """What this handle has settled, and what was refused."""
        ...

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        ...

    async def lag(self) -> float:
        """Seconds since the oldest ready task took its place."""
        ...


class WatchedFeed(Protocol):
    """A feed, as far as it is watched."""

    @property
    def mode(self) -> Mode:
        """Where its knowledge comes from."""
        ...

    @property
    def stats(self) -> Any:
        """What it has counted."""
        ...

    def nodes(self, pool: str | None = None) -> Sequence[Node]:
        """Return the nodes it knows."""
        ...


@attrs.frozen(slots=True)
class BoardReading:
    """
    A board at one moment.

    Attributes:
        counts: By mark.
        lag: Seconds.
    """

    counts: Counts
    lag: float


@attrs.frozen(slots=True)
class FeedReading:
    """
    A feed at one moment.

    Attributes:
        statuses: How many nodes have each.
        stats: A ``FeedStats``.
    """

    statuses: Mapping[NodeStatus, int]
    stats: Any


async def read_board(board: WatchedBoard) -> BoardReading:
    """Ask a board; raises what it raises."""
    return BoardReading(await board.counts(), await board.lag())


def read_feed(feed: WatchedFeed) -> FeedReading:
    """Look at a feed, in its loop; asks nobody."""
    found = Counter(node.status for node in feed.nodes())
    statuses = {status: found[status] for status in NodeStatus}
    return FeedReading(statuses, feed.stats)

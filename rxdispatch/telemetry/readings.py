"""Readings: the values of a board or a feed at one moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import attrs

from rxdispatch.boards.base import Board
from rxdispatch.node import NodeStatus
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.nodes.feed.stats import FeedStats
from rxdispatch.results import Counts, KindState

__all__ = ["BoardReading", "FeedReading", "read_board", "read_feed"]


@attrs.frozen(slots=True)
class BoardReading:
    """
    A board at one moment.

    Attributes:
        counts: The number of tasks by mark.
        lag: The age of the oldest ready task, in seconds.
        kinds: The kinds that have unfinished tasks, those with the most tasks first.
    """

    counts: Counts
    lag: float
    kinds: Mapping[str, KindState]


@attrs.frozen(slots=True)
class FeedReading:
    """
    A feed at one moment.

    Attributes:
        statuses: The number of nodes by status.
        stats: The counters of the feed.
    """

    statuses: Mapping[NodeStatus, int]
    stats: FeedStats


async def read_board(board: Board[Any]) -> BoardReading:
    """Read a board; an error of the board is raised."""
    return BoardReading(await board.counts(), await board.lag(), await board.kinds())


def read_feed(feed: Feed) -> FeedReading:
    """Read a feed, on its loop and without a call to the server."""
    found = Counter(node.status for node in feed.nodes())
    statuses = {status: found[status] for status in NodeStatus}
    return FeedReading(statuses, feed.stats)

"""Metrics sources: a board, a feed or meters, each with its last reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from reactivex import abc

from rxdispatch.boards.base import Board
from rxdispatch.log import get_logger
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.operators.flow._meter import Measurement
from rxdispatch.telemetry.kind_counts import KindCounts
from rxdispatch.telemetry.readings import BoardReading, FeedReading, read_board, read_feed

if TYPE_CHECKING:
    from rxdispatch.telemetry.families import Families

__all__ = ["BoardSource", "FeedSource", "MeterSource", "MetricsSource"]

log = get_logger(__name__)


class MetricsSource:
    """
    One source of metrics; it logs one warning each time it becomes unreadable.

    Args:
        kind: ``"board"``, ``"feed"`` or ``"meters"``.
        name: The value of its label.
    """

    def __init__(self, kind: str, name: str) -> None:
        self._kind = kind
        self._name = name
        self._readable = True

    async def read(self) -> None:
        """Read the source now, and keep the reading."""
        try:
            await self._read()
        except Exception as error:
            self._forget()
            if self._readable:
                self._readable = False
                log.warning("metrics_unread", kind=self._kind, name=self._name, error=str(error))
        else:
            self._readable = True

    def fill(self, families: Families) -> None:
        """Add the last reading to *families*, in the thread of the scrape; calls no server."""
        raise NotImplementedError

    async def _read(self) -> None:
        raise NotImplementedError

    def _forget(self) -> None:
        """Drop the last reading."""
        raise NotImplementedError


class BoardSource(MetricsSource):
    """
    A watched board.

    Args:
        board: The board.
        kinds: How many kinds of tasks besides ``default`` have labels of their own.
    """

    def __init__(self, board: Board[Any], kinds: int) -> None:
        super().__init__("board", board.name)
        self._board = board
        self._reading: BoardReading | None = None
        self._kinds = KindCounts(board.name, kinds)

    def count_settled(self) -> abc.DisposableBase:
        """Count the claims that the handle settles, until the subscription is disposed."""
        return self._board._writer.settled_kinds.observable.subscribe(self._kinds.add_settled)

    def count_events(self) -> abc.DisposableBase:
        """Count the board's events, until the subscription is disposed."""
        self._kinds.expect_events()
        return self._board.events.subscribe(self._kinds.add_event)

    async def _read(self) -> None:
        reading = await read_board(self._board)
        self._kinds.read(reading.kinds)
        self._reading = reading

    def _forget(self) -> None:
        self._reading = None

    def fill(self, families: Families) -> None:
        """Add the board's samples."""
        families.board(self._name, self._reading, self._board.stats, self._kinds)


class FeedSource(MetricsSource):
    """A watched feed."""

    def __init__(self, feed: Feed, name: str) -> None:
        super().__init__("feed", name)
        self._feed = feed
        self._reading: FeedReading | None = None

    async def _read(self) -> None:
        self._reading = read_feed(self._feed)

    def _forget(self) -> None:
        self._reading = None

    def fill(self, families: Families) -> None:
        """Add the feed's samples."""
        if self._reading is not None:
            families.feed(self._name, self._reading, self._feed.mode)


class MeterSource(MetricsSource):
    """Watched meters, which a function returns by name."""

    def __init__(self, read: Callable[[], Mapping[str, Measurement]], name: str) -> None:
        super().__init__("meters", name)
        self._measurements = read
        self._readings: Mapping[str, Measurement] = {}

    async def _read(self) -> None:
        self._readings = dict(self._measurements())

    def _forget(self) -> None:
        self._readings = {}

    def fill(self, families: Families) -> None:
        """Add the samples of all meters."""
        for name, reading in self._readings.items():
            families.meter(name, reading)

"""Metrics sources: a board, a feed or meters, each with its last reading."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, get_args

from reactivex import abc

from rxdispatch.boards.base import Board
from rxdispatch.log import get_logger
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.operators.flow._meter import Measurement
from rxdispatch.results import EventKind, TaskEvent
from rxdispatch.telemetry.readings import BoardReading, FeedReading, read_board, read_feed

if TYPE_CHECKING:
    from rxdispatch.telemetry.families import Families

__all__ = ["BoardSource", "FeedSource", "MeterSource", "MetricsSource"]

log = get_logger(__name__)

KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)


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
    """A watched board."""

    def __init__(self, board: Board[Any]) -> None:
        super().__init__("board", board.name)
        self._board = board
        self._reading: BoardReading | None = None
        self._events: dict[EventKind, int] = {}

    def count_events(self) -> abc.DisposableBase:
        """Count the board's events by kind, until the subscription is disposed."""
        # All kinds from the start: a scrape in another thread must not see the dict grow.
        self._events = events = dict.fromkeys(KINDS, 0)

        def count(event: TaskEvent) -> None:
            events[event.kind] += 1

        return self._board.events.subscribe(count)

    async def _read(self) -> None:
        self._reading = await read_board(self._board)

    def _forget(self) -> None:
        self._reading = None

    def fill(self, families: Families) -> None:
        """Add the board's samples."""
        families.board(self._name, self._reading, self._board.stats, self._events)


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

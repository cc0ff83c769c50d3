"""``Metrics``: boards, feeds and meters for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, get_args

from reactivex import abc
from reactivex.disposable import CompositeDisposable

from rxdispatch.checks import key_name
from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.results import EventKind, TaskEvent
from rxdispatch.seconds import seconds
from rxdispatch.telemetry.extras import extra
from rxdispatch.telemetry.readings import (
    BoardReading,
    FeedReading,
    Reading,
    WatchedBoard,
    WatchedFeed,
    read_board,
    read_feed,
)

if TYPE_CHECKING:
    from datetime import timedelta

    from prometheus_client import CollectorRegistry

    from rxdispatch.telemetry.families import Families

__all__ = ["Metrics"]

log = get_logger(__name__)

KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)


class Metrics:
    """
    A Prometheus collector of boards, feeds and meters; an asynchronous context manager.

    While the block runs, everything that is watched is read every *interval* seconds, beside the
    work and never within it; a scrape, in whichever thread, gets what was read last. Serve the
    registry as you like, for instance with ``prometheus_client.start_http_server``.

    Args:
        registry: Where to register; Prometheus' own when None.
        interval: Seconds between two readings, more than 0.

    Raises:
        ConfigError: If prometheus-client is not installed, or an argument breaks its rule; on
            entry, if the registry has such a collector already.

    Example:
        >>> from prometheus_client import CollectorRegistry
        >>> from rxdispatch.boards.memory.board import MemoryBoard
        >>> from rxdispatch.task import Task
        >>> async def main() -> float | None:
        ...     registry = CollectorRegistry()
        ...     board = MemoryBoard("jobs")
        ...     await board.submit([Task("a"), Task("b")])
        ...     async with Metrics(registry) as metrics:
        ...         metrics.watch_board(board)
        ...         await metrics.refresh()
        ...         labels = {"board": "jobs", "mark": "ready"}
        ...         return registry.get_sample_value("rxdispatch_board_tasks", labels)
        >>> asyncio.run(main())
        2
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, *, interval: float | timedelta = 5.0
    ) -> None:
        with extra("metrics", "prometheus_client", "metrics"):
            # Here and not above: without the extra the rest of rxdispatch works.
            from prometheus_client import REGISTRY  # noqa: PLC0415

            from rxdispatch.telemetry.families import MetricsCollector  # noqa: PLC0415
        self._interval = seconds("interval", interval, zero=False)
        self._sources: dict[tuple[str, str], _Board | _Feed | _Meters] = {}
        self._registry: Any = REGISTRY if registry is None else registry
        if not callable(getattr(self._registry, "register", None)):
            raise ConfigError("registry must be a prometheus_client.CollectorRegistry", registry)
        self._collector = MetricsCollector(self._sources.values())
        self._subscriptions = CompositeDisposable()
        self._task: asyncio.Task[None] | None = None
        self._state = "new"

    def __repr__(self) -> str:
        return f"<Metrics {self._state} {len(self._sources)} watched>"

    def watch_board(self, board: WatchedBoard, *, events: bool = False) -> None:
        """
        Watch a board: tasks by mark, lag, events, and what this process settled.

        Args:
            board: The handle with which this process settles, if it does.
            events: Whether to count events by kind. Each then costs time, and on a server is sent
                to this process: where many processes watch one board, let one of them count.

        Raises:
            ConfigError: If it is no board, or one of that name is watched already.
        """
        _require("board", board, "name", "events", "stats", "counts", "lag")
        source = _Board(board)
        self._add("board", board.name, source)
        if events:
            self._subscriptions.add(source.listen())

    def watch_feed(self, feed: WatchedFeed, name: str = "fleet") -> None:
        """
        Watch a feed: nodes by status, mode, reads, gaps and the latency of the server.

        Args:
            feed: It must be open, and stay so while it is watched.
            name: The value of the label ``feed``.

        Raises:
            ConfigError: If it is no feed, or one of that name is watched already.
        """
        _require("feed", feed, "nodes", "mode", "modes")
        self._add("feed", key_name("name", name), _Feed(feed, name))

    def watch_meters(self, read: Callable[[], Mapping[str, Reading]], name: str = "") -> None:
        """
        Watch meters, those of ``measure(name)`` among them.

        Args:
            read: Returns what they show, by name: ``rxdispatch.measurements``, for instance.
            name: Must differ where this is called more than once; the meters' names too.

        Raises:
            ConfigError: If *read* is not callable, or such a name is watched already.
        """
        if not callable(read):
            raise ConfigError("read must be callable, as rxdispatch.measurements is", read)
        self._add("meters", name, _Meters(read, name))

    async def refresh(self) -> None:
        """Read everything now; what cannot be read is left out of the next scrape."""
        await asyncio.gather(*(source.read() for source in tuple(self._sources.values())))

    async def __aenter__(self) -> Self:
        """Register, and read everything once."""
        if self._state != "new":
            raise ConfigError("metrics must be entered once", self._state)
        try:
            self._registry.register(self._collector)
        except ValueError as error:
            raise ConfigError("registry must have one Metrics at a time") from error
        self._state = "open"
        try:
            await self.refresh()
            self._task = asyncio.get_running_loop().create_task(self._run())
        except BaseException:
            self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Unregister, and read no more."""
        self._close()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _close(self) -> None:
        self._state = "closed"
        self._subscriptions.dispose()
        if self._task is not None:
            self._task.cancel()
        self._registry.unregister(self._collector)

    def _add(self, kind: str, name: str, source: _Board | _Feed | _Meters) -> None:
        if self._state == "closed":
            raise ConfigError("metrics must be open", self._state)
        if (kind, name) in self._sources:
            raise ConfigError(f"{kind} must be watched once", name)
        self._sources[kind, name] = source

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.refresh()


def _require(what: str, value: Any, *names: str) -> None:
    if isinstance(value, type) or not all(hasattr(value, name) for name in names):
        raise ConfigError(f"{what} must be a {what} of rxdispatch", value)


class _Source:
    """Reads something; says once that it cannot, and once that it can again."""

    def __init__(self, kind: str, name: str) -> None:
        self._kind = kind
        self._name = name
        self._well = True

    async def read(self) -> None:
        try:
            await self._read()
        except Exception as error:
            self._unread()
            if self._well:
                self._well = False
                log.warning("metrics_unread", kind=self._kind, name=self._name, error=str(error))
        else:
            self._well = True

    async def _read(self) -> None:
        raise NotImplementedError

    def _unread(self) -> None:
        raise NotImplementedError


class _Board(_Source):
    def __init__(self, board: WatchedBoard) -> None:
        super().__init__("board", board.name)
        self._board = board
        self._reading: BoardReading | None = None
        # All of them from the start: a scrape in another thread must not see it grow.
        self._events: dict[EventKind, int] = {}

    def listen(self) -> abc.DisposableBase:
        self._events = events = dict.fromkeys(KINDS, 0)

        def count(event: TaskEvent) -> None:
            events[event.kind] += 1

        return self._board.events.subscribe(count)

    async def _read(self) -> None:
        self._reading = await read_board(self._board)

    def _unread(self) -> None:
        self._reading = None

    def fill(self, families: Families) -> None:
        families.board(self._name, self._reading, self._board.stats, self._events)


class _Feed(_Source):
    def __init__(self, feed: WatchedFeed, name: str) -> None:
        super().__init__("feed", name)
        self._feed = feed
        self._reading: FeedReading | None = None

    async def _read(self) -> None:
        self._reading = read_feed(self._feed)

    def _unread(self) -> None:
        self._reading = None

    def fill(self, families: Families) -> None:
        if self._reading is not None:
            families.feed(self._name, self._reading, self._feed.mode)


class _Meters(_Source):
    def __init__(self, read: Callable[[], Mapping[str, Reading]], name: str) -> None:
        super().__init__("meters", name)
        self._measurements = read
        self._readings: Mapping[str, Reading] = {}

    async def _read(self) -> None:
        self._readings = dict(self._measurements())

    def _unread(self) -> None:
        self._readings = {}

    def fill(self, families: Families) -> None:
        for name, reading in self._readings.items():
            families.meter(name, reading)

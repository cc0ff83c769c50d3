"""``Metrics``: a Prometheus collector of boards, feeds and meters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from reactivex.disposable import CompositeDisposable

from rxdispatch.boards.base import Board
from rxdispatch.checks import integer, key_name
from rxdispatch.errors import ConfigError
from rxdispatch.extras import extra
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.operators.flow._meter import Measurement
from rxdispatch.seconds import seconds
from rxdispatch.telemetry.sources import BoardSource, FeedSource, MeterSource, MetricsSource

if TYPE_CHECKING:
    from datetime import timedelta

    from prometheus_client import CollectorRegistry

__all__ = ["Metrics"]


class Metrics:
    """
    A Prometheus collector of boards, feeds and meters; an asynchronous context manager.

    While the block runs, a background task reads all sources every *interval* seconds. A scrape,
    in any thread, gets the last readings. Serve the registry as you like, for example with
    ``prometheus_client.start_http_server``.

    Args:
        registry: The registry to register with; the default registry of Prometheus when None.
        interval: Seconds between two readings, more than 0.

    Raises:
        ConfigError: If prometheus-client is not installed, or an argument breaks its rule; on
            entry, if the registry already has a ``Metrics``.

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
            # Imported here, so that the rest of rxdispatch works without the extra.
            from prometheus_client import REGISTRY  # noqa: PLC0415

            from rxdispatch.telemetry.collector import MetricsCollector  # noqa: PLC0415
        self._interval = seconds("interval", interval, zero=False)
        self._sources: dict[tuple[str, str], MetricsSource] = {}
        self._registry: Any = REGISTRY if registry is None else registry
        if not callable(getattr(self._registry, "register", None)):
            raise ConfigError("registry must be a prometheus_client.CollectorRegistry", registry)
        self._collector = MetricsCollector(self._sources.values())
        self._subscriptions = CompositeDisposable()
        self._task: asyncio.Task[None] | None = None
        self._state = "new"

    def __repr__(self) -> str:
        return f"<Metrics {self._state} {len(self._sources)} watched>"

    def watch_board(self, board: Board[Any], *, events: bool = False, kinds: int = 50) -> None:
        """
        Watch a board: tasks by mark and kind, lag, events, and the settlements of this process.

        Args:
            board: A handle on the board; if this process settles claims, the handle that it uses.
            events: Whether to count events by kind. Each event then costs time, and the server
                sends it to this process; if many processes watch one board, let one of them count.
            kinds: How many kinds of tasks have a label ``task_kind`` of their own, besides
                ``default``: the first ones that this process meets. The others share the label
                ``other``.

        Raises:
            ConfigError: If *board* is not a board, a board with that name is already watched, or
                *kinds* is not an int >= 0.
        """
        if not isinstance(board, Board):
            raise ConfigError("board must be a board of rxdispatch", board)
        source = BoardSource(board, integer("kinds", kinds, 0))
        self._add("board", board.name, source)
        self._subscriptions.add(source.count_settled())
        if events:
            self._subscriptions.add(source.count_events())

    def watch_feed(self, feed: Feed, name: str = "fleet") -> None:
        """
        Watch a feed: nodes by status, mode, reads, gaps and the latency of the server.

        Args:
            feed: An open feed; keep it open while it is watched.
            name: The value of the label ``feed``.

        Raises:
            ConfigError: If *feed* is not a feed, or a feed with that name is already watched.
        """
        if not isinstance(feed, Feed):
            raise ConfigError("feed must be a feed of rxdispatch", feed)
        self._add("feed", key_name("name", name), FeedSource(feed, name))

    def watch_meters(self, read: Callable[[], Mapping[str, Measurement]], name: str = "") -> None:
        """
        Watch meters, for example those of ``measure(name)``.

        Args:
            read: A function that returns measurements by name, as ``rxdispatch.measurements`` does.
            name: A different name for each call; the names of the meters must differ too.

        Raises:
            ConfigError: If *read* is not callable, or that name is already watched.
        """
        if not callable(read):
            raise ConfigError("read must be callable, as rxdispatch.measurements is", read)
        self._add("meters", name, MeterSource(read, name))

    async def refresh(self) -> None:
        """Read all sources now; a source that cannot be read is missing from the next scrape."""
        await asyncio.gather(*(source.read() for source in tuple(self._sources.values())))

    async def __aenter__(self) -> Self:
        """Register, and read all sources once."""
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
        """Unregister, and stop reading."""
        self._close()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _close(self) -> None:
        self._state = "closed"
        self._subscriptions.dispose()
        if self._task is not None:
            self._task.cancel()
        self._registry.unregister(self._collector)

    def _add(self, kind: str, name: str, source: MetricsSource) -> None:
        if self._state == "closed":
            raise ConfigError("metrics must be open", self._state)
        if (kind, name) in self._sources:
            raise ConfigError(f"{kind} must be watched once", name)
        self._sources[kind, name] = source

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self.refresh()

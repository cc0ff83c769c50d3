"""``WatchedHints``: warns when a stream of claims is made and never subscribed to."""

from __future__ import annotations

from weakref import finalize

from reactivex import Observable, abc

from rxdispatch.log import get_logger

__all__ = ["WatchedHints"]

log = get_logger(__name__)


class WatchedHints(Observable[None]):
    """
    A stream of hints that logs a warning if it is garbage-collected without a subscription.

    A stream of claims keeps its hints alive, and subscribes to them when it gets a subscriber. So
    if the hints are collected without a subscription, the stream was made and never run. Nothing is
    logged when the interpreter exits.

    Args:
        source: The hints to pass on.
        board: The name of the board.
        made_at: The file and line at which the stream was made.
    """

    def __init__(self, source: Observable[None], board: str, made_at: str) -> None:
        super().__init__()
        self._source = source
        self._unused = finalize(self, _tell, board, made_at)
        self._unused.atexit = False

    def _subscribe_core(
        self, observer: abc.ObserverBase[None], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        self._unused.detach()
        return self._source.subscribe(observer, scheduler=scheduler)


def _tell(board: str, made_at: str) -> None:
    log.warning("claims_never_subscribed", board=board, made_at=made_at)

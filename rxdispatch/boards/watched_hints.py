"""``WatchedHints``: warns when a stream of claims is made and never subscribed to."""

from __future__ import annotations

from weakref import finalize

from reactivex import Observable, abc

from rxdispatch.log import get_logger

__all__ = ["WatchedHints"]

log = get_logger(__name__)


class WatchedHints(Observable[None]):
    """
    Passes *source* on, and logs if it is garbage-collected without a subscription.

    A stream that is composed of it keeps it alive and subscribes to it. So if it is collected
    without a subscription, a whole stream was made and never run. At the end of the interpreter
    nothing is logged.

    Args:
        source: What to subscribe to.
        board: The name of the board.
        made_at: File and line at which the stream was made.
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

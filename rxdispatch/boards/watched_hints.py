"""``WatchedHints``: hints that say so when the claims made of them are never subscribed to."""

from __future__ import annotations

from weakref import finalize

from reactivex import Observable, abc

from rxdispatch.log import get_logger

__all__ = ["WatchedHints"]

log = get_logger(__name__)


class WatchedHints(Observable[None]):
    """
    Passes on *source*.

    What is composed of it keeps it alive and subscribes to it in turn. So where it is collected
    without a subscription, a whole stream was made and never run. At the end of the interpreter
    nothing is said.

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

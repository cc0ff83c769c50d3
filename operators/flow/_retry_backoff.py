"""The ``retry_backoff`` operator: subscribes again after an error, with growing waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable

from rxdispatch.backoff import Backoff
from rxdispatch.callables import plain_function
from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.observable import Stream
from rxdispatch.operators.flow._error_history import ErrorHistory
from rxdispatch.valve import Bypass

__all__ = ["RetryOn", "retry_backoff"]

T = TypeVar("T")

log = get_logger(__name__)

RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]

_DEFAULT = Backoff()


def retry_backoff(
    backoff: Backoff = _DEFAULT, *, retry_on: RetryOn = Exception
) -> Callable[[Observable[T]], Observable[T]]:
    """
    Subscribe to the source again when it fails, after ``backoff.delay(n)`` seconds.

    ::

        --1--#
             ..--1--2--|
        [ retry_backoff() ]
        --1-----1--2--|

    *n* counts failures in a row; an item ends the row. After ``backoff.attempts`` tries in a
    row, the first included, the last error is passed on; with ``attempts=None`` that never
    happens. The three errors before it are its context, without their tracebacks, whose frames
    would keep local variables alive. A ``CancelledError`` is never retried. Disposal during the
    wait ends it.

    ``KillSwitch.drain`` completes a stream that waits for its next try, if the switch has a gate
    above. From then on nothing is tried again: the next error completes the stream too. That
    error is logged as ``retry_abandoned``.

    Args:
        backoff: How long to wait and how often to try.
        retry_on: Which errors to try again after: a class, a tuple of classes, or a plain
            function of the error. Others are passed on at once. What the function raises ends
            the stream.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> import reactivex
        >>> from rxdispatch.streams import run
        >>> tries = iter([reactivex.throw(OSError("away")), reactivex.of("back")])
        >>> stream = reactivex.defer(lambda _: next(tries)).pipe(retry_backoff(Backoff(0.01)))
        >>> asyncio.run(run(stream))
        'back'
    """
    if not isinstance(backoff, Backoff):
        raise ConfigError("backoff must be a Backoff", backoff)
    wanted = _predicate(retry_on)

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(
            observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return _Retry(source, backoff, wanted, observer, scheduler).begin()

        return Stream(subscribe)

    return operator


def _predicate(retry_on: RetryOn) -> Callable[[BaseException], bool]:
    # Checked at run time: callers may ignore the annotation.
    given: Any = retry_on
    classes: list[Any] = [*given] if isinstance(given, tuple) else [given]
    if all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
        chosen: tuple[type[BaseException], ...] = tuple(classes)
        return lambda error: isinstance(error, chosen)
    if isinstance(given, (tuple, type)) or not callable(given):
        raise ConfigError("retry_on must be exception classes or a function", retry_on)
    return plain_function("retry_on", given)  # type: ignore[no-any-return]


class _Retry(Generic[T]):
    """One subscription of ``retry_backoff``."""

    def __init__(
        self,
        source: Observable[T],
        backoff: Backoff,
        wanted: Callable[[BaseException], bool],
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._backoff = backoff
        self._wanted = wanted
        self._observer = observer
        self._home = copy_context()
        self._current = SerialDisposable()
        self._failures = 0
        self._history = ErrorHistory()
        self._stopping = False
        # The error after which the next try waits.
        self._waits: Exception | None = None
        self._gate = Bypass(valve_of(scheduler), fail=self._end, stop=self._stop)
        self._scheduler = LoopScheduler(self._loop, valve=self._gate)

    def begin(self) -> abc.DisposableBase:
        self._try()
        return Disposable(self._dispose)

    def _try(self) -> None:
        self._waits = None
        # Set before subscribing: a source that fails at once replaces it with the wait.
        upstream = SingleAssignmentDisposable()
        self._current.disposable = upstream
        upstream.disposable = self._source.subscribe(
            self._on_next,
            self._on_error,
            self._on_completed,
            scheduler=self._scheduler,
        )

    def _on_next(self, item: T) -> None:
        if self._failures:
            self._failures = 0
            self._history.clear()
        self._observer.on_next(item)

    def _on_completed(self) -> None:
        try:
            self._observer.on_completed()
        finally:
            self._gate.dispose()

    def _on_error(self, error: Exception) -> None:
        self._history.add(error)
        self._failures += 1
        try:
            again = (
                self._backoff.goes_on(self._failures)
                and not isinstance(error, asyncio.CancelledError)
                and self._wanted(error)
            )
        except BaseException as worse:
            self._end(worse)
            return
        if not again:
            self._end(error)
        elif self._stopping:
            self._abandon(error)
        else:
            self._waits = error
            # Through the loop even without a delay, so that failures do not recurse.
            timer = self._loop.call_later(
                self._backoff.delay(self._failures), self._try, context=self._home.copy()
            )
            self._current.disposable = Disposable(timer.cancel)

    # ------------------------------------------------ the end

    def _stop(self) -> None:
        """Do not try again: complete now if a try is waiting, else at the next error."""
        self._stopping = True
        if self._waits is not None:
            self._abandon(self._waits)

    def _abandon(self, error: Exception) -> None:
        log.warning(
            "retry_abandoned", operator="retry_backoff", failures=self._failures, failure=error
        )
        self._forget()
        self._on_completed()

    def _end(self, error: BaseException) -> None:
        self._forget()
        try:
            self._observer.on_error(error)  # type: ignore[arg-type]
        finally:
            self._gate.dispose()

    def _dispose(self) -> None:
        self._forget()
        self._gate.dispose()

    def _forget(self) -> None:
        self._current.dispose()
        self._waits = None
        self._history.clear()

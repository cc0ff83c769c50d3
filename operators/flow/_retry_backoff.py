"""The ``retry_backoff`` operator: try again after an error, ever more slowly."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SerialDisposable, SingleAssignmentDisposable

from rxdispatch.backoff import Backoff
from rxdispatch.clock import LoopScheduler
from rxdispatch.errors import ConfigError

__all__ = ["RetryOn", "retry_backoff"]

T = TypeVar("T")

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

    *n* counts failures in a row; a value ends the row. After ``backoff.attempts`` tries in a
    row, the first included, the last error is passed on, with the ones before as its context.
    A ``CancelledError`` is never retried. Disposal during the wait ends it.

    Args:
        backoff: How long to wait and how often to try.
        retry_on: Which errors to try again after: a class, a tuple of classes, or a function of
            the error that says so. Others are passed on at once.

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

        return Observable(subscribe)

    return operator


def _predicate(retry_on: RetryOn) -> Callable[[BaseException], bool]:
    # Whatever is given, it is checked; its annotation promises nothing.
    given: Any = retry_on
    classes: list[Any] = [*given] if isinstance(given, tuple) else [given]
    if all(isinstance(one, type) and issubclass(one, BaseException) for one in classes):
        chosen: tuple[type[BaseException], ...] = tuple(classes)
        return lambda error: isinstance(error, chosen)
    if isinstance(given, (tuple, type)) or not callable(given):
        raise ConfigError("retry_on must be exception classes or a function", retry_on)
    return given  # type: ignore[no-any-return]


class _Retry(Generic[T]):
    """One subscription."""

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
        self._scheduler = scheduler or LoopScheduler(self._loop)
        self._home = copy_context()
        self._current = SerialDisposable()
        self._failures = 0
        self._previous: Exception | None = None

    def begin(self) -> abc.DisposableBase:
        self._try()
        return self._current

    def _try(self) -> None:
        # Put in place before subscribing: a source that fails at once sets the wait over it.
        upstream = SingleAssignmentDisposable()
        self._current.disposable = upstream
        upstream.disposable = self._source.subscribe(
            self._on_next,
            self._on_error,
            self._observer.on_completed,
            scheduler=self._scheduler,
        )

    def _on_next(self, item: T) -> None:
        self._failures = 0
        self._previous = None
        self._observer.on_next(item)

    def _on_error(self, error: Exception) -> None:
        _chain(error, self._previous)
        self._failures += 1
        try:
            again = (
                self._failures < self._backoff.attempts
                and not isinstance(error, asyncio.CancelledError)
                and self._wanted(error)
            )
        except Exception as worse:
            self._observer.on_error(worse)
            return
        if not again:
            self._observer.on_error(error)
            return
        self._previous = error
        # Through the loop also when there is no delay, so that no failure recurses.
        timer = self._loop.call_later(
            self._backoff.delay(self._failures), self._try, context=self._home.copy()
        )
        self._current.disposable = Disposable(timer.cancel)


def _chain(error: BaseException, previous: BaseException | None) -> None:
    """Make *previous* the context of *error*, unless it has one or they are one chain."""
    if previous is None or error.__context__ is not None or error.__cause__ is not None:
        return
    link: BaseException | None = previous
    while link is not None:
        if link is error:
            return
        link = link.__cause__ or link.__context__
    error.__context__ = previous

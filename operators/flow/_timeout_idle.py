"""The ``timeout_idle`` operator: an error when no item comes for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.errors import ItemTimeoutError
from rxdispatch.observable import Stream
from rxdispatch.seconds import seconds as duration

__all__ = ["timeout_idle"]

T = TypeVar("T")


def timeout_idle(seconds: float | timedelta) -> Callable[[Observable[T]], Observable[T]]:
    """
    End with ``ItemTimeoutError`` when no item comes for *seconds*.

    ::

        --1--2--3---------------
        [  timeout_idle(5s)    ]
        --1--2--3-----#

    The first gap begins with the subscription. While the consumer below has no room, no item can
    come, so this time does not count. Each time the consumer makes room, a new gap begins.

    Args:
        seconds: The longest gap.

    Raises:
        ConfigError: If *seconds* is not a finite number of seconds > 0.

    Example:
        >>> import reactivex
        >>> from rxdispatch.streams import run
        >>> asyncio.run(run(reactivex.never().pipe(timeout_idle(0.01))))
        Traceback (most recent call last):
        rxdispatch.errors.ItemTimeoutError: the next item must be done within 0.01 s
    """
    span = duration("seconds", seconds, zero=False)

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(
            observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return _IdleTimeout(span, observer).connect(source, scheduler)

        return Stream(subscribe)

    return operator


class _IdleTimeout(Generic[T]):
    """
    One subscription of ``timeout_idle``.

    An item only stores the time at which it came. One timer checks that time when the longest gap
    could be over, and is set again for the next such moment if it is not.
    """

    def __init__(self, span: float, observer: abc.ObserverBase[T]) -> None:
        self._loop = asyncio.get_running_loop()
        self._span = span
        self._observer = observer
        self._last = self._loop.time()
        self._source = SingleAssignmentDisposable()

    def connect(
        self, source: Observable[T], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        self._valve = valve_of(scheduler)
        self._link = None if self._valve is None else self._valve.listen(self._begin)
        self._set_timer(self._last + self._span)
        self._source.disposable = source.subscribe(
            self._on_next,
            self._on_error,
            self._on_completed,
            scheduler=scheduler or LoopScheduler(self._loop),
        )
        return Disposable(self._end)

    def _begin(self) -> None:
        self._last = self._loop.time()

    def _on_next(self, item: T) -> None:
        self._last = self._loop.time()
        self._observer.on_next(item)

    def _on_error(self, error: Exception) -> None:
        self._end()
        self._observer.on_error(error)

    def _on_completed(self) -> None:
        self._end()
        self._observer.on_completed()

    def _set_timer(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._on_timer, when)

    def _on_timer(self, when: float) -> None:
        now = max(when, self._loop.time())
        if self._valve is not None and self._valve.room() <= 0:
            self._last = now
        due = self._last + self._span
        if due > now:
            self._set_timer(due)
        else:
            self._on_error(ItemTimeoutError(self._span))

    def _end(self) -> None:
        self._timer.cancel()
        if self._link is not None:
            self._link.dispose()
        self._source.dispose()

"""The ``deadline`` operator: an error when the stream as a whole takes too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.clock import LoopScheduler
from rxdispatch.errors import ItemTimeoutError
from rxdispatch.observable import Stream
from rxdispatch.seconds import seconds as duration

__all__ = ["deadline"]

T = TypeVar("T")


def deadline(seconds: float | timedelta) -> Callable[[Observable[T]], Observable[T]]:
    """
    End with ``ItemTimeoutError`` when the stream has not ended *seconds* after subscription.

    ::

        --1--2--3--4--5--6-----
        [    deadline(12s)    ]
        --1--2--3--4#

    Args:
        seconds: Counted from the subscription; time in which the consumer is busy counts too.

    Raises:
        ConfigError: If *seconds* is not a finite number of seconds > 0.

    Example:
        >>> import reactivex
        >>> from rxdispatch.streams import run
        >>> asyncio.run(run(reactivex.never().pipe(deadline(0.01))))
        Traceback (most recent call last):
        rxdispatch.errors.ItemTimeoutError: the stream must be done within 0.01 s
    """
    span = duration("seconds", seconds, zero=False)

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(
            observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            loop = asyncio.get_running_loop()
            upstream = SingleAssignmentDisposable()

            def expire() -> None:
                upstream.dispose()
                observer.on_error(ItemTimeoutError(span, name="the stream"))

            timer = loop.call_later(span, expire)

            def on_error(error: Exception) -> None:
                timer.cancel()
                observer.on_error(error)

            def on_completed() -> None:
                timer.cancel()
                observer.on_completed()

            def dispose() -> None:
                timer.cancel()
                upstream.dispose()

            upstream.disposable = source.subscribe(
                observer.on_next, on_error, on_completed, scheduler=scheduler or LoopScheduler(loop)
            )
            return Disposable(dispose)

        return Stream(subscribe)

    return operator

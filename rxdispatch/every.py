"""``every``: a stream that calls a function periodically and emits its results."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import reactivex
from reactivex import Observable
from reactivex import operators as rx

from rxdispatch.clock import LoopScheduler
from rxdispatch.seconds import seconds

__all__ = ["every"]

T = TypeVar("T")


def every(
    period: float | timedelta, read: Callable[[], T], until: Observable[Any] | None = None
) -> Observable[T]:
    """
    Emit the result of *read* at once, and then every *period* seconds.

    Args:
        period: Seconds, more than 0.
        read: A function that is called without arguments, only while the stream has a subscriber.
        until: When this stream emits, *read* is called once more, and the result stream completes.

    Raises:
        ConfigError: If *period* is not a finite number of seconds > 0.
    """
    span = seconds("period", period, zero=False)

    def start(_: Any) -> Observable[Any]:
        clock = LoopScheduler(asyncio.get_running_loop())
        return reactivex.timer(0.0, span, scheduler=clock)

    ticks: Observable[Any] = reactivex.defer(start)
    if until is not None:
        ticks = ticks.pipe(rx.take_until(until), rx.concat(reactivex.of(None)))
    return ticks.pipe(rx.map(lambda _: read()))

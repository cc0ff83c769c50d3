"""``gated``: an operator from a class, one object of it for each subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxdispatch.clock import LoopScheduler
from rxdispatch.observable import Stream
from rxdispatch.valve import Gate

__all__ = ["Part", "gated"]

S_contra = TypeVar("S_contra", contravariant=True)
S = TypeVar("S")
R = TypeVar("R")


class Part(Protocol[S_contra]):
    """One subscription of an operator that bounds what it holds."""

    @property
    def gate(self) -> Gate:
        """Its valve."""
        ...

    def on_next(self, item: S_contra, /) -> None:
        """Take an item."""
        ...

    def on_error(self, error: Exception, /) -> None:
        """Take note that the source has failed."""
        ...

    def on_completed(self) -> None:
        """Take note that the source has no more."""
        ...

    def dispose(self) -> None:
        """End without a word."""
        ...


Make = Callable[[abc.ObserverBase[R], abc.SchedulerBase | None], Part[S]]


def gated(make: Make[R, S]) -> Callable[[Observable[S]], Observable[R]]:
    """
    Return the operator whose subscriptions *make* makes, each upon its observer and scheduler.

    The source is subscribed to with the valve of the part, which is disposed after it.
    """

    def operator(source: Observable[S]) -> Observable[R]:
        def subscribe(
            observer: abc.ObserverBase[R], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            part: Part[Any] = make(observer, scheduler)
            subscription = source.subscribe(
                part.on_next,
                part.on_error,
                part.on_completed,
                scheduler=LoopScheduler(asyncio.get_running_loop(), valve=part.gate),
            )
            return CompositeDisposable(subscription, Disposable(part.dispose))

        return Stream(subscribe)

    return operator

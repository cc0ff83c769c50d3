"""A source that can wait, and a subscriber that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex import operators as rx
from reactivex.disposable import Disposable

from rxdispatch.clock import valve_of
from rxdispatch.streams import run

T = TypeVar("T")


class Log(abc.ObserverBase[Any]):
    """A subscriber that keeps what it gets, with the time; "|" is the completion."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.got: list[Any] = []

    def on_next(self, value: Any) -> None:
        """Keep an item."""
        self.got.append((self.loop.time(), value))

    def on_error(self, error: Exception) -> None:
        """Keep the error."""
        self.got.append((self.loop.time(), error))

    def on_completed(self) -> None:
        """Keep the completion."""
        self.got.append((self.loop.time(), "|"))

    @property
    def items(self) -> list[Any]:
        """What it got, without the times."""
        return [item for _, item in self.got]


def to_list(stream: Observable[Any]) -> Coroutine[Any, Any, Any]:
    """Run *stream* to its end and return its items."""
    return run(stream.pipe(rx.to_list()))


class Paced(Generic[T]):
    """Emits the items of an iterable as there is room, and counts what it emitted."""

    def __init__(self, items: Iterable[T]) -> None:
        self.items = items
        self.sent = 0
        self.disposed = 0
        self.most_room = 0

    def stream(self) -> Observable[T]:
        """Return the source as a stream."""

        def subscribe(
            observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return _Flow(self, iter(self.items), observer).begin(scheduler)

        return Observable(subscribe)


class _Flow(Generic[T]):
    def __init__(self, paced: Paced[T], items: Iterator[T], observer: abc.ObserverBase[T]) -> None:
        self.paced = paced
        self.items = items
        self.observer = observer
        self.busy = self.again = self.ended = False

    def begin(self, scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        self.valve = valve_of(scheduler)
        link = None if self.valve is None else self.valve.listen(self.emit)
        self.emit()

        def dispose() -> None:
            self.ended = True
            self.paced.disposed += 1
            if link is not None:
                link.dispose()

        return Disposable(dispose)

    def emit(self) -> None:
        self.again = True
        if self.busy:
            return
        self.busy = True
        while self.again and not self.ended:
            self.again = False
            while not self.ended and (self.valve is None or self.valve.room() > 0):
                if self.valve is not None:
                    self.paced.most_room = max(self.paced.most_room, self.valve.room())
                try:
                    item = next(self.items)
                except StopIteration:
                    self.ended = True
                    self.observer.on_completed()
                    break
                self.paced.sent += 1
                self.observer.on_next(item)
        self.busy = False

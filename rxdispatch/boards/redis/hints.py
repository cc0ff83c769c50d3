"""Reads the messages of the hints channel, and spreads the claims of many idle workers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxdispatch.boards.engine import Signal

__all__ = ["SPACING", "read_hints"]

FIRST: Final = 4
"""Listeners that claim at once for each task; of four, at least one is almost always idle."""

SPACING: Final = 0.0005
"""Seconds between the claims of the other listeners, so that the server can keep up."""


def read_hints() -> Callable[[Observable[bytes | None]], Observable[Signal]]:
    """
    Turn messages into signals; foreign messages are ignored.

    ``r``: something is ready. ``r3/200``: three tasks are ready, and 200 workers listen. If all of
    them claimed at once, the server would spend nearly all of its time on claims that find nothing.
    So each claims at once with a probability that makes it a few per task, and else later, spread
    so that one claims every half millisecond, unless it hears before that nothing is left (``e``).
    ``j``: the board is joined. None: messages may have been missed.
    """

    def operator(source: Observable[bytes | None]) -> Observable[Signal]:
        def subscribe(
            observer: abc.ObserverBase[Signal], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            turn = _Turn(observer)
            reading = source.subscribe(
                turn.on_next, observer.on_error, observer.on_completed, scheduler=scheduler
            )
            return CompositeDisposable(reading, Disposable(turn.forget))

        return Observable(subscribe)

    return operator


class _Turn:
    """One listener, and the timer until its turn."""

    def __init__(self, observer: abc.ObserverBase[Signal]) -> None:
        self._observer = observer
        self._timer: asyncio.TimerHandle | None = None

    def on_next(self, message: bytes | None) -> None:
        """Act on a message."""
        if message is None:
            self.forget()
            self._observer.on_next("reconnected")
        elif message == b"j":
            self._observer.on_next("joined")
        elif message == b"e":
            self.forget()
        elif message[:1] == b"r":
            delay = _delay(message)
            if delay is not None:
                self.forget()
                if delay:
                    loop = asyncio.get_running_loop()
                    self._timer = loop.call_later(delay, self._ready)
                else:
                    self._ready()

    def forget(self) -> None:
        """Give up its turn."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ready(self) -> None:
        self._timer = None
        self._observer.on_next("ready")


def _delay(message: bytes) -> float | None:
    """Return the seconds until a listener claims; None if the message is foreign."""
    if message == b"r":
        return 0.0
    tasks, _, listeners = message[1:].partition(b"/")
    if not (tasks.isdigit() and listeners.isdigit() and len(message) < 40):
        return None
    place = random.random() * int(listeners)
    return 0.0 if place < FIRST * int(tasks) else place * SPACING

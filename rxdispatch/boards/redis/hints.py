"""Turns the messages of a board's hints channel into signals, and makes idle workers take turns."""

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
"""How many listeners claim at once for each task; almost always, one of four is idle."""

SPACING: Final = 0.0005
"""Seconds between the claims of the other listeners, on average, so that the server keeps up."""


def read_hints() -> Callable[[Observable[bytes | None]], Observable[Signal]]:
    """
    Return an operator that turns messages into signals and ignores messages in another form.

    The messages:

    - ``r``: something is ready.
    - ``r3/200``: three tasks are ready, and 200 workers listen.
    - ``e``: nothing is ready any more.
    - ``j``: nothing is scheduled, ready or claimed.
    - None: messages may have been missed.

    If 200 workers claimed at once for three tasks, nearly all of their claims would find nothing,
    and these would take nearly all of the server's time. So each worker draws a random number, by
    which about four workers per task claim at once. The others wait, so that one of them claims
    every half millisecond. A worker that receives ``e`` meanwhile does not claim.
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
    """One listener, with a timer that runs until its turn to claim."""

    def __init__(self, observer: abc.ObserverBase[Signal]) -> None:
        self._observer = observer
        self._timer: asyncio.TimerHandle | None = None

    def on_next(self, message: bytes | None) -> None:
        """Emit the signal of a message, or start or stop the timer."""
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
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ready(self) -> None:
        self._timer = None
        self._observer.on_next("ready")


def _delay(message: bytes) -> float | None:
    """Return the seconds until this listener claims; None if the message has another form."""
    if message == b"r":
        return 0.0
    tasks, _, listeners = message[1:].partition(b"/")
    if not (tasks.isdigit() and listeners.isdigit() and len(message) < 40):
        return None
    place = random.random() * int(listeners)
    return 0.0 if place < FIRST * int(tasks) else place * SPACING

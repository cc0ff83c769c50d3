"""``Home``: the event loop that an object belongs to."""

from __future__ import annotations

import asyncio
import os
from asyncio import events
from threading import get_ident
from typing import TypeVar

from reactivex import Observable, abc

from rxdispatch.errors import ConfigError
from rxdispatch.observable import Stream

__all__ = ["Home"]

T = TypeVar("T")

_running = events._get_running_loop


class Home:
    """
    The event loop that an object belongs to: the first that it is used in.

    What asyncio offers wakes nobody in another loop, and a connection that was opened in one loop
    breaks in another. So use from elsewhere is refused before it changes anything.

    Args:
        what: What the object is called in the error.
        moves: Whether it may go to another loop once its own is closed, and after a fork. What
            holds connections may not.

    Example:
        >>> home = Home("board 'jobs'")
        >>> async def use() -> None:
        ...     home.check()
        ...     await asyncio.to_thread(asyncio.run, elsewhere())
        >>> async def elsewhere() -> None:
        ...     home.check()
        >>> asyncio.run(use())
        Traceback (most recent call last):
        rxdispatch.errors.ConfigError: board 'jobs' must be used in the event loop ...
    """

    __slots__ = ("_loop", "_moves", "_process", "_thread", "_what")

    def __init__(self, what: str, *, moves: bool = False) -> None:
        self._what = what
        self._moves = moves
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = self._process = 0

    def check(self) -> None:
        """
        Refuse a caller that runs elsewhere; the first loop to call is the one.

        Raises:
            ConfigError: If the caller runs in another event loop, or in a thread without one.
        """
        if _running() is not self._loop:
            self._look(_running())

    def guard(self, source: Observable[T]) -> Observable[T]:
        """
        Return *source*, which then can be subscribed to in this loop only.

        Raises:
            ConfigError: When it is subscribed to elsewhere.
        """

        def subscribe(
            observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            self.check()
            return source.subscribe(observer, scheduler=scheduler)

        return Stream(subscribe)

    def _look(self, loop: asyncio.AbstractEventLoop | None) -> None:
        own = self._loop
        free = own is None or (self._moves and (own.is_closed() or self._process != os.getpid()))
        if free and loop is not None:
            self._loop, self._thread, self._process = loop, get_ident(), os.getpid()
        elif not free and (loop is not None or self._thread != get_ident()):
            raise ConfigError(
                f"{self._what} must be used in the event loop that it belongs to; in a thread, or"
                " in another loop, call asyncio.run_coroutine_threadsafe(coroutine, its_loop)"
            )

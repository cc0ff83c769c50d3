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
    The event loop that an object belongs to: the first in which it is used.

    asyncio's primitives cannot wake a task of another loop, and a connection of one loop breaks in
    another. So any use in another loop is refused before it changes anything.

    Args:
        what: The name of the object in errors.
        moves: Whether it may move to another loop once its own is closed, and after a fork.
            Objects with connections may not.

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
        Refuse a caller in another loop; the first call in a loop sets it.

        Raises:
            ConfigError: If the caller runs in another event loop, or in a thread without one.
        """
        if _running() is not self._loop:
            self._look(_running())

    def guard(self, source: Observable[T]) -> Observable[T]:
        """
        Return *source* as a stream that can be subscribed to in this loop only.

        Raises:
            ConfigError: When it is subscribed to in another loop.
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

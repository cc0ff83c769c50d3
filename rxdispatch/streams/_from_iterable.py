"""``from_iterable``: a stream of the items of an iterable, at the pace of demand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterable, Generator, Iterable, Iterator
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.clock import clock_of, valve_of
from rxdispatch.errors import ConfigError
from rxdispatch.listeners import LEAVING
from rxdispatch.log import get_logger
from rxdispatch.streams._single_use import stream_of
from rxdispatch.valve import bound_by

__all__ = ["from_iterable"]

T = TypeVar("T")

log = get_logger(__name__)

TURN = 64
"""The number of items after which other tasks get a turn of the loop."""

SPAN = 0.005
"""Seconds after which other tasks get a turn even earlier, if the iterable is slow."""


def from_iterable(iterable: Iterable[T]) -> Observable[T]:
    """
    Emit the items of an iterable while there is room downstream.

    ::

        [ from_iterable("abcd") ]   room for 2, then for 2 more
        --ab-----cd|

    It takes an item from the iterable only while the valve below has room. If there is no valve
    below, it emits all items, and gives other tasks a turn of the loop now and then. Nothing is
    emitted before the loop's next turn. ``reactivex.from_iterable`` ignores demand: it emits
    everything at once.

    The iterable runs on the loop's thread, and blocks the loop while it produces an item. Lists,
    generators that compute and ``csv.reader`` are fine. Code that waits for a network or a slow
    disk belongs in an async generator, with :func:`from_async_iterable`.

    Disposal closes a generator; an error of its ``close`` is logged as ``close_failed``. Other
    iterators, such as open files, belong to the caller.

    Args:
        iterable: The iterable. If it makes a new iterator each time, each subscription gets one. A
            generator, or any other iterator, serves one subscription; each later one gets a
            ``ConfigError``, because a half-read iterator would look like a short stream. To retry
            a generator, defer it: ``reactivex.defer(lambda _: from_iterable(read()))``.

    Raises:
        ConfigError: If *iterable* is not an iterable.

    An error of the iterable ends the stream, and so does an error that the subscriber raises.

    Example:
        >>> from reactivex import operators as rx
        >>> from rxdispatch.streams import run
        >>> asyncio.run(run(from_iterable(n * n for n in range(4)).pipe(rx.to_list())))
        [0, 1, 4, 9]
    """
    given: Any = iterable
    if isinstance(given, (Observable, AsyncIterable)) or not isinstance(given, Iterable):
        rule = "iterable must be an iterable; from_async_iterable takes async iterables"
        raise ConfigError(rule, given)

    def begin(
        iterator: Any, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        return _IterableSubscription(iterator, observer).begin(scheduler)

    return stream_of(iterable, iter, "an iterator", begin)


class _IterableSubscription(Generic[T]):
    """
    One subscription.

    INVARIANT. While there is room and the stream has not ended, ``_pull`` runs or is scheduled.
    """

    def __init__(self, iterator: Iterator[T], observer: abc.ObserverBase[T]) -> None:
        self._iterator = iterator
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._time = clock_of(self._loop)
        # All items are taken and emitted in one context, as in a task.
        self._home = copy_context()
        self._ended = self._pulling = self._scheduled = False

    def begin(self, scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        self._below = bound_by(valve_of(scheduler))
        self._link = None if self._below is None else self._below.listen(self._schedule)
        self._schedule()
        return Disposable(self._dispose)

    def _schedule(self) -> None:
        if not self._scheduled and not self._pulling and not self._ended:
            self._scheduled = True
            self._loop.call_soon(self._pull, context=self._home)

    def _pull(self) -> None:
        self._scheduled = False
        if self._ended:
            return
        self._pulling = True
        try:
            ended = self._emit_some()
        except LEAVING as error:
            self._end(error)
            raise
        except BaseException as error:
            self._end(error)
        else:
            if ended:
                self._end(None)
        finally:
            self._pulling = False
            if self._ended:
                self._close()
        if not self._ended and (self._below is None or self._below.room() > 0):
            self._schedule()

    def _emit_some(self) -> bool:
        """Emit items while there is room, but not for too long; True at the end of the iterable."""
        iterator, on_next, below = self._iterator, self._observer.on_next, self._below
        late = self._time() + SPAN
        room = 0
        for _ in range(TURN):
            # room() asks the whole chain of operators, so call it once for many items.
            if room <= 0:
                room = sys.maxsize if below is None else below.room()
                if room <= 0:
                    return False
            room -= 1
            try:
                item = next(iterator)
            except StopIteration:
                return True
            if self._ended:
                return False
            on_next(item)
            if self._ended or self._time() > late:
                return False
        return False

    def _end(self, error: BaseException | None) -> None:
        if self._ended:
            if error is not None and not isinstance(error, GeneratorExit):
                self._log(error)
            return
        self._ended = True
        self._unlink()
        if error is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(error)  # type: ignore[arg-type]

    def _dispose(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._unlink()
        # If the generator itself disposed this, it still runs; it is closed once it has yielded.
        if not self._pulling:
            self._close()

    def _unlink(self) -> None:
        if self._link is not None:
            self._link.dispose()

    def _close(self) -> None:
        iterator: Any = self._iterator
        if not isinstance(iterator, Generator):
            return
        try:
            iterator.close()
        except LEAVING:
            raise
        except BaseException as error:
            self._log(error)

    def _log(self, error: BaseException) -> None:
        log.warning("close_failed", source="from_iterable", failure=error)

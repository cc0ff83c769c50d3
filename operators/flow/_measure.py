"""The ``measure`` operator: rates, latency, items in flight and errors of a part of a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.errors import ConfigError
from rxdispatch.observable import Stream
from rxdispatch.operators.flow._meter import Meter, MeteredStream
from rxdispatch.operators.flow._meters import meter_of

__all__ = ["measure"]

Operator = Callable[[Observable[Any]], Observable[Any]]


def measure(name: str | Meter, *section: Operator) -> Callable[[Observable[Any]], Observable[Any]]:
    """
    Measure a *section* of a stream, given as its operators.

    ::

        --a--b--c-----------|
        [ measure("parse", map_async(parse)) ]   a took 2 s, b took 1 s
        ------A-B--C--------|

    Read the numbers at any time with ``rxdispatch.measurements()``, or from a ``Meter`` that you
    pass instead of a name: how many items went in and came out, how many are in flight, rates
    over the last seconds, latency with its percentiles, and how many streams failed. The numbers
    are summed over all subscriptions with that name, and stay when these have ended. If there are
    more than 1,000 names, the most recently used are kept.

    Without a section the items that pass this point are counted: their number, rate and errors.

    An item is followed from entry to exit by its ``contextvars``: through operators that keep
    them, as all operators of rxdispatch do, and RxPY's operators that emit within ``on_next``. An
    item that ``batch`` collects counts as left when it is collected, and a list has the latency
    of the item that filled it. An item that a section drops is no longer in flight.

    Args:
        name: The name in ``measurements()``; or a meter of your own.
        *section: The operators to measure, in order.

    Raises:
        ConfigError: If *name* is neither a name nor a meter, or an operator is not callable.

    Items, errors, completion, disposal and demand pass unchanged.

    Example:
        >>> import reactivex
        >>> from rxdispatch.operators.flow._map_async import map_async
        >>> from rxdispatch.streams import run
        >>> from rxdispatch.testing import run_virtual
        >>> async def parse(seconds: int) -> int:
        ...     await asyncio.sleep(seconds)
        ...     return seconds
        >>> meter = Meter("parse")
        >>> stream = reactivex.of(2, 4).pipe(measure(meter, map_async(parse)))
        >>> _ = run_virtual(run(stream))
        >>> seen = meter.read()
        >>> seen.entered, seen.left, seen.in_flight, seen.latency.mean
        (2, 2, 0, 3.0)
    """
    if not isinstance(name, Meter):
        meter_of(name)
    for operator_of in section:
        if not callable(operator_of):
            raise ConfigError("section must consist of operators", operator_of)

    def operator(source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            # Looked up each time: the meter of this name may have been forgotten.
            meter = name if isinstance(name, Meter) else meter_of(name)
            return _Measuring(meter, observer).connect(source, section, scheduler)

        return Stream(subscribe)

    return operator


class _Token:
    """
    An item in flight.

    The token lives in the context of its item. When nothing holds that context any more the item
    cannot come out: it has been dropped, or collected into another one.
    """

    __slots__ = ("outer", "section", "since")

    def __init__(self, section: MeteredStream, outer: _Token | None, since: float) -> None:
        self.section: MeteredStream | None = section
        self.outer = outer
        self.since = since
        section.live.add(id(self))

    def close(self) -> None:
        """Count the item as no longer in flight."""
        section, self.section = self.section, None
        if section is not None:
            section.live.discard(id(self))

    __del__ = close


_current: ContextVar[_Token | None] = ContextVar("rxdispatch_measure", default=None)


def _outer(section: MeteredStream) -> _Token | None:
    """Return the token of the measured section around *section*, if any."""
    outer = token = _current.get()
    inner: _Token | None = None
    while token is not None:
        if token.section is section:
            # A handler inside the section pushed the item: it is not part of the handler's item.
            outer, inner = token.outer, None
        elif token.section is not None:
            inner = token
        elif inner is None:
            outer = token.outer
        else:
            # Skip the token of an item that has left; otherwise the chain would grow without
            # limit where items lead to other items.
            inner.outer = token.outer
        token = token.outer
    return outer


class _Measuring:
    """One subscription of ``measure``."""

    def __init__(self, meter: Meter, observer: abc.ObserverBase[Any]) -> None:
        self._meter = meter
        self._observer = observer
        self._section = MeteredStream()
        self._time = asyncio.get_running_loop().time

    def connect(
        self,
        source: Observable[Any],
        section: tuple[Operator, ...],
        scheduler: abc.SchedulerBase | None,
    ) -> abc.DisposableBase:
        self._meter._begin(self._section, self._time)
        stream = self._entrance(source) if section else source
        try:
            for operator in section:
                stream = operator(stream)
        except BaseException:
            self._meter._end(self._section, failed=True)
            raise
        upstream = stream.subscribe(
            self._leave if section else self._pass,
            self._on_error,
            self._on_completed,
            scheduler=scheduler,
        )

        def dispose() -> None:
            self._meter._end(self._section)
            upstream.dispose()

        return Disposable(dispose)

    def _entrance(self, source: Observable[Any]) -> Observable[Any]:
        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def on_next(item: Any) -> None:
                # A context of its own, so that the next item does not see this token.
                copy_context().run(self._enter, observer, item)

            return source.subscribe(
                on_next, observer.on_error, observer.on_completed, scheduler=scheduler
            )

        return Stream(subscribe)

    def _enter(self, observer: abc.ObserverBase[Any], item: Any) -> None:
        now = self._time()
        _current.set(_Token(self._section, _outer(self._section), now))
        self._meter._enter(now)
        observer.on_next(item)

    def _leave(self, item: Any) -> None:
        now = self._time()
        token = _current.get()
        while token is not None and token.section is not self._section:
            token = token.outer
        self._meter._leave(now)
        if token is not None:
            token.close()
            self._meter._took(now - token.since)
            # What follows is not part of the section.
            _current.set(token.outer)
        self._observer.on_next(item)

    def _pass(self, item: Any) -> None:
        now = self._time()
        self._meter._enter(now)
        self._meter._leave(now)
        self._observer.on_next(item)

    def _on_error(self, error: Exception) -> None:
        self._meter._end(self._section, failed=True)
        self._observer.on_error(error)

    def _on_completed(self) -> None:
        self._meter._end(self._section, completed=True)
        self._observer.on_completed()

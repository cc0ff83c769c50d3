"""``cold``, ``hot`` and ``expect``: marble drawings of streams, on a virtual-time loop."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from itertools import groupby
from typing import Any

from reactivex import Observable, abc
from reactivex import operators as rx
from reactivex.disposable import Disposable
from reactivex.notification import Notification, OnError, OnNext
from reactivex.observable.marbles import parse
from reactivex.subject import Subject

from rxdispatch.seconds import seconds
from rxdispatch.testing._loop import VirtualTimeLoop
from rxdispatch.testing._probe import Probe

__all__ = ["cold", "expect", "hot"]

Messages = list[tuple[float, Notification[Any]]]
Values = Mapping[Any, Any]


def cold(
    marbles: str,
    values: Values | None = None,
    *,
    error: Exception | None = None,
    tick: float | timedelta = 1.0,
) -> Observable[Any]:
    """
    Return the stream of a marble drawing; each subscription starts it.

    The drawings are those of ``reactivex.testing.marbles``. Each character takes one tick: ``-`` is
    nothing, ``|`` the completion, and ``#`` an error. ``(a,b)`` are items at the same instant, but
    the group takes one tick per character. Spaces take no time. Any other text is an item: ``ab``
    is one item that takes two ticks. Text that looks like a number becomes a number.

    The stream ignores demand: items come at the drawn times, whether there is room or not.

    Args:
        marbles: The drawing.
        values: The values of the items, by their names in the drawing.
        error: The error for ``#``; by default ``Exception("error")``.
        tick: Seconds per character.

    Raises:
        ValueError: If the drawing goes on after the completion or the error.
        ConfigError: If *tick* is not a finite number of seconds > 0.

    Example:
        >>> from rxdispatch.operators.flow._map_async import map_async
        >>> from rxdispatch.testing import run_virtual
        >>> async def slow(item: str) -> str:
        ...     await asyncio.sleep(3)
        ...     return item.upper()
        >>> async def main() -> None:
        ...     stream = cold("--a-b-----|").pipe(map_async(slow))
        ...     await expect(stream, "-----A-B--|")
        >>> run_virtual(main())
    """
    messages = _parsed(marbles, values, error, tick)

    def subscribe(
        observer: abc.ObserverBase[Any], _: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        return _play(messages, observer)

    return Observable(subscribe)


def hot(
    marbles: str,
    values: Values | None = None,
    *,
    error: Exception | None = None,
    tick: float | timedelta = 1.0,
) -> Observable[Any]:
    """
    Return the stream of a marble drawing that starts now, with or without subscribers.

    Otherwise like :func:`cold`. Call it on a running loop.

    Example:
        >>> from rxdispatch.testing import run_virtual
        >>> async def main() -> None:
        ...     stream = hot("a-b-c|")
        ...     await asyncio.sleep(1)
        ...     await expect(stream, "-b-c|")
        >>> run_virtual(main())
    """
    subject: Subject[Any] = Subject()
    _play(_parsed(marbles, values, error, tick), subject)
    return subject.pipe(rx.as_observable())


async def expect(
    stream: Observable[Any],
    marbles: str,
    values: Values | None = None,
    *,
    error: Exception | type[Exception] | None = None,
    tick: float | timedelta = 1.0,
) -> None:
    """
    Subscribe to *stream* and check that it emits the drawn items at the drawn times.

    The subscription is disposed at the end of the drawing. It needs a ``VirtualTimeLoop``.

    Args:
        stream: The stream.
        marbles: The drawing, as for :func:`cold`.
        values: The expected values of the items, by their names in the drawing.
        error: The expected error for ``#``, or its class; by default any error.
        tick: Seconds per character.

    Raises:
        AssertionError: If the stream emits anything else, or at another time.
        RuntimeError: If the running loop is not on virtual time.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(loop, VirtualTimeLoop):
        raise RuntimeError("expect must run on a VirtualTimeLoop")
    wanted = _parsed(marbles, values, None, tick)
    span = seconds("tick", tick, zero=False)
    start = loop.time()
    probe = Probe().watch(stream)
    try:
        await asyncio.sleep(len(marbles.replace(" ", "")) * span)
        # The events of the last instant may take some turns of the loop.
        for _ in range(_TURNS):
            await asyncio.sleep(0)
    finally:
        probe.dispose()
    if not _matches(probe, start, wanted, error):
        got = [(when - start, repr(item)) for when, item in probe.events]
        if probe.ended_at is not None:
            end = "|" if probe.error is None else repr(probe.error)
            got.append((probe.ended_at - start, end))
        drawn = [(when, _named(message)) for when, message in wanted]
        raise AssertionError(f"expected {_listed(drawn)}\n     got {_listed(got)}")


_TURNS = 20


def _parsed(
    marbles: str, values: Values | None, error: Exception | None, tick: float | timedelta
) -> Messages:
    span = seconds("tick", tick, zero=False)
    found = parse(marbles, timespan=span, lookup=values, error=error, raise_stopped=True)
    return [(float(when), message) for when, message in found]  # type: ignore[arg-type]


def _play(messages: Messages, observer: abc.ObserverBase[Any]) -> abc.DisposableBase:
    loop = asyncio.get_running_loop()
    start = loop.time()

    def emit(now: list[Notification[Any]]) -> None:
        for message in now:
            message.accept(observer)

    # One timer per instant: timers of equal times may fire in any order.
    timers = [
        loop.call_at(start + when, emit, [message for _, message in together])
        for when, together in groupby(messages, key=lambda entry: entry[0])
    ]

    def dispose() -> None:
        for timer in timers:
            timer.cancel()

    return Disposable(dispose)


def _matches(
    probe: Probe, start: float, wanted: Messages, error: Exception | type[Exception] | None
) -> bool:
    items = [entry for entry in wanted if isinstance(entry[1], OnNext)]
    ends = [entry for entry in wanted if not isinstance(entry[1], OnNext)]
    if len(items) != len(probe.events) or len(ends) != probe.ends:
        return False
    for (when, message), (came, item) in zip(items, probe.events, strict=True):
        if not _near(when, came - start) or message.value != item:
            return False
    for when, message in ends:
        if not _near(when, (probe.ended_at or 0.0) - start):
            return False
        if isinstance(message, OnError) != (probe.error is not None):
            return False
    return probe.error is None or error is None or _is_like(probe.error, error)


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-6


def _is_like(got: Exception, wanted: Exception | type[Exception]) -> bool:
    if isinstance(wanted, type):
        return isinstance(got, wanted)
    return got is wanted or (type(got) is type(wanted) and got.args == wanted.args)


def _named(message: Notification[Any]) -> str:
    if isinstance(message, OnNext):
        return repr(message.value)
    return "#" if isinstance(message, OnError) else "|"


def _listed(events: list[tuple[float, str]]) -> str:
    return ", ".join(f"{what} at {when:g}" for when, what in events) or "nothing"

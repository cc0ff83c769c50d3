"""``KillSwitch``: ends streams from outside, gracefully or at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.clock import valve_of
from rxdispatch.errors import ConfigError, ItemTimeoutError
from rxdispatch.listeners import tell_each
from rxdispatch.observable import Stream
from rxdispatch.seconds import seconds
from rxdispatch.valve import Bypass, Gate

__all__ = ["KillSwitch"]

T = TypeVar("T")


class KillSwitch:
    """
    A switch that ends the streams that pass through its gates.

    Put ``switch.gate()`` into a pipe once, after the source that the switch stops; any number of
    pipes may share a switch. :meth:`drain` completes the streams at their gates: the operators
    below finish their work and flush their buffers. :meth:`abort` ends the streams with an error.

    A stream whose ``retry_backoff`` waits for its next attempt has no subscription at the gate. If
    it has passed the gate before, :meth:`drain` completes it at once, and nothing is retried from
    then on. A ``broadcast`` or ``share`` between the gate and the ``retry_backoff`` hides the
    latter from the switch, so put ``retry_backoff`` above them.

    A stream counts as ended when its lowest operator with a valve is done. That is ``run``, if you
    await the stream with it; otherwise the last ``map_async``, ``batch`` or the like. The switch
    does not wait for items that RxPY's ``delay`` or ``observe_on`` hold below that operator, nor
    for the second subscriber of a ``share``. Put ``repeat`` above the gate: below the gate it would
    start the stream again.

    Example:
        >>> import reactivex
        >>> from rxdispatch.clock import LoopScheduler
        >>> from rxdispatch.streams import run
        >>> async def main() -> tuple[bool, int | None]:
        ...     switch = KillSwitch()
        ...     ticks = reactivex.interval(
        ...         0.001, scheduler=LoopScheduler(asyncio.get_running_loop())
        ...     )
        ...     running = asyncio.create_task(run(ticks.pipe(switch.gate())))
        ...     await asyncio.sleep(0.02)
        ...     return await switch.drain(1.0), (await running) is not None
        >>> asyncio.run(main())
        (True, True)
    """

    def __init__(self) -> None:
        self._subscriptions: dict[_GatedSubscription, None] = {}
        # The lowest gate of each running stream, with the subscription to its end.
        self._open: dict[Gate, abc.DisposableBase] = {}
        # Operators below a gate that may be waiting to subscribe again.
        self._retries: dict[Bypass, abc.DisposableBase] = {}
        self._waiters: set[asyncio.Future[None]] = set()
        self._draining = False
        self._error: Exception | None = None

    def gate(self) -> Callable[[Observable[T]], Observable[T]]:
        """
        Return the operator at which this switch ends a stream.

        A subscription made after a drain completes at once; one made after an abort fails at once.
        """

        def operator(source: Observable[T]) -> Observable[T]:
            def subscribe(
                observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
            ) -> abc.DisposableBase:
                if self._error is not None:
                    observer.on_error(self._error)
                    return Disposable()
                if self._draining:
                    observer.on_completed()
                    return Disposable()
                return self._enter(source, observer, scheduler)

            return Stream(subscribe)

        return operator

    async def drain(self, timeout: float | timedelta | None = None) -> bool:
        """
        Stop the sources and wait until the streams have ended.

        You may call it again, even while it runs. If a call is cancelled, the streams still drain.

        Args:
            timeout: Seconds after which the remaining streams are aborted with
                ``ItemTimeoutError``: work is cancelled and claims are given back. None waits
                without a limit.

        Returns:
            True if all streams ended in time; False if they were aborted, by this call or before.

        Raises:
            ConfigError: If *timeout* is not a finite number of seconds >= 0.
        """
        limit = None if timeout is None else seconds("timeout", timeout)
        self._draining = True
        # An error of one subscriber must not keep the other streams from ending.
        tell_each("kill_switch", [subscription.complete for subscription in self._subscriptions])
        tell_each("kill_switch", [retry.stop for retry in self._retries])
        if self._running():
            ended = asyncio.get_running_loop().create_future()
            self._waiters.add(ended)
            try:
                await asyncio.wait({ended}, timeout=limit)
            finally:
                self._waiters.discard(ended)
        if self._running():
            self.abort(ItemTimeoutError(limit or 0.0, name="work in flight"))
        return self._error is None

    def abort(self, error: Exception) -> None:
        """
        End the streams with *error* now, and cancel their work.

        Raises:
            ConfigError: If *error* is not an exception.
        """
        if not isinstance(error, Exception):
            raise ConfigError("error must be an exception", error)
        if self._error is None:
            self._error = error
        tell_each(
            "kill_switch",
            [partial(subscription.fail, error) for subscription in self._subscriptions],
        )
        # A stream that has completed at its gate does not receive the error there. Its lowest
        # operator does, and disposes everything above it.
        tell_each("kill_switch", [partial(lowest.fail, error) for lowest in self._open])

    def _enter(
        self,
        source: Observable[T],
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> abc.DisposableBase:
        valve = valve_of(scheduler)
        if isinstance(valve, Gate):
            lowest = valve.lowest
            if lowest not in self._open and not lowest.closed:
                self._open[lowest] = lowest.when_closed(lambda: self._ended(lowest))
            for gate in valve.chain():
                if isinstance(gate, Bypass) and gate not in self._retries:
                    self._retries[gate] = gate.when_closed(partial(self._forget, gate))
        subscription = _GatedSubscription(self, observer)
        self._subscriptions[subscription] = None
        subscription.upstream.disposable = source.subscribe(
            observer.on_next, subscription.fail, subscription.complete, scheduler=scheduler
        )
        return Disposable(subscription.leave)

    def _running(self) -> bool:
        return bool(self._subscriptions or self._open)

    def _ended(self, lowest: Gate) -> None:
        del self._open[lowest]
        self._settle()

    def _forget(self, retry: Bypass) -> None:
        self._retries.pop(retry, None)

    def _left(self, subscription: _GatedSubscription) -> None:
        """Forget *subscription*, which has ended."""
        if subscription in self._subscriptions:
            del self._subscriptions[subscription]
            self._settle()

    def _settle(self) -> None:
        """Wake the callers that wait for the end, if everything has ended."""
        if not self._running():
            for ended in self._waiters:
                if not ended.done():
                    ended.set_result(None)


class _GatedSubscription:
    """A subscription that passes through a gate."""

    def __init__(self, switch: KillSwitch, observer: abc.ObserverBase[Any]) -> None:
        self._switch = switch
        self._observer = observer
        self.upstream = SingleAssignmentDisposable()

    def complete(self) -> None:
        # The source first: it then gives its items back instead of pushing them.
        self.upstream.dispose()
        try:
            self._observer.on_completed()
        finally:
            self._switch._left(self)

    def fail(self, error: Exception) -> None:
        self.upstream.dispose()
        try:
            self._observer.on_error(error)
        finally:
            self._switch._left(self)

    def leave(self) -> None:
        self.upstream.dispose()
        self._switch._left(self)

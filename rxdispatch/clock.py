"""``LoopScheduler``: an RxPY scheduler on the clock of an asyncio loop, which carries a valve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

from reactivex import abc, typing
from reactivex.disposable import Disposable, SingleAssignmentDisposable
from reactivex.scheduler import CurrentThreadScheduler
from reactivex.scheduler.eventloop import AsyncIOScheduler

from rxdispatch.protocols import Valve

__all__ = ["LoopScheduler", "clock_of", "lease_clock_of", "valve_of"]

_State = TypeVar("_State")

# One anchor for each loop, so that all schedulers on a loop agree on the time.
_anchors: WeakKeyDictionary[asyncio.AbstractEventLoop, datetime] = WeakKeyDictionary()


class LoopScheduler(AsyncIOScheduler):
    """
    An RxPY scheduler that runs on the loop's clock and carries its subscriber's valve.

    RxPY's own ``AsyncIOScheduler`` reads the wall clock but sets its timers on the loop's
    clock, so the two drift. Here ``now`` follows ``loop.time()``, which also makes it exact
    on a virtual-time loop. An undelayed :meth:`schedule` runs on the trampoline, as RxPY's
    default does: if it started a tick later, ``start_with``, ``retry`` and ``merge`` would lose
    the first item of a hot source.

    Args:
        loop: The loop to run on.
        valve: The valve that a source asks for room before it emits; None when nothing bounds it.

    Example:
        >>> import asyncio
        >>> async def main() -> float:
        ...     scheduler = LoopScheduler(asyncio.get_running_loop())
        ...     before = scheduler.now
        ...     await asyncio.sleep(0.01)
        ...     return (scheduler.now - before).total_seconds()
        >>> asyncio.run(main()) >= 0.009
        True
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, *, valve: Valve | None = None) -> None:
        super().__init__(loop)
        self.valve = valve
        anchor = _anchors.get(loop)
        if anchor is None:
            anchor = datetime.fromtimestamp(time.time() - loop.time(), tz=UTC)
            _anchors[loop] = anchor
        self._anchor = anchor

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop this scheduler runs on."""
        return self._loop

    @property
    def now(self) -> datetime:
        """The loop's time as an aware UTC datetime, exact to the microsecond."""
        # As a timedelta: a float of seconds since 1970 has lost the last microsecond.
        return self._anchor + timedelta(seconds=self._loop.time())

    def loop_time(self, when: datetime) -> float:
        """Return the time on the loop's clock, in seconds, at which ``now`` will be *when*."""
        return (when - self._anchor).total_seconds()

    def schedule(
        self, action: typing.ScheduledAction[_State], state: _State | None = None
    ) -> abc.DisposableBase:
        """Run *action* on this thread's trampoline, and pass it this scheduler."""

        def run(_: abc.SchedulerBase, state: _State | None = None) -> abc.DisposableBase | None:
            return action(self, state)

        return CurrentThreadScheduler.singleton().schedule(run, state)

    def schedule_relative(
        self,
        duetime: typing.RelativeTime,
        action: typing.ScheduledAction[_State],
        state: _State | None = None,
    ) -> abc.DisposableBase:
        """Run *action* after *duetime*, at the earliest in the loop's next turn."""
        # Not on the trampoline, even if it is due already: a periodic action that is late would
        # call itself forever, and the loop would never get another turn.
        inner = SingleAssignmentDisposable()

        def run() -> None:
            inner.disposable = self.invoke_action(action, state=state)

        seconds = self.to_seconds(duetime)
        handle = self._loop.call_later(seconds, run) if seconds > 0 else self._loop.call_soon(run)

        def dispose() -> None:
            handle.cancel()
            inner.dispose()

        return Disposable(dispose)


def clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """Return the clock of *loop*; for asyncio's own loops the function that ``loop.time`` calls."""
    plain = getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time
    return time.monotonic if plain else loop.time


def lease_clock_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """
    Return the clock that measures leases on *loop*, in seconds from an arbitrary start.

    While the host is suspended, the clock of asyncio's own loops stops, but the server's does not,
    so a lease may end. On Linux this returns a clock that also counts suspended time.
    """
    clock = clock_of(loop)
    if clock is time.monotonic and hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return clock


def valve_of(scheduler: abc.SchedulerBase | None) -> Valve | None:
    """Return the valve that *scheduler* carries, or None."""
    return scheduler.valve if isinstance(scheduler, LoopScheduler) else None

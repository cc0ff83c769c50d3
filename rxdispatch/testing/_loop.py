"""``VirtualTimeLoop``: an asyncio loop whose clock jumps to the next timer instead of waiting."""

from __future__ import annotations

import asyncio
import heapq
import selectors
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

from rxdispatch.seconds import seconds as duration

__all__ = ["VirtualTimeLoop", "run_virtual"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """
    An event loop on virtual time, for tests.

    ``time()`` starts at 0 and stands still while there is something to run; otherwise it jumps to
    the next timer. Hours of waiting take milliseconds, and the order of events is the same each
    time.

    Nothing outside the loop knows its clock. While calls of ``run_in_executor`` run, the loop
    waits in real time before it jumps. Sockets, subprocesses and threads that are started in other
    ways break virtual time: the clock jumps to the next timer while they still work. Without a
    timer the loop waits for them. If nothing at all could wake the loop, it raises an error instead
    of hanging.

    On a real machine callbacks take time, so a timer may run long after it is due, and other
    callbacks see the clock in between. *turn* reproduces that, in the same way each time: every
    turn of the loop that has something to run takes that many seconds.

    Args:
        turn: The seconds that a turn of the loop takes.

    Raises:
        ConfigError: If *turn* is not a finite number of seconds >= 0.
        RuntimeError: From the loop, when every task waits and nothing can wake the loop.

    Example:
        >>> loop = VirtualTimeLoop()
        >>> loop.run_until_complete(asyncio.sleep(3600))
        >>> loop.time()
        3600.0
        >>> loop.close()
    """

    def __init__(self, *, turn: float = 0.0) -> None:
        self._turn = 0.0
        self._now = 0.0
        self._whens: list[float] = []
        self._outside = 0
        super().__init__(_JumpingSelector(self._wait))
        try:
            self._turn = duration("turn", turn)
        except BaseException:
            self.close()
            raise

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """
        Advance the clock by *seconds* at once, as if the current callback had blocked the loop.

        Timers that are due by then run late, in the next turn of the loop.

        Raises:
            ConfigError: If *seconds* is not a finite number of seconds >= 0.
        """
        self._now += duration("seconds", seconds)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call *callback* at the virtual time *when*."""
        heapq.heappush(self._whens, when)
        return super().call_at(when, callback, *args, context=context)

    def run_in_executor(
        self,
        executor: Executor | None,
        func: Callable[[*Ts], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """Run *func* in a thread; until it returns, the clock does not jump."""
        future = super().run_in_executor(executor, func, *args)
        self._outside += 1
        future.add_done_callback(self._back)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for the threads of the default executor, in real time."""
        del timeout
        self._outside += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._outside -= 1

    def _back(self, _: asyncio.Future[Any]) -> None:
        self._outside -= 1

    def _wait(self, real: _Select, timeout: float | None, alone: bool) -> _Events:
        """Wait like a selector, but in virtual time instead of real time."""
        if timeout is None:
            if alone and not self._outside and threading.active_count() == 1:
                raise RuntimeError("something must be able to wake the loop: every task waits")
            return real(None)
        events = real(max(timeout, 0) if self._outside else 0)
        if timeout <= 0:
            self._now += self._turn
        elif not events:
            self._jump(self._now + timeout)
        return events

    def _jump(self, target: float) -> None:
        """Set the clock to *target*, or to the timer whose rounded time is *target*."""
        whens = self._whens
        slack = 1e-9 * max(1.0, target)
        # A timer that is not in the future has run or was cancelled; the clock would stop at it
        # forever.
        while whens and (whens[0] <= self._now or whens[0] < target - slack):
            heapq.heappop(whens)
        self._now = whens[0] if whens and whens[0] <= target + slack else target


_Events = list[tuple[selectors.SelectorKey, int]]
_Select = Callable[[float | None], _Events]


class _JumpingSelector(selectors.DefaultSelector):
    """The platform's selector, except that the loop decides how to wait."""

    def __init__(self, wait: Callable[[_Select, float | None, bool], _Events]) -> None:
        super().__init__()
        self._wait = wait

    def select(self, timeout: float | None = None) -> _Events:
        # One file is always registered: the pipe through which other threads wake the loop.
        return self._wait(super().select, timeout, len(self.get_map()) <= 1)


def run_virtual(main: Coroutine[Any, Any, T], *, turn: float = 0.0) -> T:
    """
    Run a coroutine on a new :class:`VirtualTimeLoop` and return its result.

    Like ``asyncio.run`` it cancels remaining tasks at the end and closes the loop.

    Args:
        main: The coroutine.
        turn: The seconds that a turn of the loop takes.

    Example:
        >>> async def day() -> float:
        ...     await asyncio.sleep(24 * 3600)
        ...     return asyncio.get_running_loop().time()
        >>> run_virtual(day())
        86400.0
    """
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(turn=turn)) as runner:
        return runner.run(main)

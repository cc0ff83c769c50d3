"""The ``execute`` operator: run a handler for each claim, with bounded concurrency."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any

from reactivex import Observable, abc

from rxdispatch.backoff import Backoff
from rxdispatch.clock import lease_clock_of, valve_of
from rxdispatch.errors import ConfigError
from rxdispatch.operators.tasks._assignment import Assignment, opened
from rxdispatch.operators.tasks._attempt import Attempt, Start
from rxdispatch.operators.tasks._demand import Overfull
from rxdispatch.operators.tasks._gated import gated
from rxdispatch.operators.tasks._pool import Pool
from rxdispatch.task import Claim, Outcome, Task, seconds
from rxdispatch.valve import Gate

__all__ = ["execute"]

Handler = Callable[[Task[Any]], Any]
Work = Observable[Claim[Any]] | Observable[Assignment[Any]]

BURST = 64
"""Attempts that a worker runs before it lets the loop have a turn, if none of them suspends."""

SLICE = 0.01
"""Seconds of handlers after which it does so in any case."""


def execute(
    handler: Handler,
    *,
    max_concurrent: int = 16,
    executor: Executor | None = None,
    timeout: float | timedelta | None = None,
    backoff: Backoff = Backoff(),
) -> Callable[[Work], Observable[Outcome[Any, Any]]]:
    """
    Run ``handler(task)`` for each claim and emit what became of it.

    ::

        --c1-c2---c3------|
        [ execute(handler) ]
        ------o2--o1---o3-|

    The stream never ends because of a handler: a failure becomes an outcome with status
    ``retry`` and a delay of ``backoff.delay(attempt)``, or ``dead`` once ``task.max_attempts``
    is reached; its ``error`` is a ``TaskExecutionError`` whose cause is the handler's error.
    A claim that is lost cancels its handler. :func:`current_claim` works inside, and
    :func:`current_node` where the claims come through ``assign``.

    Args:
        handler: A coroutine function, or a plain function, which runs in threads.
        max_concurrent: How many run at a time, at least 1.
        executor: Where plain functions run; threads of our own when None. A process pool that
            breaks is rebuilt and its tasks run again one by one; the one that breaks it again
            is dead with reason ``crashed``.
        timeout: Seconds an attempt may take; ``task.timeout`` beats it. A plain function that
            times out is reported at once, but keeps its slot until it returns.
        backoff: How long to wait before a retry.

    Raises:
        ConfigError: If an argument breaks its rule.

    Owns a valve of *max_concurrent* items. Completion and errors of the source wait for what
    is running. Disposal cancels handlers and gives their tasks back.
    """
    if not callable(handler):
        raise ConfigError("handler must be callable", handler)
    if max_concurrent.__class__ is not int or max_concurrent < 1:
        raise ConfigError("max_concurrent must be an int >= 1", max_concurrent)
    if executor is not None and not isinstance(executor, Executor):
        raise ConfigError("executor must be a concurrent.futures.Executor", executor)
    plain = not _is_async(handler)
    if executor is not None and not plain:
        raise ConfigError("executor must be None for a coroutine function", executor)
    limit = None if timeout is None else seconds("timeout", timeout, zero=False)

    def make(
        observer: abc.ObserverBase[Outcome[Any, Any]], scheduler: abc.SchedulerBase | None
    ) -> _Execution:
        execution = _Execution(handler, max_concurrent, limit, backoff, observer, scheduler)
        if plain:
            execution.use_pool(executor)
        return execution

    return gated(make)


class _Execution:
    """
    One subscription: slots, and the workers that run attempts.

    A worker is a task that runs one attempt after the other. Another is woken only when an
    attempt suspends while more wait, so that handlers which do not suspend cost no task each.
    An outcome is emitted at once, since what has run must not be given back; room is announced
    when the queue is empty, for all slots that became free meanwhile.
    """

    def __init__(
        self,
        handler: Handler,
        max_concurrent: int,
        timeout: float | None,
        backoff: Backoff,
        observer: abc.ObserverBase[Outcome[Any, Any]],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self.start: Start = handler
        self._timeout = timeout
        self.backoff = backoff
        self._loop = asyncio.get_running_loop()
        self.clock = lease_clock_of(self._loop)
        self.gate = Gate(self._room, valve_of(scheduler), fail=self._fail)
        self._overfull = Overfull("execute", self.gate)
        self._most = max_concurrent
        self._observer = observer
        self._pool: Pool | None = None
        self._freed = False  # whether there is room that nobody was told of
        self._queue: deque[Attempt] = deque()
        self._live: set[Attempt] = set()  # queued or running
        self._running = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._parked: list[asyncio.Future[None]] = []
        self._taking = False  # whether a worker is on its way to the queue
        self._end: Callable[[], None] | None = None
        self._stopped = False

    def use_pool(self, executor: Executor | None) -> None:
        """Run the handler, a plain function, in *executor*."""
        pool = self._pool = Pool(executor, self._most, self._advance)
        fn: Handler = self.start

        async def call(task: Task[Any]) -> Any:
            # The limit is the pool's: waiting for its turn there is not the handler's doing.
            result = await pool.call(fn, task, task.timeout or self._timeout)
            # A plain function may also return something to await, as a lambda often does.
            return await result if inspect.isawaitable(result) else result

        self.start = call

    def limit(self, task: Task[Any]) -> float | None:
        """Seconds that the coroutine of a handler may take."""
        return None if self._pool is not None else task.timeout or self._timeout

    # -- source ------------------------------------------------------------------------------

    def on_next(self, item: Claim[Any] | Assignment[Any]) -> None:
        """Run the claim's handler as soon as a slot is free."""
        claim, slot = opened(item)
        if self._stopped:
            claim.custody.give_back([claim])
            return
        if claim.told is not None:
            # Lost, or called back, while it waited in a buffer above: nothing is to be started.
            self._observer.on_next(Outcome(claim, claim.told))
            return
        attempt = Attempt(self, claim, slot)
        self._live.add(attempt)
        self._queue.append(attempt)
        self._overfull.look(self._most - len(self._live))
        self._wake()

    def on_error(self, error: Exception) -> None:
        """Pass *error* on when nothing runs any more."""
        self._end = lambda: self._observer.on_error(error)
        self._advance()

    def on_completed(self) -> None:
        """Complete when nothing runs any more."""
        self._end = self._observer.on_completed
        self._advance()

    def dispose(self) -> None:
        """Cancel what runs and give all of it back."""
        if self._stopped:
            return
        self._stop()
        for attempt in tuple(self._live):
            attempt.revoke("released")
        for attempt in self._queue:
            self._give_back(attempt.claim)
        self._queue.clear()

    def _fail(self, error: Exception) -> None:
        self.dispose()
        self._observer.on_error(error)

    # -- slots -------------------------------------------------------------------------------

    def _room(self) -> int:
        stuck = 0 if self._pool is None else self._pool.stuck
        return self._most - len(self._live) - stuck

    def _free(self) -> bool:
        stuck = 0 if self._pool is None else self._pool.stuck
        return self._running + stuck < self._most

    def _wake(self) -> None:
        """Send a worker to the queue, unless one is on its way."""
        if self._taking or not self._queue or not self._free():
            return
        self._taking = True
        if self._parked:
            self._parked.pop().set_result(None)
        else:
            worker = self._loop.create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    def suspended(self) -> None:
        """A handler waits for something: let the next one run."""
        if self._freed and not self._queue:
            self._advance()
        else:
            self._wake()

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        burst, left = BURST, SLICE
        while not self._stopped:
            self._taking = False
            while self._queue and self._free():
                attempt = self._queue.popleft()
                self._running += 1
                outcome = await attempt
                self._running -= 1
                self._finished(attempt, outcome)
                if me.cancelling():
                    await _forgive(me, 0 if attempt.status is None else 1)
                if not self._queue:
                    # What comes now is for this worker: it need not be woken for it.
                    self._taking = True
                    try:
                        self._advance()
                    finally:
                        self._taking = False
                burst -= 1
                left -= outcome.duration
                if burst <= 0 or left <= 0:
                    await asyncio.sleep(0)
                    burst, left = BURST, SLICE
            if self._stopped:
                return
            parked = self._loop.create_future()
            self._parked.append(parked)
            await parked

    def _finished(self, attempt: Attempt, outcome: Outcome[Any, Any]) -> None:
        self._live.discard(attempt)
        self._freed = True
        if self._stopped:
            # The subscriber has left and cannot settle it any more.
            self._give_back(attempt.claim)
            return
        try:
            self._observer.on_next(outcome)
        except Exception as error:
            # As for any callback of the loop: who raises here must not stop other handlers.
            self._loop.call_exception_handler(
                {"message": "a subscriber of execute() raised", "exception": error}
            )

    def _give_back(self, claim: Claim[Any]) -> None:
        def now() -> None:
            if claim.answer is None and not claim.revoked:
                claim.custody.give_back([claim])

        if self._pool is None:
            now()
        else:
            # A thread cannot be interrupted: as long as it works nobody else may have the task.
            self._pool.when_returned(claim.task, now)

    def _advance(self) -> None:
        if self._stopped:
            return
        self._freed = False
        self._wake()
        if self._end is None:
            self.gate.opened()
        elif not self._live:
            end = self._end
            self._stop()
            end()

    def _stop(self) -> None:
        self._stopped = True
        if self._pool is not None:
            self._pool.close()
        for parked in self._parked:
            if not parked.done():
                parked.set_result(None)
        self._parked.clear()
        self.gate.dispose()


async def _forgive(worker: asyncio.Task[Any], asked: int) -> None:
    """
    Forget that this worker's attempt was cancelled, which we *asked* for once or not at all.

    A cancellation that the handler never met, because it ended at the same moment, is still to
    be delivered: it is met here. One that we did not ask for is meant for the worker.
    """
    for_worker = worker.cancelling() > asked
    while worker.cancelling():
        worker.uncancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        pass
    if for_worker or worker.cancelling():
        raise asyncio.CancelledError


def _is_async(handler: Any) -> bool:
    call = getattr(handler, "__call__", None)  # noqa: B004 - the method itself is looked at
    inner = getattr(handler, "func", handler)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)

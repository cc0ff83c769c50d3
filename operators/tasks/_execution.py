"""``Execution``: one subscription of ``execute``: its slots, and the workers that run attempts."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, Final

import attrs
from reactivex import abc

from rxdispatch.backoff import Backoff
from rxdispatch.callables import name_of_function
from rxdispatch.claim import STOPPED, Claim, Outcome
from rxdispatch.clock import lease_clock_of
from rxdispatch.operators._executor_safe import executor_safe
from rxdispatch.operators._function_pool import FunctionPool
from rxdispatch.operators._subscription import Subscription
from rxdispatch.operators._timeout import run_with_timeout
from rxdispatch.operators.tasks._assignment import Assignment, claim_and_slot
from rxdispatch.operators.tasks._attempt import Attempt, Terms
from rxdispatch.operators.tasks._log_failure import log_failure
from rxdispatch.operators.tasks._stuck_slots import StuckSlots
from rxdispatch.task import Task

__all__ = ["Execution", "Handler"]

Handler = Callable[[Task[Any]], Any]
Item = Claim[Any] | Assignment[Any]
Result = Outcome[Any, Any]

BURST: Final = 64
"""Attempts that a worker runs before it yields to the loop, if none of them suspends."""

SLICE: Final = 0.01
"""Seconds of running handlers after which a worker yields in any case."""

REVIVE: Final = 0.1
"""Seconds after which a worker that other code ended is replaced."""


class Execution(Subscription[Item, Result]):
    """
    One subscription of ``execute``.

    A worker is an asyncio task that runs one attempt after the other. Another worker is woken
    only when an attempt suspends while others wait, so handlers that do not suspend need no task
    each. An outcome is emitted at once, because a task that has run must not be given back;
    room is announced when the queue is empty, for all slots that became free meanwhile.

    Handlers run inside the workers' tasks, and may cancel their own or another worker at any
    moment. So a worker survives a cancellation unless all tasks are cancelled, as when the loop
    is closed: then the *witness*, a task that no handler can reach, is cancelled too. Invariant at
    every await: ``_running`` counts the attempts that are awaited, ``_sent`` is the worker that was
    woken and has not reached the queue yet, and ``_parked`` has only workers that wait.
    """

    def __init__(
        self,
        handler: Handler,
        max_concurrent: int,
        timeout: float | None,
        backoff: Backoff,
        observer: abc.ObserverBase[Result],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__("execute", max_concurrent, observer, scheduler)
        self._timeout = timeout
        self._terms = Terms(
            start=handler,
            limit=self._limit,
            backoff=backoff,
            clock=lease_clock_of(self.loop),
            context=self.home,
            closing=self._closing,
            suspended=self._suspended,
        )
        self._most = max_concurrent
        self._pool: FunctionPool | None = None
        self._stuck: StuckSlots | None = None
        self._freed = False  # whether there is room that was not announced
        self._queue: deque[Attempt] = deque()
        self._live: set[Attempt] = set()  # queued or running
        self._running = 0
        self._workers: set[asyncio.Task[None]] = set()
        self._parked: dict[asyncio.Task[None], asyncio.Future[None]] = {}
        # The worker on its way to the queue; the witness, while that worker is being made.
        self._sent: asyncio.Task[None] | None = None
        self._witness: asyncio.Task[None] | None = None
        # What ends the stream once nothing runs any more.
        self._last: Callable[[], None] | None = None

    def use_pool(self, executor: Executor | None) -> None:
        """Run the handler, a plain function, in *executor*."""
        pool = self._pool = FunctionPool(executor, self._most, self._returned, self.fail)
        handler = self._terms.start
        name = name_of_function(handler)
        self._stuck = StuckSlots(name, self._most, lambda: pool.stuck, self.home)
        fn = executor_safe("handler", handler)

        async def call(task: Task[Any]) -> Any:
            # The pool applies the limit: waiting for a thread must not count.
            limit = self._limit(task)
            made = pool.call_of(fn, task)
            result = await pool.answer(made, limit)
            if not inspect.isawaitable(result):
                return result
            # A plain function may also return an awaitable, as a lambda often does. The limit is
            # for the whole attempt.
            if limit is None:
                return await result
            return await run_with_timeout(
                result, task.id, limit, made.age() or 0.0, name=repr(task.id)
            )

        self._terms = attrs.evolve(self._terms, start=call, limit=_no_limit)

    def _limit(self, task: Task[Any]) -> float | None:
        """Return the seconds that an attempt may take."""
        return task.timeout or self._timeout

    # -- source ------------------------------------------------------------------------------

    def on_next(self, item: Item) -> None:
        """Run the claim's handler as soon as a slot is free."""
        claim, slot = claim_and_slot(item)
        if self.closed:
            claim._give_back()
            return
        if claim._state & STOPPED:
            # Lost, or recalled, while it waited in a buffer above: do not start the handler.
            self.observer.on_next(Outcome(claim, claim._stopped or "lost"))
            return
        attempt = Attempt(self._terms, claim, slot)
        self._live.add(attempt)
        self._queue.append(attempt)
        if not self.upstream.demand_checked and len(self._live) > self._most:
            self.upstream.check_demand()
        self._wake()

    def on_error(self, error: Exception) -> None:
        """Pass *error* on when nothing runs any more."""
        self._last = lambda: self.fail(error)
        self._advance()

    def on_completed(self) -> None:
        """Complete when nothing runs any more."""
        self._last = self.complete
        self._advance()

    # -- slots -------------------------------------------------------------------------------

    def room(self) -> int:
        """How many slots are free."""
        stuck = 0 if self._pool is None else self._pool.stuck
        return self._most - len(self._live) - stuck

    def _free(self) -> bool:
        stuck = 0 if self._pool is None else self._pool.stuck
        return self._running + stuck < self._most

    def _returned(self) -> None:
        """A call that was given up has returned: its slot is free."""
        if self._stuck is not None:
            self._stuck.look()
        self._advance()

    def _wake(self) -> None:
        """Send a worker to the queue, unless one is on its way."""
        if self._sent is not None or not self._queue or self.closed or not self._free():
            return
        while self._parked:
            worker, parked = self._parked.popitem()
            if not parked.done():  # else the worker was cancelled, and comes back on its own
                self._sent = worker
                parked.set_result(None)
                return
        if self._witness is None or self._closing():
            self._witness = self.loop.create_task(_wait(self.loop), context=self.home.copy())
        self._sent = self._witness
        worker = self.loop.create_task(self._work(), context=self.home.copy())
        if self._sent is self._witness:  # else an eager task factory has already started it
            self._sent = worker
        self._workers.add(worker)
        worker.add_done_callback(self._left, context=self.home.copy())

    def _suspended(self) -> None:
        """A handler has suspended: let the next one run."""
        if self._freed and not self._queue:
            self._advance()
        else:
            self._wake()

    def _closing(self) -> bool:
        """Whether all tasks of the loop were cancelled, not only a worker."""
        witness = self._witness
        return witness is not None and (witness.done() or witness.cancelling() > 0)

    # -- workers -----------------------------------------------------------------------------

    async def _work(self) -> None:
        me: Any = asyncio.current_task()
        attempt: Attempt | None
        outcome: Outcome[Any, Any] | None
        burst, left = BURST, SLICE
        while not self.closed:
            if self._sent is me or self._sent is self._witness:
                self._sent = None
            try:
                while self._queue and self._free():
                    attempt = self._queue.popleft()
                    self._running += 1
                    try:
                        outcome = await attempt
                    except BaseException:
                        self._live.discard(attempt)
                        raise
                    finally:
                        self._running -= 1
                    self._finished(attempt, outcome)
                    # Also a cancellation that uncancel() has undone but asyncio still delivers.
                    if me.cancelling() or me._must_cancel:
                        await self._forgive(me)
                    if not self._queue and self._sent is None:
                        self._announce(me)
                    burst -= 1
                    left -= outcome.duration
                    if burst <= 0 or left <= 0:
                        await asyncio.sleep(0)
                        burst, left = BURST, SLICE
                if self.closed:
                    return
                if self._freed and not self._queue and self._sent is None:
                    # The worker that ended the last attempt left this to a worker on its way here.
                    self._announce(me)
                    continue
                # A waiting worker must hold no claim: weak references tell when one is dropped.
                attempt = outcome = None
                parked = self._parked[me] = self.loop.create_future()
                await parked
            except asyncio.CancelledError:
                self._parked.pop(me, None)
                await self._forgive(me)

    def _announce(self, worker: asyncio.Task[None]) -> None:
        """Announce free slots; *worker* takes the claims that come now, so wake no other one."""
        self._sent = worker
        try:
            self._advance()
        finally:
            self._sent = None

    async def _forgive(self, worker: asyncio.Task[Any]) -> None:
        """
        Forget that *worker* was cancelled, by a revoked attempt or by a handler.

        A cancellation that the handler did not receive, because it ended at the same moment, is
        still to be delivered: it arrives here.

        Raises:
            CancelledError: If all tasks were cancelled.
        """
        while worker.cancelling():
            worker.uncancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            pass
        if self._closing():
            raise asyncio.CancelledError
        while worker.cancelling():
            worker.uncancel()

    def _left(self, worker: asyncio.Task[None]) -> None:
        """A worker has ended: on its own, with the loop, or by an error outside an attempt."""
        self._workers.discard(worker)
        self._parked.pop(worker, None)
        if self._sent is worker:
            self._sent = None
        error = None if worker.cancelled() else worker.exception()
        if error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
            self.loop.call_exception_handler(
                {"message": "a worker of execute() failed", "exception": error}
            )
        if not self.closed:
            # Not at once: if the loop is being closed, nothing may be started.
            self.loop.call_later(REVIVE, self._advance, context=self.home.copy())

    def _finished(self, attempt: Attempt, outcome: Outcome[Any, Any]) -> None:
        self._live.discard(attempt)
        self._freed = True
        if outcome.error is not None:
            log_failure(outcome)
            if self._stuck is not None:
                self._stuck.look()
        if self.closed:
            # The subscriber has left and cannot settle it any more.
            self._give_back(attempt.claim)
            return
        try:
            self.observer.on_next(outcome)
        except Exception as error:
            # Reported like the error of any callback; other handlers go on. The outcome is dropped,
            # which counts as a crash, so that the task does not run forever.
            self.loop.call_exception_handler(
                {"message": "a subscriber of execute() raised", "exception": error}
            )

    def _give_back(self, claim: Claim[Any]) -> None:
        def now() -> None:
            if claim._open:
                claim._give_back()

        if self._pool is None:
            now()
        else:
            # A thread cannot be interrupted: while it works, no other worker may have the task.
            self._pool.when_returned(claim.task, now)

    def _advance(self) -> None:
        if self.closed:
            return
        self._freed = False
        self._wake()
        if self._last is None:
            self.gate.opened()
        elif not self._live:
            last, self._last = self._last, None
            last()

    def clear(self) -> None:
        """Stop the workers, cancel running handlers, and give all claims back."""
        if self._pool is not None:
            self._pool.close()
        if self._stuck is not None:
            self._stuck.close()
        if self._witness is not None:
            self._witness.cancel()
        for parked in self._parked.values():
            if not parked.done():
                parked.set_result(None)
        self._parked.clear()
        for attempt in tuple(self._live):
            attempt.stop("released")
        for attempt in self._queue:
            self._give_back(attempt.claim)
        self._queue.clear()


async def _wait(loop: asyncio.AbstractEventLoop) -> None:
    await loop.create_future()


def _no_limit(task: Task[Any]) -> None:
    """Return no limit, where the pool applies it."""

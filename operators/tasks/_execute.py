"""The ``execute`` operator: run a handler for each claim, with bounded concurrency."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any

import structlog
from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxdispatch.backoff import Backoff
from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.errors import ConfigError, ItemTimeoutError, TaskExecutionError
from rxdispatch.operators.tasks._current import current
from rxdispatch.operators.tasks._pool import HandlerCrashedError, Pool
from rxdispatch.task import Claim, Outcome, OutcomeStatus, Task, seconds
from rxdispatch.valve import Gate

__all__ = ["execute"]

log = structlog.get_logger(__name__)

Handler = Callable[[Task[Any]], Any]


def execute(
    handler: Handler,
    *,
    max_concurrent: int = 16,
    executor: Executor | None = None,
    timeout: float | timedelta | None = None,
    backoff: Backoff = Backoff(),
) -> Callable[[Observable[Claim[Any]]], Observable[Outcome[Any, Any]]]:
    """
    Run ``handler(task)`` for each claim and emit what became of it.

    ::

        --c1-c2---c3------|
        [ execute(handler) ]
        ------o2--o1---o3-|

    The stream never ends because of a handler: a failure becomes an outcome with status
    ``retry`` and a delay of ``backoff.delay(attempt)``, or ``dead`` once ``task.max_attempts``
    is reached; its ``error`` is a ``TaskExecutionError`` whose cause is the handler's error.
    A claim that is lost cancels its handler. :func:`current_claim` works inside.

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

    def operator(source: Observable[Claim[Any]]) -> Observable[Outcome[Any, Any]]:
        def subscribe(
            observer: abc.ObserverBase[Outcome[Any, Any]],
            scheduler: abc.SchedulerBase | None = None,
        ) -> abc.DisposableBase:
            execution = _Execution(handler, max_concurrent, limit, backoff, observer, scheduler)
            if plain:
                execution.use_pool(executor)
            subscription = source.subscribe(
                execution.on_next,
                execution.on_error,
                execution.on_completed,
                scheduler=LoopScheduler(asyncio.get_running_loop(), valve=execution.gate),
            )
            return CompositeDisposable(subscription, Disposable(execution.dispose))

        return Observable(subscribe)

    return operator


class _Execution:
    """One subscription."""

    def __init__(
        self,
        handler: Handler,
        max_concurrent: int,
        timeout: float | None,
        backoff: Backoff,
        observer: abc.ObserverBase[Outcome[Any, Any]],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self.handler: Callable[[Task[Any]], Awaitable[Any]] = handler
        self.timeout = timeout
        self.backoff = backoff
        self.loop = asyncio.get_running_loop()
        self.gate = Gate(self._room, valve_of(scheduler))
        self._most = max_concurrent
        self._observer = observer
        self._pool: Pool | None = None
        self._waiting: deque[Claim[Any]] = deque()
        self._running: set[_Attempt] = set()
        self._end: Callable[[], None] | None = None
        self._stopped = False
        self._warned = False

    def use_pool(self, executor: Executor | None) -> None:
        """Run the handler, a plain function, in *executor*."""
        pool = self._pool = Pool(executor, self._most, self._advance)
        fn = self.handler

        async def call(task: Task[Any]) -> Any:
            result = await pool.call(fn, task)
            # A plain function may also return something to await, as a lambda often does.
            return await result if inspect.isawaitable(result) else result

        self.handler = call

    # -- source ------------------------------------------------------------------------------

    def on_next(self, claim: Claim[Any]) -> None:
        """Start the claim's handler, or keep it until a slot is free."""
        if self._stopped:
            claim.custody.give_back([claim])
        elif self._free() > 0 and not self._waiting:
            self._start(claim)
        else:
            self._waiting.append(claim)
            if not self._warned:
                self._warned = True
                log.warning("no_demand", operator="execute", rule="its source must heed the valve")

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
        self._stopped = True
        waiting = list(self._waiting)
        self._waiting.clear()
        for claim in waiting:
            claim.custody.give_back([claim])
        for attempt in tuple(self._running):
            attempt.revoke("released")
        if self._pool is not None:
            self._pool.close()
        self.gate.dispose()

    # -- slots -------------------------------------------------------------------------------

    def _free(self) -> int:
        stuck = 0 if self._pool is None else self._pool.stuck
        return self._most - len(self._running) - stuck

    def _room(self) -> int:
        return self._free() - len(self._waiting)

    def _start(self, claim: Claim[Any]) -> None:
        self._running.add(_Attempt(self, claim))

    def finished(self, attempt: _Attempt, outcome: Outcome[Any, Any]) -> None:
        """A handler has ended: emit its outcome and use the slot."""
        self._running.discard(attempt)
        if self._stopped:
            # The subscriber has left: what was cancelled, or ended just now, cannot be settled
            # by it any more.
            self._abandon(outcome)
            return
        self._observer.on_next(outcome)
        self._advance()

    def _abandon(self, outcome: Outcome[Any, Any]) -> None:
        claim = outcome.claim
        if claim.answer is None and not claim.revoked:
            claim.custody.give_back([claim])

    def _advance(self) -> None:
        while self._waiting and self._free() > 0 and not self._stopped:
            self._start(self._waiting.popleft())
        if self._end is not None:
            if not self._running and not self._waiting and not self._stopped:
                self._stopped = True
                if self._pool is not None:
                    self._pool.close()
                self.gate.dispose()
                self._end()
        elif not self._stopped:
            self.gate.opened()


class _Attempt:
    """One run of the handler, in a task of its own."""

    __slots__ = ("_claim", "_execution", "_status", "_task")

    def __init__(self, execution: _Execution, claim: Claim[Any]) -> None:
        self._execution = execution
        self._claim = claim
        self._status: OutcomeStatus | None = None
        self._task = execution.loop.create_task(self._run())
        self._task.add_done_callback(self._ended)
        claim.on_revoke = self.revoke

    def revoke(self, status: OutcomeStatus) -> None:
        """Cancel the handler; its outcome is *status*."""
        if self._status is None:
            self._status = status
            self._task.cancel()

    async def _run(self) -> Outcome[Any, Any]:
        execution, claim = self._execution, self._claim
        current.set(claim)
        started = execution.loop.time()
        try:
            limit = claim.task.timeout or execution.timeout
            if limit is None:
                result = await execution.handler(claim.task)
            else:
                result = await _limited(execution.handler, claim.task, limit)
        except asyncio.CancelledError as error:
            # Ours, or the handler's own: who cancels itself has failed like any other.
            failure: BaseException = error
        except Exception as error:
            failure = error
        else:
            return Outcome(claim, "done", result, None, execution.loop.time() - started)
        return self._failed(failure, execution.loop.time() - started)

    def _failed(self, cause: BaseException, duration: float) -> Outcome[Any, Any]:
        claim = self._claim
        if self._status is not None:
            return Outcome(claim, self._status, None, None, duration)
        error = TaskExecutionError(claim.task.id, claim.attempt)
        error.__cause__ = cause
        if isinstance(cause, HandlerCrashedError):
            return Outcome(claim, "dead", None, error, duration, 0.0, "crashed")
        if claim.attempt >= claim.task.max_attempts:
            return Outcome(claim, "dead", None, error, duration, 0.0, "failed")
        delay = self._execution.backoff.delay(claim.attempt)
        return Outcome(claim, "retry", None, error, duration, delay)

    def _ended(self, task: asyncio.Task[Outcome[Any, Any]]) -> None:
        claim = self._claim
        claim.on_revoke = None
        if task.cancelled():  # before it began
            outcome: Outcome[Any, Any] = Outcome(claim, self._status or "released")
        else:
            outcome = task.result()
        self._execution.finished(self, outcome)


async def _limited(handler: Handler, task: Task[Any], limit: float) -> Any:
    try:
        async with asyncio.timeout(limit) as scope:
            return await handler(task)
    except TimeoutError as error:
        if scope.expired():
            raise ItemTimeoutError(limit, task.id) from error
        raise  # the handler's own


def _is_async(handler: Any) -> bool:
    call = getattr(handler, "__call__", None)  # noqa: B004 - the method itself is looked at
    inner = getattr(handler, "func", handler)
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(call)

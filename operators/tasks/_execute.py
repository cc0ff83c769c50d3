"""The ``execute`` operator: runs a handler for each claim, with bounded concurrency."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxdispatch.backoff import Backoff
from rxdispatch.callables import check_function, is_async
from rxdispatch.checks import integer
from rxdispatch.claim import Claim, Outcome
from rxdispatch.errors import ConfigError
from rxdispatch.operators._subscription import operator_of
from rxdispatch.operators.tasks._assignment import Assignment
from rxdispatch.operators.tasks._execution import Execution
from rxdispatch.seconds import seconds
from rxdispatch.task import Task

__all__ = ["execute"]

P = TypeVar("P")

ClaimStream = Observable[Claim[P]] | Observable[Assignment[P]]


def execute(
    handler: Callable[[Task[P]], Any],
    *,
    max_concurrent: int = 16,
    executor: Executor | None = None,
    timeout: float | timedelta | None = None,
    backoff: Backoff = Backoff(),
) -> Callable[[ClaimStream[P]], Observable[Outcome[P, Any]]]:
    """
    Run ``handler(task)`` for each claim and emit its outcome.

    ::

        --c1-c2---c3------|
        [ execute(handler) ]
        ------o2--o1---o3-|

    The stream never ends because of a handler: a failure becomes an outcome with status
    ``retry`` and a delay of ``backoff.delay(attempt)``, or ``dead`` once ``task.max_attempts``
    is reached; its ``error`` is a ``TaskExecutionError`` whose cause is the handler's error.
    Each failed attempt is logged once, with its traceback, as ``attempt_failed``. The handler may
    raise any ``BaseException``; only ``KeyboardInterrupt`` ends the process, as everywhere, and
    then the lease lapses, which counts as a crash. An outcome that is dropped before it reaches
    ``settle`` counts as a crash, too.
    When a claim is lost, its handler is cancelled. :func:`current_claim` works inside, and
    :func:`current_node` where the claims come through ``assign``.

    Args:
        handler: A coroutine function, or a plain function, which runs in threads; called with
            the task. It runs in a context of its own, and inside an asyncio task that other
            attempts use as well: it must not give its ``asyncio.current_task()`` to other code.
        max_concurrent: How many run at a time, at least 1.
        executor: Where plain functions run; a thread pool of its own when None. A process pool
            that breaks is rebuilt and its tasks run again one by one; a task that breaks it again
            is dead with reason ``crashed``.
        timeout: Seconds an attempt may take; ``task.timeout`` overrides it. A plain function that
            times out is reported at once, but keeps its slot until it returns.
        backoff: How long to wait before a retry.

    Raises:
        ConfigError: If an argument breaks its rule, such as a handler that is a generator
            function or that does not take one argument.

    The valve closes when *max_concurrent* handlers run or are stuck in a thread. Completion and
    errors of the source wait for running handlers. Disposal cancels handlers and gives their
    tasks back.
    """
    check_function("handler", handler, "task")
    integer("max_concurrent", max_concurrent)
    if executor is not None and not isinstance(executor, Executor):
        raise ConfigError("executor must be a concurrent.futures.Executor", executor)
    if not isinstance(backoff, Backoff):
        raise ConfigError("backoff must be a Backoff", backoff)
    plain = not is_async(handler)
    if executor is not None and not plain:
        raise ConfigError("executor must be None for a coroutine function", executor)
    limit = None if timeout is None else seconds("timeout", timeout, zero=False)

    def make(
        observer: abc.ObserverBase[Outcome[Any, Any]], scheduler: abc.SchedulerBase | None
    ) -> Execution:
        execution = Execution(handler, max_concurrent, limit, backoff, observer, scheduler)
        if plain:
            execution.use_pool(executor)
        return execution

    return operator_of(make)

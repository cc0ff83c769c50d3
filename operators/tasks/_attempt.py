"""``Attempt``: one run of a handler for one claim."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any, Protocol

from rxdispatch.backoff import Backoff
from rxdispatch.errors import ItemTimeoutError, TaskExecutionError
from rxdispatch.operators.tasks._current import current
from rxdispatch.operators.tasks._pool import HandlerCrashedError
from rxdispatch.task import Claim, Outcome, OutcomeStatus, Task

__all__ = ["Attempt", "Start", "Terms", "limited"]

Start = Callable[[Task[Any]], Coroutine[Any, Any, Any]]


class Terms(Protocol):
    """What attempts of one subscription have in common."""

    @property
    def start(self) -> Start:
        """Makes the coroutine of a handler."""
        ...

    @property
    def timeout(self) -> float | None:
        """Seconds an attempt may take where the task does not say."""
        ...

    @property
    def backoff(self) -> Backoff:
        """How long to wait before a retry."""
        ...

    @property
    def clock(self) -> Callable[[], float]:
        """The loop's time."""
        ...

    def suspended(self) -> None:
        """A handler waits for something: others can run."""
        ...


class Attempt:
    """
    Awaited by a worker; returns the outcome and never raises.

    It drives the handler's coroutine itself instead of giving it to a new asyncio task: most
    of the cost of a short handler is the task around it. The handler still runs inside a task,
    the worker's, so that timeouts and task groups work; and it runs in a context of its own,
    so that what it sets is gone with it.
    """

    __slots__ = ("_runner", "_terms", "claim", "status")

    def __init__(self, terms: Terms, claim: Claim[Any]) -> None:
        self._terms = terms
        self._runner: asyncio.Task[Any] | None = None
        self.claim = claim
        self.status: OutcomeStatus | None = "lost" if claim.revoked else None
        claim.on_revoke = self.revoke

    def revoke(self, status: OutcomeStatus) -> None:
        """Cancel the handler, or do not start it; the outcome is *status*."""
        if self.status is None:
            self.status = status
            if self._runner is not None:
                self._runner.cancel()

    def __await__(self) -> Generator[Any, Any, Outcome[Any, Any]]:
        claim, terms = self.claim, self._terms
        if self.status is not None:
            claim.on_revoke = None
            return Outcome(claim, self.status)
        context = copy_context()
        context.run(current.set, claim)
        started = terms.clock()
        limit = claim.task.timeout or terms.timeout
        try:
            if limit is None:
                coroutine = terms.start(claim.task)
            else:
                coroutine = limited(terms.start, claim.task, limit)
            step = context.run(coroutine.send, None)
            self._runner = asyncio.current_task()
            terms.suspended()
            while True:
                try:
                    value = yield step
                except BaseException as thrown:
                    step = context.run(coroutine.throw, thrown)
                else:
                    step = context.run(coroutine.send, value)
        except StopIteration as stop:
            outcome = Outcome(claim, "done", stop.value, None, terms.clock() - started)
        except (Exception, asyncio.CancelledError) as error:
            outcome = self._failed(error, terms.clock() - started)
        claim.on_revoke = self._runner = None
        return outcome

    def _failed(self, cause: BaseException, duration: float) -> Outcome[Any, Any]:
        claim, runner = self.claim, self._runner
        status = self.status
        if status is None and isinstance(cause, asyncio.CancelledError):
            # Somebody cancelled the worker: the loop is being closed. A handler that raises
            # CancelledError of itself, on the other hand, has failed like any other.
            status = "released" if runner is not None and runner.cancelling() else None
        if status is not None:
            return Outcome(claim, status, None, None, duration)
        error = TaskExecutionError(claim.task.id, claim.attempt)
        error.__cause__ = cause
        if isinstance(cause, HandlerCrashedError):
            return Outcome(claim, "dead", None, error, duration, 0.0, "crashed")
        if claim.attempt >= claim.task.max_attempts:
            return Outcome(claim, "dead", None, error, duration, 0.0, "failed")
        delay = self._terms.backoff.delay(claim.attempt)
        return Outcome(claim, "retry", None, error, duration, delay)


async def limited(start: Start, task: Task[Any], limit: float) -> Any:
    """
    Run a handler for at most *limit* seconds.

    Raises:
        ItemTimeoutError: If it took longer; a ``TimeoutError`` of its own passes as it is.
    """
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            return await start(task)
    except TimeoutError as error:
        if scope.expired():
            raise ItemTimeoutError(limit, task.id) from error
        raise

"""``Attempt``: one run of a handler for one claim."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from contextvars import Context
from types import FrameType
from typing import Any, Final

import attrs

from rxdispatch.backoff import Backoff
from rxdispatch.callables import check_result
from rxdispatch.claim import STOPPED, Change, Claim, Outcome, OutcomeStatus
from rxdispatch.errors import TaskExecutionError
from rxdispatch.node import Slot
from rxdispatch.operators._function_pool import HandlerCrashedError
from rxdispatch.operators._timeout import run_with_timeout
from rxdispatch.operators.tasks._assignment import assigned
from rxdispatch.operators.tasks._current_claim import current
from rxdispatch.retry_or_dead import retry_or_dead
from rxdispatch.task import Task

__all__ = ["Attempt", "Start", "Terms"]

_ENDED: Final[Any] = object()
_ABOVE: Final = ("rxdispatch.operators.", "concurrent.futures.")

Start = Callable[[Task[Any]], Coroutine[Any, Any, Any]]


@attrs.frozen(slots=True)
class Terms:
    """
    What the attempts of one subscription share.

    Attributes:
        start: Makes the coroutine of a handler.
        limit: Returns the seconds that the coroutine may take; None if it applies a limit itself.
        backoff: How long to wait before a retry.
        clock: The clock of the leases, in seconds.
        context: The context whose copies the handlers run in.
        closing: Whether the loop is being closed, so that a cancellation is meant for all tasks.
        suspended: Called when a handler has suspended: others can run.
    """

    start: Start
    limit: Callable[[Task[Any]], float | None]
    backoff: Backoff
    clock: Callable[[], float]
    context: Context
    closing: Callable[[], bool]
    suspended: Callable[[], None]


class Attempt:
    """
    One run of a handler; a worker awaits it and gets the outcome.

    It drives the handler's coroutine itself instead of giving it to a new asyncio task: most
    of the cost of a short handler is the task around it. The handler still runs inside a task,
    the worker's, so that timeouts and task groups work. It runs in a context of its own, so
    that the context variables it sets end with it.

    Any exception of the handler is a failed attempt. Only two pass through: the end of the
    worker's own coroutine, and ``KeyboardInterrupt``, which is meant for the process. Then there
    is no outcome; the lease lapses, and that counts as a crash.
    """

    __slots__ = ("_result", "_runner", "_slot", "_terms", "claim", "status")

    def __init__(self, terms: Terms, claim: Claim[Any], slot: Slot | None = None) -> None:
        self._terms = terms
        self._slot = slot
        self._result: Any = None
        self._runner: asyncio.Task[Any] | None = None
        self.claim = claim
        self.status: OutcomeStatus | None = claim._stopped if claim._state & STOPPED else None
        claim._operator = self

    def claim_changed(self, claim: Claim[Any], change: Change) -> None:  # noqa: ARG002
        """Stop the handler if the claim is lost or recalled."""
        if change == "lost":
            self.stop("lost")
        elif change == "recalled":
            self.stop("released")

    def stop(self, status: OutcomeStatus) -> None:
        """Cancel the handler, or do not start it; the outcome is *status*."""
        if self.status is None:
            self.status = status
            if self._runner is not None:
                self._runner.cancel()

    def __await__(self) -> Generator[Any, Any, Outcome[Any, Any]]:
        claim, terms = self.claim, self._terms
        started = terms.clock()
        if self.status is None and started >= claim._deadline:
            self.status = "lost"  # while it waited; the lease keeper had no turn to report it
        if self.status is not None:
            claim._operator = None
            return Outcome(claim, self.status)
        if claim._ref is not None:
            claim._ref.began = True
        context = terms.context.copy()
        coroutine = self._handle()
        closed = False
        try:
            # Most handlers end here; next() with a default saves raising and catching an exception.
            step = context.run(next, coroutine.__await__(), _ENDED)
            if step is _ENDED:
                claim._operator = None
                return Outcome(claim, "done", self._result, None, terms.clock() - started)
            self._runner = asyncio.current_task()
            if self.status is not None and self._runner is not None:
                self._runner.cancel()  # the handler itself caused the disposal of its stream
            terms.suspended()
            while True:
                try:
                    value = yield step
                except GeneratorExit:
                    # The worker is closed; the handler has not failed.
                    closed = True
                    context.run(_close, coroutine)
                    raise
                except BaseException as thrown:
                    step = context.run(coroutine.throw, thrown)
                else:
                    step = context.run(coroutine.send, value)
        except StopIteration:
            outcome = Outcome(claim, "done", self._result, None, terms.clock() - started)
        except BaseException as error:
            if closed:
                raise
            if issubclass(type(error), KeyboardInterrupt):
                claim._abandon()
                raise
            # SystemExit too: it would end one worker after the other, uncounted.
            outcome = self._failed(error, terms.clock() - started)
        finally:
            claim._operator = self._runner = None
        try:
            return outcome
        finally:
            # From Python 3.12 on, the frames of an error keep their callers' frames, like this one.
            del self, claim, context, coroutine, outcome

    async def _handle(self) -> None:
        claim, terms = self.claim, self._terms
        current.set(claim)
        if self._slot is not None:
            assigned.set(self._slot)
        limit = terms.limit(claim.task)
        if limit is None:
            result = await terms.start(claim.task)
        else:
            result = await run_with_timeout(
                terms.start(claim.task), claim.task.id, limit, name=repr(claim.task.id)
            )
        if result is not None:
            check_result("handler", result)
            self._result = result

    def _failed(self, cause: BaseException, duration: float) -> Outcome[Any, Any]:
        # By its type: isinstance() asks the error for its class, and that may raise.
        claim, kind = self.claim, type(cause)
        status = self.status
        if status is None and self._runner is not None and issubclass(kind, asyncio.CancelledError):
            # All tasks are cancelled: the loop is being closed. A handler that raises
            # CancelledError itself, or whose task other code cancelled, has failed like any other.
            status = "released" if self._terms.closing() else None
        if status is not None:
            if status == "released" and claim._ref is not None:
                claim._ref.began = False  # the task goes back uncounted, wherever it is dropped
            return Outcome(claim, status, None, None, duration)
        _forget_frames(cause)
        error = TaskExecutionError(claim.task.id, claim.attempt)
        error.__cause__ = cause
        crashed = issubclass(kind, HandlerCrashedError)
        if retry_or_dead(claim.task, claim.attempt, crashed=crashed) == "dead":
            reason = "crashed" if crashed else "failed"
            return Outcome(claim, "dead", None, error, duration, 0.0, reason)
        delay = self._terms.backoff.delay(claim.attempt)
        return Outcome(claim, "retry", None, error, duration, delay)


def _close(coroutine: Coroutine[Any, Any, Any]) -> None:
    """End *coroutine*; ignore its errors, and also if it refuses to end."""
    with suppress(BaseException):
        coroutine.close()


def _forget_frames(error: BaseException) -> None:
    """
    Remove the frames above the handler from the traceback of *error*, and empty them.

    They say nothing about the handler, and keep the claim alive as long as the error.
    """
    with suppress(Exception):
        traceback = error.__traceback__
        while traceback is not None and traceback.tb_next is not None and _ours(traceback.tb_frame):
            traceback = traceback.tb_next
        error.__traceback__ = traceback
        frame = None if traceback is None else traceback.tb_frame.f_back
        while frame is not None and _ours(frame):
            frame.clear()  # RuntimeError at the first frame that still runs
            frame = frame.f_back


def _ours(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(_ABOVE)

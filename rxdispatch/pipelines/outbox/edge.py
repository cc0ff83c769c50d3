"""``EdgePipeline``: handles events locally, and forwards selected results."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

import attrs
from reactivex import Observable
from uuid_utils import uuid7

from rxdispatch.callables import check_function
from rxdispatch.errors import ConfigError, ItemTimeoutError, TaskExecutionError
from rxdispatch.operators import map_async
from rxdispatch.operators._timeout import run_with_timeout
from rxdispatch.pipelines.outbox.outbox import Outbox
from rxdispatch.pipelines.shared.outside import is_from_outside
from rxdispatch.seconds import seconds

__all__ = ["EdgePipeline", "EdgeResult"]

T = TypeVar("T")
R = TypeVar("R")


@attrs.frozen(slots=True)
class EdgeResult(Generic[T, R]):
    """
    The result of one event.

    Attributes:
        id: The id of the result in the outbox, if it was forwarded. If *forwarded* is None, put the
            result again under this id: an outbox does not write an id that waits already, and
            :class:`Dedupe` lets the receiver drop a repetition.
        event: The event.
        result: What the local function returned; None if it failed.
        error: A ``TaskExecutionError`` if the event failed; its cause is the error of the local
            function, of a full outbox, or of the timeout.
        forwarded: Whether the result is in the outbox; None if that is unknown, because the timeout
            came during the write.
    """

    id: str
    event: T
    result: R | None
    error: TaskExecutionError | None
    forwarded: bool | None


class EdgePipeline(Generic[T, R]):
    """
    A pipeline that handles events locally, and forwards selected results through an outbox.

    It calls *local* for each event, and puts the results that *forward* selects into the outbox. It
    keeps working while the receiver is unavailable. A failed event does not end the stream.

    Args:
        local: A coroutine function, called with each event.
        forward: A plain function that returns whether to forward a result.
        outbox: The outbox for the results; must be open.
        max_concurrent: How many events are handled at a time; with more than 1, results are
            forwarded in the order in which they are ready.
        timeout: Seconds that an event may take, including the write to the outbox.

    Raises:
        ConfigError: If an argument breaks its rule.
    """

    def __init__(
        self,
        local: Callable[[T], Awaitable[R]],
        *,
        forward: Callable[[R], object],
        outbox: Outbox,
        max_concurrent: int = 1,
        timeout: float | timedelta | None = None,
    ) -> None:
        check_function("local", local, "event")
        check_function("forward", forward, "result")
        if not isinstance(outbox, Outbox):
            raise ConfigError("outbox must be an Outbox", outbox)
        self._local = local
        self._forward = forward
        self._outbox = outbox
        self._timeout = None if timeout is None else seconds("timeout", timeout, zero=False)
        self._stage = map_async(self._handle, max_concurrent=max_concurrent, ordered=True)

    def results(self, source: Observable[T]) -> Observable[EdgeResult[T, R]]:
        """
        Handle the events of *source* while subscribed; emits an :class:`EdgeResult` for each.

        A source that can wait is asked for no more than fits. Completion waits for the events at
        work; disposal cancels them.
        """
        return self._stage(source)

    async def _handle(self, event: T) -> EdgeResult[T, R]:
        name = str(uuid7())
        result: R | None = None
        forwarded: bool | None = False

        async def handle() -> None:
            nonlocal result, forwarded
            result = value = await self._local(event)
            if self._forward(value):
                # If this is cut short, the result may be written or not.
                forwarded = None
                await self._outbox.put(value, id=name)
                forwarded = True

        try:
            await run_with_timeout(handle(), event, self._timeout)
        except ItemTimeoutError as late:
            return EdgeResult(name, event, result, _error(name, late), forwarded)
        except BaseException as cause:
            if is_from_outside(cause) or isinstance(cause, KeyboardInterrupt):
                raise
            return EdgeResult(name, event, result, _error(name, cause), False)
        return EdgeResult(name, event, result, None, forwarded)


def _error(name: str, cause: BaseException) -> TaskExecutionError:
    error = TaskExecutionError(name, 1)
    error.__cause__ = cause
    return error

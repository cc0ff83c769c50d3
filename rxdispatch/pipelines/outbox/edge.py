"""``EdgePipeline``: handle events here first, and forward what the far side needs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, TypeVar

import attrs
from reactivex import Observable
from uuid_utils import uuid7

from rxdispatch.callables import check_function
from rxdispatch.errors import ConfigError, ItemTimeoutError, TaskExecutionError
from rxdispatch.operators import map_async
from rxdispatch.pipelines.outbox.outbox import Outbox
from rxdispatch.pipelines.shared.outside import is_from_outside
from rxdispatch.seconds import seconds

__all__ = ["EdgePipeline", "EdgeResult"]

T = TypeVar("T")
R = TypeVar("R")


@attrs.frozen(slots=True)
class EdgeResult(Generic[T, R]):
    """
    What became of one event.

    Attributes:
        id: The id it has in the outbox, if it is there. Put the result under this id again where
            you do not know: an outbox, and :class:`Dedupe` behind it, take it once.
        event: The event.
        result: What the local function returned; None where it failed.
        error: A ``TaskExecutionError`` whose cause is the error, where it failed: of the local
            function, of the outbox that had no room, or that time was up.
        forwarded: Whether the result is in the outbox. None if nobody knows, because time was up
            while it was written.
    """

    id: str
    event: T
    result: R | None
    error: TaskExecutionError | None
    forwarded: bool | None


class EdgePipeline(Generic[T, R]):
    """
    Calls *local* for each event, and puts the results that *forward* picks into an outbox.

    Local handling goes on while the far side is away. A failed event ends nothing.

    Args:
        local: A coroutine function of an event.
        forward: Whether a result is to be forwarded; a plain function.
        outbox: Where to; open.
        max_concurrent: How many events are handled at a time; with more than 1, results are
            forwarded in the order in which they come about.
        timeout: Seconds an event may take, the writing to the outbox included.

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

        A source that can wait is asked for what there is room for. Completion waits for what is at
        work; disposal cancels it.
        """
        return self._stage(source)

    async def _handle(self, event: T) -> EdgeResult[T, R]:
        name = str(uuid7())
        result: R | None = None
        forwarded: bool | None = False
        scope = asyncio.timeout(self._timeout)
        try:
            async with scope:
                result = value = await self._local(event)
                if self._forward(value):
                    # Cut short here, it may be written or not.
                    forwarded = None
                    forwarded = await self._put(value, name)
        except BaseException as cause:
            if is_from_outside(cause) or isinstance(cause, KeyboardInterrupt):
                raise
            if scope.expired() and isinstance(cause, TimeoutError):
                late = ItemTimeoutError(self._timeout or 0.0, event)
                late.__cause__ = cause
                return EdgeResult(name, event, result, _error(name, late), forwarded)
            return EdgeResult(name, event, result, _error(name, cause), False)
        return EdgeResult(name, event, result, None, forwarded)

    async def _put(self, value: R, name: str) -> bool:
        await self._outbox.put(value, id=name)
        return True


def _error(name: str, cause: BaseException) -> TaskExecutionError:
    error = TaskExecutionError(name, 1)
    error.__cause__ = cause
    return error

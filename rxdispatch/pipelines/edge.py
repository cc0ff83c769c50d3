"""``EdgePipeline``: handle events here first, and forward what the far side needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Generic, TypeVar

import attrs
from reactivex import Observable
from uuid_utils import uuid7

from rxdispatch import operators as ops
from rxdispatch.errors import ConfigError, TaskExecutionError
from rxdispatch.pipelines.outbox import Outbox

__all__ = ["EdgePipeline", "EdgeResult"]

T = TypeVar("T")
R = TypeVar("R")


@attrs.frozen(slots=True)
class EdgeResult(Generic[T, R]):
    """
    What became of one event.

    Attributes:
        id: The id it has in the outbox, if it is there.
        event: The event.
        result: What the local function returned; None where it failed.
        error: A ``TaskExecutionError`` whose cause is the error, where it failed: of the local
            function, or of the outbox that had no room.
        forwarded: Whether the result is in the outbox.
    """

    id: str
    event: T
    result: R | None
    error: TaskExecutionError | None
    forwarded: bool


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
        for name, fn in (("local", local), ("forward", forward)):
            if not callable(fn):
                raise ConfigError(f"{name} must be callable", fn)
        if not isinstance(outbox, Outbox):
            raise ConfigError("outbox must be an Outbox", outbox)
        self._local = local
        self._forward = forward
        self._outbox = outbox
        self._stage = ops.map_async(
            self._handle,
            max_concurrent=max_concurrent,
            ordered=True,
            timeout=timeout,
            on_error=_failed,
        )

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
        try:
            result = value = await self._local(event)
            forwarded = bool(self._forward(value))
            if forwarded:
                await self._outbox.put(value, id=name)
        except Exception as cause:
            return EdgeResult(name, event, result, _error(name, cause), False)
        return EdgeResult(name, event, result, None, forwarded)


def _failed(event: Any, cause: BaseException) -> EdgeResult[Any, Any]:
    """Only a time-out comes here."""
    name = str(uuid7())
    return EdgeResult(name, event, None, _error(name, cause), False)


def _error(name: str, cause: BaseException) -> TaskExecutionError:
    error = TaskExecutionError(name, 1)
    error.__cause__ = cause
    return error

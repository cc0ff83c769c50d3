"""``stage``: describes a stage of a pipeline."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any

import attrs

from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import Board
from rxdispatch.callables import check_function, is_async
from rxdispatch.checks import board_name, integer, key_name
from rxdispatch.errors import ConfigError
from rxdispatch.operators._on_error import OnError, checked_on_error
from rxdispatch.protocols import Limit
from rxdispatch.seconds import seconds

__all__ = ["Stage", "checked_stage", "stage"]


@attrs.frozen(kw_only=True, eq=False)
class Stage:
    """
    The description of a stage, made by :func:`stage`; any number of pipelines may use it.

    Attributes:
        fn: Called with an item, or with a list of items.
        name: Its name in failures and statistics.
        max_concurrent: How many calls may be at work at once; or a ``Limit`` that decides.
        queue_size: How many items may wait for it; None leaves that to the pipeline.
        batch: How many items fill a list, and the seconds after which *fn* gets a shorter list.
        timeout: Seconds that an attempt may take.
        backoff: How often an item is attempted, and the waits in between.
        on_error: What happens to an item that failed.
        executor: Where a plain function runs; None for threads of its own.
        board: The board that its items are claimed from, or its name; None for a queue in memory.
        named: Whether its name was given, and not taken from its function.
    """

    fn: Callable[[Any], Any]
    name: str
    max_concurrent: int | Limit
    queue_size: int | None
    batch: tuple[int, float] | None
    timeout: float | None
    backoff: Backoff | None
    on_error: OnError[Any, Any]
    executor: Executor | None
    board: str | Board[Any] | None = None
    named: bool = True

    @property
    def slots(self) -> int:
        """The most calls that can be at work at once."""
        limit = self.max_concurrent
        return limit.maximum if isinstance(limit, Limit) else limit

    @property
    def burst(self) -> int:
        """The most items that can be at work at once."""
        return self.slots * (self.batch[0] if self.batch else 1)

    @property
    def plain(self) -> bool:
        """Whether the function is a plain one, to run in threads or processes."""
        return not is_async(self.fn)


def stage(
    fn: Callable[[Any], Any],
    *,
    name: str | None = None,
    max_concurrent: int | Limit = 16,
    queue_size: int | None = None,
    batch: tuple[int, float | timedelta] | None = None,
    timeout: float | timedelta | None = None,
    backoff: Backoff | None = None,
    on_error: OnError[Any, Any] = "stop",
    executor: Executor | None = None,
    board: str | Board[Any] | None = None,
) -> Stage:
    """
    Describe a stage of a :class:`Pipeline`.

    Args:
        fn: Called with an item, returns what goes on to the next stage. Coroutine functions run
            on the loop as in ``map_async``, plain ones in threads as in ``map_blocking``.
        name: Its name in failures and statistics; by default the function's name, with the suffix
            ``-2``, ``-3`` and so on where a pipeline has several stages of one function.
        max_concurrent: How many calls may be at work at once, at least 1; or a ``Limit`` such as
            ``AdaptiveLimit``, which searches for the best number while it runs.
        queue_size: How many items may wait for it, at least 1. By default 16, or as many as it or
            the stage before it works on at once, if that is more: a shorter queue makes fast stages
            wait.
        batch: A count and a time in seconds. *fn* is then called with a list of up to *count*
            items, as soon as the list is full or the first item has waited that long, and a slot
            is free. It must return a list of as many results, in the same order. A list fails, and
            is attempted again, as a whole.
        timeout: Seconds that each attempt may take, from when the function begins. A function in a
            thread cannot be stopped: it keeps its thread until it returns.
        backoff: How often an item is attempted, and the waits in between, during which it keeps
            its slot; None for one attempt. An ``AdaptiveLimit`` counts attempts and waits together
            as the time that an item took, so use one or the other.
        on_error: What happens to an item whose last attempt failed. ``"stop"``: it goes no further
            and is emitted by the pipeline's ``failures``; the pipeline goes on. ``"skip"`` only
            logs ``item_skipped``. A callable gets the item and the error and returns what goes on
            instead; if it raises, that is the failure.
        executor: Where a plain function runs, instead of in threads of the stage's own; it stays
            open. For processes, *fn* and the items must be picklable. A process pool that breaks
            is replaced; an item fails only if it breaks the new pool while it runs there alone. An
            executor that can no longer run anything, for example because it was shut down, ends the
            pipeline with its error; that counts as the failure of no item.
        board: A board, or its name, that replaces the queue before the stage. Any process can claim
            the items by :meth:`Pipeline.worker`. Each stage needs a board of its own. *queue_size*
            is then how many items a worker claims ahead, by default as many as it works on.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> stage(str.upper, max_concurrent=4).name
        'upper'
    """
    check_function("fn", fn, "item")
    return checked_stage(
        fn,
        name=name,
        max_concurrent=max_concurrent,
        queue_size=queue_size,
        batch=batch,
        timeout=timeout,
        backoff=backoff,
        on_error=on_error,
        executor=executor,
        board=board,
    )


def checked_stage(
    fn: Callable[..., Any],
    *,
    name: str | None,
    max_concurrent: int | Limit,
    queue_size: int | None,
    timeout: float | timedelta | None,
    backoff: Backoff | None,
    on_error: OnError[Any, Any],
    executor: Executor | None,
    batch: tuple[int, float | timedelta] | None = None,
    board: str | Board[Any] | None = None,
) -> Stage:
    """Return the stage of *fn*, which has been checked; otherwise like :func:`stage`."""
    called = key_name("name", _name(fn) if name is None else name)
    most: Any = max_concurrent.maximum if isinstance(max_concurrent, Limit) else max_concurrent
    integer("max_concurrent", most, instead=" or a Limit")
    if queue_size is not None:
        integer("queue_size", queue_size, instead=" or None")
    if backoff is not None and not isinstance(backoff, Backoff):
        raise ConfigError("backoff must be a Backoff or None", backoff)
    if callable(on_error):
        check_function("on_error", on_error, "item", "error")
    if executor is not None and not isinstance(executor, Executor):
        raise ConfigError("executor must be a concurrent.futures.Executor or None", executor)
    if executor is not None and is_async(fn):
        raise ConfigError("executor must be None for a coroutine function", executor)
    if isinstance(board, str):
        board_name("board", board)
    elif board is not None and not isinstance(board, Board):
        raise ConfigError("board must be a board, its name, or None", board)
    return Stage(
        fn=fn,
        name=called,
        max_concurrent=max_concurrent,
        queue_size=queue_size,
        batch=_batch(batch),
        timeout=None if timeout is None else seconds("timeout", timeout, zero=False),
        backoff=backoff,
        on_error=checked_on_error(on_error),
        executor=executor,
        board=board,
        named=name is not None,
    )


def _batch(given: Any) -> tuple[int, float] | None:
    if given is None:
        return None
    if given.__class__ is not tuple or len(given) != 2:
        raise ConfigError("batch must be a pair of a count and seconds", given)
    count, span = given
    integer("the count of batch", count)
    return count, seconds("the time of batch", span, zero=False)


def _name(fn: Any) -> Any:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(fn, "__name__", type(fn).__name__)

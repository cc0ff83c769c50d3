"""``stage``: what a stage of a pipeline is, as data."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any, Literal

import attrs

from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import Board
from rxdispatch.callables import check_function, is_async
from rxdispatch.checks import board_name, integer, key_name
from rxdispatch.errors import ConfigError, TaskExecutionError
from rxdispatch.operators._function_pool import HandlerCrashedError
from rxdispatch.protocols import Limit
from rxdispatch.seconds import seconds

__all__ = ["Stage", "StageCrashedError", "StageError", "described", "stage"]

OnError = Literal["fail", "skip"] | Callable[[Any, BaseException], Any]


@attrs.frozen(kw_only=True, eq=False)
class Stage:
    """
    A stage, as :func:`stage` has described it; any number of pipelines may use it.

    Attributes:
        fn: What is done with an item, or with a list of them.
        name: What it is called in failures and statistics.
        concurrency: How many calls may be at work at once; or a ``Limit`` that knows.
        queue: How many items may wait for it; None leaves that to the pipeline.
        batch: How many items make a list, and after how many seconds it goes all the same.
        timeout: Seconds a try may take.
        retry: How often an item is tried, and the waits in between.
        on_error: What becomes of an item that failed.
        executor: Where a plain function runs; None for threads of its own.
        board: The board that its items are claimed from, or its name; None in the same process.
        named: Whether its name was given, and is not that of its function.
    """

    fn: Callable[[Any], Any]
    name: str
    concurrency: int | Limit
    queue: int | None
    batch: tuple[int, float] | None
    timeout: float | None
    retry: Backoff | None
    on_error: OnError
    executor: Executor | None
    board: str | Board[Any] | None = None
    named: bool = True

    @property
    def slots(self) -> int:
        """The most calls that are ever at work at once."""
        limit = self.concurrency
        return limit.maximum if isinstance(limit, Limit) else limit

    @property
    def burst(self) -> int:
        """The most items that are ever at work at once."""
        return self.slots * (self.batch[0] if self.batch else 1)

    @property
    def plain(self) -> bool:
        """Whether the function is a plain one, which runs in threads or processes."""
        return not is_async(self.fn)


class StageError(TaskExecutionError):
    """
    An item failed in a stage of a pipeline; the error is the ``__cause__``.

    Args:
        task_id: The item's id.
        attempt: Which try it was, from 1.
        stage: The name of the stage.
        item: The item as it came into that stage; not part of the message.

    Attributes:
        round: How often the item was submitted, more than once where a pipeline has *resubmit*.
    """

    round: int = 1

    def __init__(self, task_id: str, attempt: int, stage: str, item: Any) -> None:
        super().__init__(task_id, attempt)
        self.stage = stage
        self.item = item
        self.args = (f"item {task_id!r} failed in stage {stage!r} at attempt {attempt}",)


class StageCrashedError(StageError, HandlerCrashedError):
    """A stage's function killed its process although nothing else ran in it."""


def stage(
    fn: Callable[[Any], Any],
    *,
    name: str | None = None,
    concurrency: int | Limit = 16,
    queue: int | None = None,
    batch: tuple[int, float | timedelta] | None = None,
    timeout: float | timedelta | None = None,
    retry: Backoff | None = None,
    on_error: OnError = "fail",
    executor: Executor | None = None,
    board: str | Board[Any] | None = None,
) -> Stage:
    """
    Describe a stage of a :class:`Pipeline`.

    Args:
        fn: Called with an item, returns what goes on to the next stage. Coroutine functions run
            on the loop as in ``map_async``, plain ones in threads as in ``map_blocking``.
        name: What it is called in failures and statistics; by default the function's name, with
            ``-2``, ``-3`` and so on where a pipeline has several stages of one function.
        concurrency: How many calls may be at work at once, at least 1; or a ``Limit`` such as
            ``AdaptiveLimit``, which finds that out.
        queue: How many items may wait for it, at least 1. By default as many as it, or the stage
            before it, has at work at most, and at least 16: fewer make fast stages wait.
        batch: A count and a time in seconds: *fn* is then called with a list of up to *count*
            items, at the latest so long after the first of them came, if it has a free slot
            then; and must return a list of as many results, in the same order. A list fails,
            and is tried again, as a whole.
        timeout: Seconds that each try may take, from when the function begins. The function of a
            thread cannot be stopped: it keeps its thread until it returns.
        retry: How often an item is tried at most, and the waits in between, during which it
            keeps its slot. None: once. An ``AdaptiveLimit`` takes tries and waits together for
            how long an item took, so use one or the other.
        on_error: What becomes of an item whose last try failed: ``"fail"`` tells the pipeline's
            ``failures``, ``"skip"`` only logs ``item_skipped``, and a callable is given the item
            and the error and returns what goes on instead; if it raises, that is the failure.
        executor: Where a plain function runs instead of in threads of the stage's own; it stays
            open. For processes *fn* and the items must be such that they can be pickled. A
            process pool that breaks is replaced; the item that breaks the new one, alone, fails.
            An executor that can run nothing any more, say because it was shut down, ends the
            pipeline with its error, and no item fails for it.
        board: A board, or its name, that stands before the stage instead of a queue, and that
            :meth:`Pipeline.worker` takes the items from, in any process; a board of its own.
            *queue* is then how many a worker claims ahead, as many as it works on by default.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> stage(str.upper, concurrency=4).name
        'upper'
    """
    check_function("fn", fn, "item")
    return described(
        fn,
        name=name,
        concurrency=concurrency,
        queue=queue,
        batch=batch,
        timeout=timeout,
        retry=retry,
        on_error=on_error,
        executor=executor,
        board=board,
    )


def described(
    fn: Callable[..., Any],
    *,
    name: str | None,
    concurrency: int | Limit,
    queue: int | None,
    timeout: float | timedelta | None,
    retry: Backoff | None,
    on_error: OnError,
    executor: Executor | None,
    batch: tuple[int, float | timedelta] | None = None,
    board: str | Board[Any] | None = None,
) -> Stage:
    """Return the stage, as :func:`stage`, of a function that has been checked."""
    called = key_name("name", _name(fn) if name is None else name)
    most: Any = concurrency.maximum if isinstance(concurrency, Limit) else concurrency
    integer("concurrency", most, instead=" or a Limit")
    if queue is not None:
        integer("queue", queue, instead=" or None")
    if retry is not None and not isinstance(retry, Backoff):
        raise ConfigError("retry must be a Backoff or None", retry)
    if on_error not in ("fail", "skip") and not callable(on_error):
        raise ConfigError('on_error must be "fail", "skip" or callable', on_error)
    if callable(on_error):
        check_function("on_error", on_error, "item", "error")
        if is_async(on_error):
            raise ConfigError("on_error must be a plain function", on_error)
    if executor is not None and not isinstance(executor, Executor):
        raise ConfigError("executor must be a concurrent.futures.Executor or None", executor)
    if executor is not None and is_async(fn):
        raise ConfigError("executor must be left out for a coroutine function", executor)
    if isinstance(board, str):
        board_name("board", board)
    elif board is not None and not isinstance(board, Board):
        raise ConfigError("board must be a board, its name, or None", board)
    return Stage(
        fn=fn,
        name=called,
        concurrency=concurrency,
        queue=queue,
        batch=_batch(batch),
        timeout=None if timeout is None else seconds("timeout", timeout, zero=False),
        retry=retry,
        on_error=on_error,
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

"""Calls the function of a stage: on one envelope or several, with one attempt or more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from rxdispatch.callables import check_result
from rxdispatch.errors import ConfigError
from rxdispatch.operators._function_pool import FunctionPool
from rxdispatch.operators._timeout import run_with_timeout
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.outside import is_from_outside
from rxdispatch.pipelines.shared.wait_group import WaitGroup
from rxdispatch.pipelines.stages.stage import Stage
from rxdispatch.pipelines.stages.stats import StageCounters

__all__ = ["CarriedError", "call_many", "call_one", "in_pool", "stage_work"]

Call = Callable[[Any], Awaitable[Any]]


class CarriedError(Exception):
    """
    Carries a ``BaseException`` out of a function, so that only its item fails.

    A ``SystemExit`` that leaves an asyncio task would end the whole loop.

    Args:
        error: The error that the function raised.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


# ------------------------------------------------ on the loop


def stage_work(
    stage: Stage, call: Call, wait_group: WaitGroup, counters: StageCounters
) -> Callable[[Any], Awaitable[Any]]:
    """Return the function for ``map_async``, which applies *call* to one or many envelopes."""
    time = asyncio.get_running_loop().time

    async def one(envelope: Envelope) -> Envelope:
        wait_group.active += 1
        counters.started += 1
        envelope.since = time()
        try:
            envelope.value = await call(envelope.value)
        except BaseException as error:
            raise _carried(error) from None
        finally:
            wait_group.done()
        return envelope

    async def one_with_retries(envelope: Envelope) -> Envelope:
        wait_group.active += 1
        counters.started += 1
        envelope.since = time()
        try:
            value = await _with_retries(stage, lambda: call(envelope.value), (envelope,))
        except BaseException as error:
            raise _carried(error) from None
        finally:
            wait_group.done()
        envelope.value = value
        return envelope

    async def many(envelopes: list[Envelope]) -> list[Envelope]:
        wait_group.active += 1
        counters.started += len(envelopes)
        envelopes[0].since = time()
        try:
            # Each attempt gets a list of its own, which the function may change.
            values = await _with_retries(
                stage, lambda: call([e.value for e in envelopes]), envelopes
            )
        except BaseException as error:
            raise _carried(error) from None
        finally:
            wait_group.done()
        for envelope, value in zip(envelopes, _checked(values, len(envelopes)), strict=True):
            envelope.value = value
        return envelopes

    if stage.batch is not None:
        return many
    return one if stage.backoff is None else one_with_retries


async def _with_retries(
    stage: Stage, make: Callable[[], Awaitable[Any]], envelopes: list[Envelope] | tuple[Envelope]
) -> Any:
    """Await what *make* returns; repeat that until it succeeds or the attempts are used up."""
    # In threads and processes the pool enforces the timeout: it knows when the function begins.
    backoff, limit = stage.backoff, None if stage.plain else stage.timeout
    if backoff is None:
        return await make()
    attempt = 0
    while True:
        attempt += 1
        for envelope in envelopes:
            envelope.attempt = attempt
        try:
            value = await (make() if limit is None else run_with_timeout(make(), envelopes, limit))
        except Exception:
            if not backoff.goes_on(attempt):
                raise
        else:
            for envelope in envelopes:
                envelope.attempt = 1
            return value
        await asyncio.sleep(backoff.delay(attempt))


def in_pool(stage: Stage, pool: FunctionPool) -> Call:
    """Return a coroutine function that calls the plain function of *stage* in *pool*."""
    fn = partial(_plainly, stage.fn)

    async def call(value: Any) -> Any:
        return await pool.answer(pool.call_of(fn, value), stage.timeout)

    return call


def _carried(error: BaseException) -> BaseException:
    """Return *error*, in a ``CarriedError`` if a task must not raise it."""
    if isinstance(error, (Exception, asyncio.CancelledError)):
        return error
    if is_from_outside(error):
        return error
    return CarriedError(error)


# ------------------------------------------------ in threads and processes


def call_one(fn: Callable[[Any], Any], envelope: Envelope) -> Envelope:
    """Return a new envelope with the result of *fn*: the old one may have timed out."""
    return Envelope(envelope.id, _plainly(fn, envelope.value), envelope.since, envelope.token)


def call_many(fn: Callable[[Any], Any], envelopes: list[Envelope]) -> list[Envelope]:
    """Return new envelopes with the results of *fn* for a list of items."""
    values = _checked(_plainly(fn, [e.value for e in envelopes]), len(envelopes))
    return [Envelope(e.id, v, e.since, e.token) for e, v in zip(envelopes, values, strict=True)]


def _plainly(fn: Callable[[Any], Any], value: Any) -> Any:
    try:
        result = fn(value)
    except Exception as error:
        if isinstance(error, StopIteration):
            # An asyncio future does not accept it.
            raise RuntimeError("fn raised StopIteration") from error
        raise
    except KeyboardInterrupt as error:
        # Ctrl-C reaches only the main thread, so the function itself raised this.
        raise RuntimeError("fn raised KeyboardInterrupt") from error
    except BaseException as error:
        raise CarriedError(error) from None
    check_result("fn", result)
    return result


def _checked(values: Any, wanted: int) -> Any:
    if not isinstance(values, (list, tuple)):
        raise ConfigError("fn of a batch must return a list of results", type(values).__name__)
    if len(values) != wanted:  # pyright: ignore[reportUnknownArgumentType]
        rule = f"fn of a batch must return as many results as it got items ({wanted})"
        raise ConfigError(rule, len(values))  # pyright: ignore[reportUnknownArgumentType]
    return values  # pyright: ignore[reportUnknownVariableType]

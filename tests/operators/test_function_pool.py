"""``FunctionPool`` and plain handlers, with real threads and processes that hang or die."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

import pytest

from rxdispatch.error_text import traceback_text
from rxdispatch.errors import ItemTimeoutError
from rxdispatch.operators._function_pool import FunctionPool, HandlerCrashedError
from rxdispatch.operators.tasks._current_claim import current_claim
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.task import Task
from rxdispatch.testing import Probe
from tests.operators.flow.runs import to_list
from tests.operators.tasks.places import Board, Hand, Result, filled

MARK: ContextVar[str] = ContextVar("mark", default="none")
READY: list[str] = []


@pytest.fixture(autouse=True)
def loop_factory() -> None:
    """Use real time, as threads and processes do."""


@pytest.fixture
def processes() -> Iterator[ProcessPoolExecutor]:
    """Two worker processes with an initializer."""
    with ProcessPoolExecutor(
        2,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=begin,
        initargs=("x",),
    ) as executor:
        yield executor


def begin(word: str) -> None:
    """Record the argument of this process at its start."""
    READY.append(word)


def ignore_sigterm() -> None:
    """Ignore SIGTERM, so that only SIGKILL ends this process."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def work(item: Any) -> Any:
    """Do what *item* says, in another process."""
    if item == "exit":
        os._exit(3)
    if isinstance(item, float):
        time.sleep(item)
    return item, list(READY)


class OneWayError(Exception):
    """An error whose class needs more than a message, so it does not unpickle."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class OneWay:
    """An object that pickles, but does not unpickle."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        return type(self), ()


def odd(how: Any) -> Any:
    """Return or raise an object that does not unpickle."""
    if how == "error":
        raise OneWayError("quota exceeded", 429)
    if how == "leave":
        raise SystemExit(3)
    if how == "stop":
        raise StopIteration
    return OneWay("result")


def broken() -> None:
    """Fail when a thread or process starts."""
    raise ValueError("x")


async def outcomes(board: Board, handler: Any, **options: Any) -> list[Result]:
    """Run *handler* for the ready tasks of *board* and return the outcomes."""
    stream = board.claims(until="idle").pipe(execute(handler, **options))
    return list(await to_list(stream))


async def until(true: Any) -> None:
    """Wait until *true* returns a true value."""
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


async def test_calls_run_in_threads_of_its_own() -> None:
    """Values and errors come back; the caller's context applies; closing ends the threads."""
    pool = FunctionPool(None, 2, lambda: None)
    MARK.set("mine")
    assert "mine" == await pool.call(lambda _: MARK.get(), None, None)
    assert threading.get_ident() != await pool.call(lambda _: threading.get_ident(), None, None)
    with pytest.raises(ZeroDivisionError):
        await pool.call(lambda n: 1 // n, 0, None)
    pool.close()
    with pytest.raises(RuntimeError, match="shutdown"):
        await pool.call(lambda n: n, 0, None)


async def test_an_executor_that_was_shut_down_is_told() -> None:
    """The error is reported to ``on_gone``, as no call is to blame."""
    gone: list[Exception] = []
    executor = ThreadPoolExecutor(1)
    pool = FunctionPool(executor, 1, on_gone=gone.append)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown") as caught:
        await pool.call(len, "x")
    assert [caught.value] == gone


async def test_an_executor_that_was_given_stays_open() -> None:
    """The executor belongs to the caller."""
    with ThreadPoolExecutor(1) as executor:
        pool = FunctionPool(executor, 1, lambda: None)
        pool.close()
        assert 5 == await pool.call(lambda n: n, 5, None)


async def test_a_call_that_is_given_up_is_stuck_until_it_returns() -> None:
    """A call that has not begun is not stuck."""
    freed: list[int] = []
    release = threading.Event()
    pool = FunctionPool(None, 1, lambda: freed.append(pool.stuck))
    first = asyncio.create_task(pool.call(lambda _: release.wait(10), None, None))
    second = asyncio.create_task(pool.call(lambda _: release.wait(10), None, None))
    await asyncio.sleep(0.05)
    first.cancel()
    second.cancel()
    await asyncio.wait({first, second})
    assert (1, []) == (pool.stuck, freed)
    release.set()
    await until(lambda: freed)
    assert (0, [0]) == (pool.stuck, freed)
    pool.close()


def test_a_stuck_call_may_outlive_its_loop() -> None:
    """Its slot is no longer needed then."""
    release = threading.Event()

    async def main() -> FunctionPool:
        pool = FunctionPool(None, 1, lambda: None)
        call = asyncio.create_task(pool.call(lambda _: release.wait(10), None, None))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.wait({call})
        return pool

    pool = asyncio.run(main())
    release.set()
    pool._executor.shutdown(wait=True)
    assert 1 == pool.stuck


async def test_threads_that_cannot_start_are_an_error() -> None:
    """The pool is gone, as only process pools are rebuilt."""
    gone: list[Exception] = []
    with ThreadPoolExecutor(1, initializer=broken) as executor:
        pool = FunctionPool(executor, 1, on_gone=gone.append)
        with pytest.raises(BrokenExecutor):
            await pool.call(lambda n: n, 0, None)
    assert [True] == [isinstance(error, BrokenExecutor) for error in gone]


async def test_processes_that_cannot_start_are_gone() -> None:
    """The pool is gone, as no call is to blame if none began."""
    gone: list[Exception] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=broken) as executor:
        pool = FunctionPool(executor, 1, on_gone=gone.append)
        with pytest.raises(BrokenExecutor):
            await pool.call(work, 0.0)
        pool.close()
    assert [True] == [isinstance(error, BrokenExecutor) for error in gone]


async def test_users_of_a_process_pool_share_the_new_one(
    processes: ProcessPoolExecutor,
) -> None:
    """The suspects run one at a time; the last user closes the new pool."""
    pools = [FunctionPool(processes, 2), FunctionPool(processes, 2)]
    found = await asyncio.gather(
        pools[0].call(work, "exit"), pools[1].call(work, 0.1), return_exceptions=True
    )
    assert [HandlerCrashedError, tuple] == [type(one) for one in found]
    shared = {pool._processes for pool in pools}
    assert 1 == len(shared)
    pools[0].close()
    pools[0].close()
    assert (0.0, ["x"]) == await pools[1].call(work, 0.0)
    pools[1].close()
    assert [None] == [one._replacement for one in shared if one is not None]


async def test_what_does_not_unpickle_is_the_failure_of_its_call(
    processes: ProcessPoolExecutor,
) -> None:
    """Items, errors and results that do not unpickle leave the pool intact."""
    pool = FunctionPool(processes, 2)
    calls = [pool.call(odd, how) for how in ("error", "result", "leave", "stop", OneWay("item"))]
    found = await asyncio.gather(*calls, return_exceptions=True)
    expected = [
        "ProcessCallError: OneWayError: quota exceeded",
        "ProcessCallError: PicklingError: the result must be a value that unpickles",
        "ProcessCallError: SystemExit: 3",
        "RuntimeError: fn raised StopIteration",
        "TypeError: OneWay.__init__() missing 1 required positional argument: 'what'",
    ]
    assert expected == [f"{type(one).__name__}: {one}" for one in found]
    assert "raise OneWayError" in traceback_text(found[0])
    with pytest.raises(Exception, match="pickle"):
        await pool.call(odd, lambda: None)
    assert (0.0, ["x"]) == await pool.call(work, 0.0)
    assert False is processes._broken
    pool.close()


async def test_the_call_that_breaks_a_process_pool_is_found(processes: ProcessPoolExecutor) -> None:
    """The other calls run again in a pool like the first, and so do later calls."""
    pool = FunctionPool(processes, 2, lambda: None)
    calls = [pool.call(work, item, None) for item in (0.2, "exit", 0.1, "exit", 0.0)]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [HandlerCrashedError if n in {1, 3} else tuple for n in range(5)] == [
        type(one) for one in found
    ]
    assert (0.2, ["x"]) == found[0]
    assert "the handler must not end its process" == str(found[1])
    assert (0.0, ["x"]) == await pool.call(work, 0.0, None)
    pool.close()


async def test_processes_of_a_broken_pool_that_ignore_sigterm_hold_up_nothing() -> None:
    """Python 3.13 waits for such processes with a lock held, so they are killed."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn, initializer=ignore_sigterm) as executor:
        pool = FunctionPool(executor, 2, lambda: None)
        calls = [pool.call(work, item, None) for item in (0.2, "exit", 0.1)]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [tuple, HandlerCrashedError, tuple] == [type(one) for one in found]
        pool.close()


async def test_plain_handlers_run_in_threads() -> None:
    """As many run at a time as there are slots, and ``current_claim`` works there."""
    board, _ = await filled(6)
    barrier = threading.Barrier(3)

    def handler(task: Task[Any]) -> Any:
        barrier.wait(10)
        return current_claim().task.id, threading.get_ident()

    found = await outcomes(board, handler, max_concurrent=3)
    assert [o.claim.task.id for o in found] == [(o.result or "?")[0] for o in found]
    assert threading.get_ident() not in {(o.result or (0, 0))[1] for o in found}


async def test_a_plain_function_may_return_something_to_await() -> None:
    """The awaitable is awaited on the loop."""
    board, _ = await filled(2)

    async def inner(task: Task[Any]) -> tuple[str, int]:
        await asyncio.sleep(0)
        return current_claim().task.id, threading.get_ident()

    def handler(task: Task[Any]) -> Any:
        return inner(task)

    found = await outcomes(board, handler)
    assert [(o.claim.task.id, threading.get_ident()) for o in found] == [o.result for o in found]


async def test_a_plain_handler_that_times_out_keeps_its_slot() -> None:
    """The outcome comes at once; the next handler starts when this one has returned."""
    board, _ = await filled(2)
    release = threading.Event()
    ran: list[str] = []

    def handler(task: Task[Any]) -> None:
        ran.append(task.id)
        release.wait(10)

    hand, log = Hand(), Probe()
    hand.stream().pipe(execute(handler, max_concurrent=1, timeout=0.05)).subscribe(log)
    first, second = await board.claim(2)
    hand.push(first)
    await until(lambda: log.notifications)
    assert isinstance(log.notifications[0].error.__cause__, ItemTimeoutError)
    assert 0 == hand.gate.room()
    hand.push(second)
    await asyncio.sleep(0.05)
    assert ["0"] == ran
    release.set()
    await until(lambda: len(log.notifications) == 2)
    assert ["0", "1"] == ran
    hand.complete()
    await until(lambda: log.notifications[-1] == "|")


async def test_a_worker_whose_executor_is_gone_ends() -> None:
    """The stream ends with the error; its tasks are ready again, and none is dead."""
    board, _ = await filled(3)
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        await outcomes(board, str, executor=executor)
    while (counts := await board.counts()).claimed:
        await asyncio.sleep(0)
    assert (3, 0, 0) == (counts.ready, counts.dead, counts.done)

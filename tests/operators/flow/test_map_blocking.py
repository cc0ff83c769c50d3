"""``map_blocking``: what is different for work in threads or processes."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError, ItemTimeoutError
from rxdispatch.operators.flow._map_blocking import map_blocking
from rxdispatch.streams import run
from rxdispatch.testing import Supply, run_virtual
from tests.operators.flow.runs import to_list


def own_threads() -> list[threading.Thread]:
    """Return the threads of the operator's pools, after those that are ending have ended."""
    found = [t for t in threading.enumerate() if t.name.startswith("map_blocking")]
    for thread in found:
        thread.join(5)
    return [thread for thread in found if thread.is_alive()]


def square(n: int) -> int:
    """Return the square; a process can import this function."""
    return n * n


def square_or_die(n: int) -> int:
    """Return the square, or end the whole process."""
    if n == 2:
        os._exit(n)
    return n * n


def broken() -> None:
    """Fail when a thread starts."""
    raise ValueError


def nap(span: float) -> float:
    """Take *span* seconds."""
    time.sleep(span)
    return span


def _name(item: Any) -> Any:
    """Return the key of an item."""
    return item[0]


class Doors:
    """A function whose calls wait until the test releases them, one by one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.doors: dict[Any, threading.Event] = {}
        self.inside: list[Any] = []
        self.most = 0

    def _door(self, item: Any) -> threading.Event:
        with self.lock:
            return self.doors.setdefault(item, threading.Event())

    def __call__(self, item: Any) -> Any:
        """Wait until the door of *item* is open."""
        with self.lock:
            self.inside.append(item)
            self.most = max(self.most, len(self.inside))
        try:
            assert self._door(item).wait(10)
        finally:
            with self.lock:
                self.inside.remove(item)
        return item

    def open(self, *items: Any) -> None:
        """Release the calls with *items*."""
        for item in items:
            self._door(item).set()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another thread makes true."""
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        await asyncio.to_thread(time.sleep, 0.001)


def test_results_of_threads() -> None:
    """Results come in order if asked for, and no thread is left."""

    async def main() -> Any:
        return await to_list(Supply(range(50)).pipe(map_blocking(square, ordered=True)))

    assert [n * n for n in range(50)] == run_virtual(main())
    assert [] == own_threads()


def test_no_more_threads_than_the_limit() -> None:
    """As many calls as the limit run at a time, and the source is asked for no more."""

    async def main() -> tuple[int, int, Any]:
        doors = Doors()
        paced = Supply(range(9))
        stream = paced.pipe(map_blocking(doors, max_concurrent=3))
        running = asyncio.ensure_future(to_list(stream))
        await until(lambda: len(doors.inside) == 3)
        sent = paced.sent
        doors.open(*range(9))
        return sent, doors.most, sorted(await running)

    assert (3, 3, list(range(9))) == run_virtual(main())


def test_a_given_executor_is_used_and_stays_open() -> None:
    """The caller who made it must close it."""
    with ThreadPoolExecutor(2, thread_name_prefix="given") as pool:

        async def main() -> Any:
            def name(_: int) -> str:
                return threading.current_thread().name

            stream = Supply(range(8))
            return await to_list(stream.pipe(map_blocking(name, executor=pool)))

        assert all(name.startswith("given") for name in run_virtual(main()))
        assert pool.submit(square, 3).result() == 9


def test_processes() -> None:
    """A function that can be imported runs in processes."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        stream = Supply(range(4)).pipe(map_blocking(square, executor=pool, ordered=True))
        assert [0, 1, 4, 9] == asyncio.run(to_list(stream))


def test_who_breaks_a_pool_fails_alone() -> None:
    """The pool is replaced, and the other items run in the new one."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        stream = Supply(range(6)).pipe(
            map_blocking(
                square_or_die,
                executor=pool,
                max_concurrent=3,
                ordered=True,
                on_error=lambda _, error: type(error).__name__,
            )
        )
        assert [0, 1, "HandlerCrashedError", 9, 16, 25] == asyncio.run(to_list(stream))


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_a_pool_that_was_shut_down_ends_the_stream(make: Any) -> None:
    """The error does not become the failure of each item, whatever the policy says."""
    pool = make(1)
    pool.shutdown()
    stream = Supply(range(5)).pipe(map_blocking(square, executor=pool, on_error="skip"))
    with pytest.raises(RuntimeError, match="after shutdown"):
        asyncio.run(to_list(stream))


def test_threads_that_cannot_start_end_the_stream() -> None:
    """The stream ends, as no item is to blame."""
    with ThreadPoolExecutor(1, initializer=broken) as pool:
        operator = map_blocking(square, executor=pool, max_concurrent=1, on_error="skip")
        with pytest.raises(BrokenExecutor):
            asyncio.run(to_list(Supply(range(5)).pipe(operator)))


def test_a_pool_that_drops_what_waits_ends_the_stream() -> None:
    """The stream ends if the caller shuts the pool down meanwhile."""

    async def main() -> Any:
        doors = Doors()
        pool = ThreadPoolExecutor(1)
        stream = Supply(range(5)).pipe(map_blocking(doors, executor=pool, on_error="skip"))
        running = asyncio.ensure_future(to_list(stream))
        await until(lambda: doors.inside == [0])
        pool.shutdown(wait=False, cancel_futures=True)
        doors.open(0)
        return await running

    with capture_logs(), pytest.raises(RuntimeError, match="the executor was shut down"):
        run_virtual(main())


def test_stop_passes_on_the_original_error() -> None:
    """The error passes, and the threads end."""

    def fail(item: int) -> int:
        raise KeyError(item)

    with pytest.raises(KeyError):
        run_virtual(to_list(Supply([1]).pipe(map_blocking(fail))))
    assert [] == own_threads()


def test_skipped_errors_do_not_hang() -> None:
    """More calls may fail than there are threads."""

    def fail(item: int) -> int:
        raise KeyError(item)

    with capture_logs() as logs:
        stream = Supply(range(20))
        operator = map_blocking(fail, max_concurrent=2, on_error="skip")
        assert [] == run_virtual(to_list(stream.pipe(operator)))
    assert ["map_blocking"] * 20 == [entry["operator"] for entry in logs]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_limit_reports_at_once_but_the_slot_stays_taken(ordered: bool) -> None:
    """The slot is free when the function returns, and its result is dropped."""

    async def main() -> list[Any]:
        doors = Doors()
        paced = Supply(["slow", "next"])
        got: list[Any] = []
        stream = paced.pipe(
            map_blocking(
                doors,
                max_concurrent=1,
                ordered=ordered,
                timeout=1000,
                on_error=lambda _, error: error,
            )
        )
        running = asyncio.ensure_future(run(stream.pipe(rx.do_action(got.append))))
        await until(lambda: bool(doors.inside))
        # In virtual time the limit passes at once, while the thread still waits.
        await asyncio.sleep(1500)
        assert [ItemTimeoutError] == [type(error) for error in got]
        assert ("slow", 1000.0) == (got[0].item, got[0].seconds)
        sent = paced.sent
        doors.open("slow", "next")
        # This waits in real time, or the limit of the second item would pass as well.
        await until(running.done)
        await running
        return [sent, got[1:]]

    assert [1, ["next"]] == run_virtual(main())
    assert [] == own_threads()


def test_a_limit_does_not_count_the_wait_for_a_thread() -> None:
    """An executor with other users may be busy for longer than an item may take."""

    async def main() -> list[Any]:
        doors = Doors()
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(doors, "other")
            stream = Supply(["first", "second"]).pipe(
                map_blocking(doors, executor=pool, timeout=5, on_error=lambda _, error: type(error))
            )
            running = asyncio.ensure_future(to_list(stream))
            await until(lambda: doors.inside == ["other"])
            await asyncio.sleep(100)
            doors.open("other")
            held.result()
            await until(lambda: doors.inside == ["first"])
            # In virtual time its limit passes at once, but not that of the waiting item.
            await asyncio.sleep(100)
            doors.open("first", "second")
            await until(running.done)
            return list(await running)

    assert [ItemTimeoutError, "second"] == run_virtual(main())


def test_a_limit_holds_in_a_process() -> None:
    """The start of the process does not count; the slot stays taken until the function returns."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        stream = Supply([1.5, 0.0])
        operator = map_blocking(
            nap, executor=pool, timeout=0.4, on_error=lambda _, error: str(error)
        )
        expected = ["an item of type float must be done within 0.4 s", 0.0]
        assert expected == asyncio.run(to_list(stream.pipe(operator)))


def test_generators_are_refused() -> None:
    """Generator functions are refused at once, or by their result if a decorator hides them."""

    def rows(item: int) -> Any:
        yield item

    with pytest.raises(ConfigError, match="fn must not be a generator function"):
        map_blocking(rows)

    def decorated(item: int) -> Any:
        return rows(item)

    with pytest.raises(TypeError, match="fn must return a result, got a generator"):
        run_virtual(to_list(Supply([1]).pipe(map_blocking(decorated))))


def test_completion_does_not_wait_for_a_function_whose_time_is_up() -> None:
    """The outcome of the item is known, and its thread ends with the function."""

    async def main() -> Doors:
        doors = Doors()
        with capture_logs():
            stream = Supply(["slow"])
            await run(stream.pipe(map_blocking(doors, timeout=1, on_error="skip")))
        return doors

    doors = run_virtual(main())
    doors.open("slow")
    assert [] == own_threads()


def test_a_key_stays_taken_while_a_function_runs_past_its_limit() -> None:
    """Two calls of one key never overlap."""

    async def main() -> list[Any]:
        doors = Doors()

        def late(item: Any, error: BaseException) -> str:
            return "late"

        source = Supply([("a", 1), ("a", 2)])
        stream = source.pipe(map_blocking(doors, key=_name, timeout=10, on_error=late))
        running = asyncio.ensure_future(to_list(stream))
        await until(lambda: bool(doors.inside))
        await asyncio.sleep(50)
        before = list(doors.inside)
        doors.open(("a", 1), ("a", 2))
        await until(running.done)
        return [before, doors.most, await running]

    assert [[("a", 1)], 1, ["late", ("a", 2)]] == run_virtual(main())


def test_disposal_leaves_no_thread() -> None:
    """Calls that have not begun never run, and nothing waits for running calls."""

    async def main() -> tuple[Doors, list[Any]]:
        doors = Doors()
        got: list[Any] = []
        subscription = (
            reactivex.range(9).pipe(map_blocking(doors, max_concurrent=2)).subscribe(got.append)
        )
        await until(lambda: len(doors.inside) == 2)
        subscription.dispose()
        doors.open(*range(9))
        await until(lambda: doors.inside == [])
        return doors, got

    with capture_logs():
        doors, got = run_virtual(main())
    assert ([], 2, []) == (got, doors.most, own_threads())


def test_the_loop_may_be_closed_before_the_function_returns() -> None:
    """The thread ends without a complaint."""

    async def main() -> Doors:
        doors = Doors()
        subscription = Supply([1]).pipe(map_blocking(doors)).subscribe()
        await until(lambda: bool(doors.inside))
        subscription.dispose()
        return doors

    doors = run_virtual(main())
    doors.open(1)
    assert [] == own_threads()


def test_an_error_after_the_end_is_reported() -> None:
    """The error is logged, as there is no subscriber any more."""

    async def main() -> None:
        doors = Doors()

        def fail(item: int) -> int:
            doors(item)
            raise KeyError(item)

        subscription = Supply([1]).pipe(map_blocking(fail)).subscribe()
        await until(lambda: bool(doors.inside))
        subscription.dispose()
        doors.open(1)
        await until(lambda: bool(logs))

    with capture_logs() as logs:
        run_virtual(main())
    assert [("error_after_end", "KeyError: 1")] == [(e["event"], e["error"]) for e in logs]


def test_threads_see_the_context_of_the_push() -> None:
    """Variables that a thread sets do not leave it."""
    name = contextvars.ContextVar("name", default="none")

    def fn(item: int) -> str:
        before = name.get()
        name.set(f"item {item}")
        return before

    async def main() -> list[Any]:
        name.set("subscriber")
        seen: list[str] = []
        stream = Supply(range(4)).pipe(map_blocking(fn, max_concurrent=1))
        await run(stream.pipe(rx.do_action(lambda value: seen.append(f"{value}, {name.get()}"))))
        return seen

    assert ["subscriber, subscriber"] * 4 == run_virtual(main())


def test_bad_arguments_are_refused() -> None:
    """A bad argument is refused when the operator is made."""

    async def coroutine(item: int) -> int:
        return item

    with pytest.raises(ConfigError, match="fn must be a plain function; map_async takes"):
        map_blocking(coroutine)
    with pytest.raises(ConfigError, match=r"executor must be a concurrent\.futures\.Executor"):
        map_blocking(square, executor=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="max_concurrent must be an int >= 1 or a Limit, got 0"):
        map_blocking(square, max_concurrent=0)

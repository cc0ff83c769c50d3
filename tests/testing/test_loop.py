"""The event loop with virtual time."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.testing import VirtualTimeLoop, run_virtual


def test_a_day_takes_no_time() -> None:
    """The clock starts at 0 and jumps over the sleep."""

    async def main() -> tuple[float, float]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        await asyncio.sleep(24 * 3600)
        await asyncio.sleep(30 * 24 * 3600)
        return start, loop.time()

    before = time.monotonic()
    assert (0.0, 31 * 24 * 3600.0) == run_virtual(main())
    assert time.monotonic() - before < 5


def test_the_clock_is_exactly_that_of_the_timer() -> None:
    """The clock shows exactly the time of the timer, without a rounding error."""

    async def main() -> list[bool]:
        loop = asyncio.get_running_loop()
        seen: list[bool] = []

        def note(when: float) -> None:
            seen.append(loop.time() == when)

        for n in range(1, 200):
            when = n * 0.1
            loop.call_at(when, note, when)
        await asyncio.sleep(30)
        return seen

    assert [True] * 199 == run_virtual(main())


def test_timers_that_are_close_to_each_other() -> None:
    """Time goes on even late in the day, where the steps of the clock are coarse."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(20_000)
        for _ in range(5):
            await asyncio.sleep(5e-6)
        return loop.time()

    assert 20_000.000_025 == pytest.approx(run_virtual(main()), abs=1e-8)


def test_timers_fire_in_order_and_cancelled_ones_do_not() -> None:
    """The order in which they were set does not matter."""

    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []

        def note(name: str) -> None:
            seen.append((name, loop.time()))

        for name, after in (("c", 3.0), ("a", 1.0), ("b", 2.0)):
            loop.call_later(after, note, name)
        loop.call_later(1.5, seen.append, ("never", 1.5)).cancel()
        await asyncio.sleep(10)
        return seen

    assert [("a", 1.0), ("b", 2.0), ("c", 3.0)] == run_virtual(main())


def test_time_stands_still_while_there_is_something_to_run() -> None:
    """The clock does not move for any number of turns."""

    async def main() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 0.0


def test_a_thread_can_wake_the_loop_when_no_timer_is_set() -> None:
    """The loop waits for the thread instead of jumping."""

    async def main() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[str] = loop.create_future()

        def other() -> None:
            time.sleep(0.02)
            loop.call_soon_threadsafe(woken.set_result, "woken")

        thread = threading.Thread(target=other)
        thread.start()
        result = await woken
        thread.join()
        return result, loop.time()

    assert ("woken", 0.0) == run_virtual(main())


def test_the_clock_does_not_jump_ahead_of_an_executor() -> None:
    """A timeout of a second does not pass while a thread works for a moment."""

    async def main() -> tuple[str, float]:
        def work() -> str:
            time.sleep(0.02)
            return "done"

        async with asyncio.timeout(60):
            result = await asyncio.to_thread(work)
        return result, asyncio.get_running_loop().time()

    assert ("done", 0.0) == run_virtual(main())


def test_a_thread_that_waits_for_a_timer_is_not_waited_for_without_end() -> None:
    """The loop waits a while in real time, then jumps."""

    async def main() -> bool:
        go = threading.Event()
        loop = asyncio.get_running_loop()
        loop.call_later(0.05, go.set)
        with ThreadPoolExecutor(1) as pool:
            return await loop.run_in_executor(pool, go.wait, 30)

    assert run_virtual(main())


def test_a_wait_that_nothing_can_end_raises() -> None:
    """The loop raises instead of hanging the test run."""
    if threading.active_count() > 1:
        pytest.skip("another thread could wake the loop")

    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(RuntimeError, match="something must be able to wake the loop"):
        run_virtual(main())


def test_what_is_left_is_cancelled_at_the_end() -> None:
    """The end is the same as with ``asyncio.run``."""
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append("cancelled")

    async def main() -> asyncio.Task[None]:
        task = asyncio.create_task(forever())
        await asyncio.sleep(1)
        return task

    assert run_virtual(main()).cancelled()
    assert ["cancelled"] == ended


def test_an_error_comes_out() -> None:
    """``run_virtual`` raises the error of the coroutine."""

    async def main() -> None:
        await asyncio.sleep(1)
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_virtual(main())


def test_two_loops_have_clocks_of_their_own() -> None:
    """Each clock starts at 0."""
    loops = VirtualTimeLoop(), VirtualTimeLoop()
    loops[0].run_until_complete(asyncio.sleep(5))
    assert [5.0, 0.0] == [loop.time() for loop in loops]
    for loop in loops:
        loop.close()


def test_turns_that_take_time() -> None:
    """A timer may be due before it is called, and callbacks see the time in between."""

    async def main() -> list[tuple[str, float]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[str, float]] = []
        loop.call_at(1.0, lambda: seen.append(("first", loop.time())))
        loop.call_at(1.4, lambda: seen.append(("timer", loop.time())))
        await asyncio.sleep(1.0 - loop.time())
        seen.append(("task", loop.time()))
        await asyncio.sleep(1)
        return seen

    assert [("first", 1.0), ("task", 1.5), ("timer", 1.5)] == run_virtual(main(), turn=0.5)


def test_turn_must_be_seconds() -> None:
    """The rule is that of all durations."""
    with pytest.raises(ConfigError, match="turn must"):
        VirtualTimeLoop(turn=-1.0)

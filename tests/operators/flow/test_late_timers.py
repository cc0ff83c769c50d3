"""Timers that serve many deadlines, on a loop that calls them late."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import operators as rx
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.streams import run
from rxdispatch.testing import Supply, VirtualTimeLoop, run_virtual

turns = st.floats(0.0001, 0.02)
blocks = st.lists(st.floats(0.0, 0.05), min_size=1, max_size=8)


def block(seconds: float) -> None:
    """Let time pass while the loop is blocked."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.advance(seconds)


def test_a_token_that_is_spent_before_its_timer_is_called() -> None:
    """A timer that comes too late is set again, so that the source goes on."""

    async def main() -> Any:
        ingress = rxd.Ingress[int](100)
        done = asyncio.create_task(run(ingress.pipe(ops.rate_limit(100, burst=5), rx.to_list())))
        await asyncio.sleep(0)
        for n in range(60):
            ingress.offer(n)
        await asyncio.sleep(0.1)
        block(0.03)
        # Closing asks for room while the timer is due but has not been called.
        ingress.close()
        return await asyncio.wait_for(done, 5)

    assert list(range(60)) == run_virtual(main())


def test_rate_limit_on_a_loop_whose_turns_take_time() -> None:
    """Sometimes work ends when a token is due, but the timer has not been called yet."""
    rng = random.Random(1)

    async def work(n: int) -> int:
        await asyncio.sleep(rng.uniform(0.0005, 0.0019))
        return n

    async def main() -> Any:
        stream = Supply(range(3000)).pipe(
            ops.rate_limit(500), ops.map_async(work, max_concurrent=4, ordered=True), rx.to_list()
        )
        return await asyncio.wait_for(run(stream), 60)

    assert list(range(3000)) == run_virtual(main(), turn=0.00007)


@settings(max_examples=60, deadline=None)
@given(blocks, st.integers(1, 10), st.integers(1, 5), st.floats(0.0, 1.0))
def test_rate_limit_never_stands_still(
    late: list[float], burst: int, room: int, share: float
) -> None:
    """All items come in order, however late the loop is."""
    count, turn = 50, 0.002

    async def work(n: int) -> int:
        # The work ends shortly before or after a token is due.
        await asyncio.sleep(1 / count - 5 * turn * share)
        if n % 5 == 0:
            block(late[n % len(late)])
        return n

    async def main() -> Any:
        stream = Supply(range(60)).pipe(
            ops.rate_limit(count, burst=burst),
            ops.map_async(work, max_concurrent=room, ordered=True),
            rx.to_list(),
        )
        return await asyncio.wait_for(run(stream), 1000)

    assert list(range(60)) == run_virtual(main(), turn=turn)


@settings(max_examples=60, deadline=None)
@given(turns, blocks, st.integers(1, 5), st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_what_is_delayed_comes_out(
    turn: float, late: list[float], room: int, delays: list[float]
) -> None:
    """``delay_until`` and ``DelayedIngress`` emit all items to a consumer that often blocks."""

    async def work(n: int) -> int:
        await asyncio.sleep(0.01)
        block(late[n % len(late)])
        return n

    def due(n: int) -> float:
        return delays[n]

    async def main() -> tuple[Any, Any]:
        ingress = rxd.DelayedIngress[int](100)
        for n, delay in enumerate(delays):
            ingress.offer(n, delay=delay)
        ingress.close()
        delayed = run(ingress.pipe(ops.map_async(work, max_concurrent=room), rx.to_list()))
        held = run(
            Supply(range(len(delays))).pipe(
                ops.delay_until(due, size=3),
                ops.map_async(work, max_concurrent=room),
                rx.to_list(),
            )
        )
        return await asyncio.wait_for(asyncio.gather(delayed, held), 1000)

    for got in run_virtual(main(), turn=turn):
        assert list(range(len(delays))) == sorted(got)


@settings(max_examples=60, deadline=None)
@given(turns, blocks, st.integers(1, 5), st.lists(st.floats(0, 0.5), min_size=1, max_size=30))
def test_no_list_stays_behind(
    turn: float, late: list[float], count: int, gaps: list[float]
) -> None:
    """``batch`` emits each list without another item, and without the completion."""

    async def main() -> list[int]:
        ingress = rxd.Ingress[int](100)
        got: list[int] = []
        with ingress.pipe(ops.batch(count, 0.1)).subscribe(got.extend):
            for n, gap in enumerate(gaps):
                await ingress.put(n)
                block(late[n % len(late)])
                await asyncio.sleep(gap)
            await asyncio.sleep(10)
        return got

    assert list(range(len(gaps))) == run_virtual(main(), turn=turn)


@settings(max_examples=60, deadline=None)
@given(turns, blocks, st.lists(st.floats(0, 0.5), min_size=1, max_size=20))
def test_time_limits_are_kept(turn: float, late: list[float], gaps: list[float]) -> None:
    """``timeout`` of ``map_async`` and ``timeout_idle`` end work that takes too long."""

    async def work(n: int) -> None:
        block(late[n % len(late)])
        await (asyncio.Event().wait() if n % 2 else asyncio.sleep(0))

    async def main() -> BaseException | None:
        ingress = rxd.Ingress[int](100)
        stream = ingress.pipe(
            ops.map_async(work, timeout=0.2, on_error="skip"), ops.timeout_idle(30.0)
        )
        done = asyncio.create_task(run(stream))
        for n, gap in enumerate(gaps):
            await ingress.put(n)
            await asyncio.sleep(gap)
        await asyncio.wait_for(ingress.wait_empty(), 10)
        await asyncio.wait({done}, timeout=1000)
        return done.exception() if done.done() else None

    with capture_logs():
        assert rxd.ItemTimeoutError is type(run_virtual(main(), turn=turn))

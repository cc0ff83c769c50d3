"""``KillSwitch``: draining, its time limit, and aborting."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError, ItemTimeoutError
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.streams import KillSwitch, run
from rxdispatch.testing import Probe, Supply, run_virtual


async def slow(item: Any) -> Any:
    """Return the item after ten seconds."""
    await asyncio.sleep(10)
    return item


def test_a_gate_changes_nothing_until_then() -> None:
    """Values, completion, errors and demand pass until the drain."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        paced = Supply(range(4))
        stream = paced.pipe(switch.gate(), map_async(slow, max_concurrent=2))
        first = await run(stream.pipe(rx.to_list()))
        with pytest.raises(OSError, match="x"):
            await run(reactivex.throw(OSError("x")).pipe(switch.gate()))
        return [first, paced.most_room, await switch.drain(0)]

    assert [[0, 1, 2, 3], 2, True] == run_virtual(main())


def test_drain_finishes_what_is_at_work_and_flushes() -> None:
    """The source stops at once; the drain ends when the subscriber has everything."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        paced = Supply(range(1000))
        stream = paced.pipe(
            switch.gate(), map_async(slow, max_concurrent=4, ordered=True), batch(3, 60)
        )
        running = asyncio.ensure_future(run(stream.pipe(rx.to_list())))
        await asyncio.sleep(15)
        assert await switch.drain(20)
        return [asyncio.get_running_loop().time(), paced.sent, paced.disposed, await running]

    expected = [[0, 1, 2], [3, 4, 5], [6, 7]]
    assert [20.0, 8, 1, expected] == run_virtual(main())


def test_drain_waits_for_streams_whose_source_has_ended_before() -> None:
    """Their running work counts too."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        running = asyncio.ensure_future(run(Supply([1]).pipe(switch.gate(), map_async(slow))))
        await asyncio.sleep(1)
        return [await switch.drain(60), asyncio.get_running_loop().time(), await running]

    assert [True, 10.0, 1] == run_virtual(main())


def test_drain_without_run() -> None:
    """With a plain subscription, the lowest operator with a valve marks the end."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        log = Probe()
        source: Subject[int] = Subject()
        source.pipe(switch.gate(), map_async(slow), batch(5, 60), rx.map(len)).subscribe(log)
        source.on_next(1)
        await asyncio.sleep(1)
        drained = await switch.drain(60)
        return [drained, *log.timeline, len(source.observers)]

    assert [True, (10.0, 1), (10.0, "|"), 0] == run_virtual(main())


def test_drain_of_a_stream_without_any_valve() -> None:
    """The drain ends as soon as the stream is completed."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        log = Probe()
        source: Subject[int] = Subject()
        source.pipe(switch.gate(), rx.to_list()).subscribe(log)
        source.on_next(1)
        return [await switch.drain(0), *log.timeline]

    assert [True, (0.0, [1]), (0.0, "|")] == run_virtual(main())


def test_a_drain_that_takes_too_long_aborts() -> None:
    """Running work is cancelled, and the error has the timeout."""

    async def main() -> list[Any]:
        cancelled: list[int] = []

        async def stuck(item: int) -> int:
            try:
                await asyncio.sleep(1e6)
            except asyncio.CancelledError:
                cancelled.append(item)
                raise
            return item

        switch = KillSwitch()
        stream = Supply(range(9)).pipe(
            switch.gate(), map_async(stuck, max_concurrent=2), batch(3, 60)
        )
        running = asyncio.ensure_future(run(stream))
        await asyncio.sleep(1)
        drained = await switch.drain(5)
        with pytest.raises(ItemTimeoutError) as caught:
            await running
        return [
            drained,
            asyncio.get_running_loop().time(),
            cancelled,
            caught.value.seconds,
            await switch.drain(5),
        ]

    assert [False, 6.0, [0, 1], 5.0, False] == run_virtual(main())


def test_a_drain_that_takes_too_long_without_run() -> None:
    """The lowest operator ends with the error, and everything above is disposed."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        log = Probe()
        stream = Supply(range(9)).pipe(switch.gate(), map_async(slow), batch(3, 60))
        stream.subscribe(log)
        drained = await switch.drain(3)
        await asyncio.sleep(100)
        return [drained, [(when, type(error)) for when, error in log.timeline]]

    assert [False, [(3.0, ItemTimeoutError)]] == run_virtual(main())


def test_a_drain_of_no_time_aborts_at_once() -> None:
    """Without running work, such a drain does not abort."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        log = Probe()
        Supply([1]).pipe(switch.gate(), map_async(slow)).subscribe(log)
        return [await switch.drain(0), log.timeline[0][0]]

    assert [False, 0.0] == run_virtual(main())


def test_drain_is_idempotent() -> None:
    """Two calls at once and a later one give the same answer."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        log = Probe()
        Supply(range(2)).pipe(switch.gate(), map_async(slow)).subscribe(log)
        both = await asyncio.gather(switch.drain(60), switch.drain())
        return [*both, await switch.drain(0), [item for _, item in log.timeline]]

    assert [True, True, True, [0, 1, "|"]] == run_virtual(main())


def test_a_cancelled_drain_leaves_the_streams_draining() -> None:
    """Another drain may wait for them."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        running = asyncio.ensure_future(
            run(Supply(range(99)).pipe(switch.gate(), map_async(slow, max_concurrent=1)))
        )
        await asyncio.sleep(1)
        first = asyncio.ensure_future(switch.drain())
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.wait([first])
        return [first.cancelled(), await switch.drain(60), await running]

    assert [True, True, 0] == run_virtual(main())


def test_several_streams_share_a_switch() -> None:
    """The drain waits for the last of them."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        gate = switch.gate()
        streams = [
            Supply([seconds] * 9).pipe(gate, map_async(asyncio.sleep, max_concurrent=1))
            for seconds in (5, 20)
        ]
        running = [asyncio.ensure_future(run(stream)) for stream in streams]
        await asyncio.sleep(1)
        drained = await switch.drain(60)
        time = asyncio.get_running_loop().time()
        await asyncio.gather(*running)
        return [drained, time]

    assert [True, 20.0] == run_virtual(main())


def test_two_gates_merged_into_one_stream() -> None:
    """The stream ends when both gates have completed."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        merged = reactivex.merge(
            Supply(range(99)).pipe(switch.gate()),
            Subject[int]().pipe(switch.gate()),
        )
        running = asyncio.ensure_future(run(merged.pipe(map_async(slow, max_concurrent=1))))
        await asyncio.sleep(1)
        return [await switch.drain(60), await running]

    assert [True, 0] == run_virtual(main())


def test_a_stream_that_is_started_again_is_followed() -> None:
    """Below a retry, the current gate counts."""

    async def main() -> list[Any]:
        tries = 0

        async def flaky(item: int) -> int:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise OSError
            return item

        switch = KillSwitch()
        source = Supply(range(3)).pipe(rx.concat(reactivex.never()))
        stream = source.pipe(switch.gate(), map_async(flaky), retry_backoff(), map_async(slow))
        running = asyncio.ensure_future(run(stream.pipe(rx.to_set())))
        await asyncio.sleep(5)
        return [await switch.drain(60), await running]

    assert [True, {0, 1, 2}] == run_virtual(main())


def test_a_drain_while_a_retry_waits() -> None:
    """The next attempt completes at once."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        stream = reactivex.throw(OSError("x")).pipe(switch.gate(), retry_backoff())
        running = asyncio.ensure_future(run(stream))
        await asyncio.sleep(1)
        return [await switch.drain(60), await running]

    assert [True, None] == run_virtual(main())


def test_a_stream_started_after_the_drain_completes_at_once() -> None:
    """Its source is not subscribed to."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        drained = await switch.drain(0)
        paced = Supply([1])
        return [drained, await run(paced.pipe(switch.gate())), paced.sent]

    assert [True, None, 0] == run_virtual(main())


def test_disposal_by_the_subscriber() -> None:
    """The switch forgets the stream, even from inside ``on_next``."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        source: Subject[int] = Subject()
        source.pipe(switch.gate(), map_async(slow)).subscribe().dispose()
        source.pipe(switch.gate(), rx.take(1)).subscribe()
        source.on_next(1)
        return [len(source.observers), await switch.drain(0)]

    assert [0, True] == run_virtual(main())


def test_abort_ends_the_streams_with_the_error() -> None:
    """Running work is cancelled; buffers follow the rules of their operators."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        log = Probe()
        error = OSError("enough")
        source: Subject[int] = Subject()
        source.pipe(switch.gate(), batch(5, 60)).subscribe(log)
        other = Probe()
        source.pipe(switch.gate(), map_async(slow)).subscribe(other)
        source.on_next(1)
        await asyncio.sleep(1)
        switch.abort(error)
        assert [[(1.0, [1]), (1.0, error)], [(1.0, error)]] == [log.timeline, other.timeline]
        late = Probe()
        source.pipe(switch.gate()).subscribe(late)
        await asyncio.sleep(60)
        return [
            len(log.timeline),
            len(other.timeline),
            late.timeline == [(1.0, error)],
            await switch.drain(1),
        ]

    assert [2, 1, True, False] == run_virtual(main())


def test_abort_while_a_drain_waits() -> None:
    """The drain ends and returns False."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        running = asyncio.ensure_future(run(Supply(range(9)).pipe(switch.gate(), map_async(slow))))
        draining = asyncio.ensure_future(switch.drain(60))
        await asyncio.sleep(1)
        switch.abort(OSError("enough"))
        with pytest.raises(OSError, match="enough"):
            await running
        return [await draining, asyncio.get_running_loop().time()]

    assert [False, 1.0] == run_virtual(main())


def test_many_inner_streams_leave_nothing_behind() -> None:
    """The switch only keeps running streams."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        stream = reactivex.range(500).pipe(
            rx.flat_map(lambda n: reactivex.of(n).pipe(switch.gate())), map_async(slow)
        )
        running = asyncio.ensure_future(run(stream))
        await asyncio.sleep(1)
        kept = [len(switch._subscriptions), len(switch._open)]
        await running
        return [kept, len(switch._subscriptions), len(switch._open)]

    with capture_logs():
        assert [[0, 1], 0, 0] == run_virtual(main())


def test_bad_arguments_are_refused() -> None:
    """Bad arguments are refused before anything stops."""

    async def main() -> bool:
        switch = KillSwitch()
        with pytest.raises(ConfigError, match="timeout must be a finite number of seconds >= 0"):
            await switch.drain(-1)
        with pytest.raises(ConfigError, match="error must be an exception, got 'x'"):
            switch.abort("x")  # type: ignore[arg-type]
        return await run(reactivex.of(1).pipe(switch.gate())) == 1

    assert run_virtual(main())

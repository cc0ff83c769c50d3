"""Pipelines: pace, bounds, order, and the end."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch.testing import Probe, VirtualTimeLoop


@pytest.fixture(autouse=True)
def loop_factory() -> type[VirtualTimeLoop]:
    """Run every test in virtual time."""
    return VirtualTimeLoop


def takes(seconds: float, name: str = "work", **options: Any) -> rxd.Stage:
    """Return a stage whose items take *seconds*."""

    async def work(item: Any) -> Any:
        await asyncio.sleep(seconds)
        return item

    return rxd.stage(work, name=name, **options)


def now() -> float:
    """Return the virtual time."""
    return asyncio.get_running_loop().time()


# ------------------------------------------------ how long it takes


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize(
    "shape",
    [
        [(1.0, 4)],
        [(1.0, 4), (2.0, 4)],
        [(2.0, 1), (1.0, 1), (0.5, 1)],
        [(10.0, 100), (0.1, 1)],
        [(0.1, 1), (10.0, 100)],
        [(0.1, 1), (10.0, 100), (0.1, 1), (1.0, 20)],
        [(1.0, 3), (0.5, 2), (3.0, 16), (2.0, 8), (0.1, 1), (1.0, 5), (1.0, 4), (2.5, 10)],
    ],
    ids=str,
)
async def test_the_slowest_stage_sets_the_pace(
    shape: list[tuple[float, int]], ordered: bool
) -> None:
    """All stages together take hardly longer than the slowest one, plus one item's way through."""
    items = 300
    stages = [takes(t, f"s{n}", max_concurrent=c) for n, (t, c) in enumerate(shape)]
    got: list[int] = []
    async with rxd.Pipeline(*stages, ordered=ordered) as p:
        p.results.subscribe(got.append)
        assert items == await p.feed(range(items))
    slowest = max(t * math.ceil(items / c) for t, c in shape)
    assert now() <= 1.15 * (slowest + sum(t for t, _ in shape))
    assert list(range(items)) == sorted(got)


async def test_a_stage_alone_works_in_rounds() -> None:
    """Each round takes as many items as there are slots, and the time is exact."""
    async with rxd.Pipeline(takes(1.0, max_concurrent=4)) as p:
        await p.feed(range(100))
    assert 25.0 == now()


async def test_the_pipeline_of_equal_stages_takes_a_round_more_for_each() -> None:
    """The stages overlap."""
    stages = [takes(1.0, f"s{n}", max_concurrent=2) for n in range(8)]
    async with rxd.Pipeline(*stages) as p:
        await p.feed(range(20))
    assert 10 + 7 == now()


# ------------------------------------------------ how much it holds


async def test_a_slow_stage_holds_up_those_before_it() -> None:
    """The items in the pipeline fit its queues and slots, and submit waits."""
    stages = [
        takes(0.01, "fast", max_concurrent=3, queue_size=4),
        takes(10.0, "slow", max_concurrent=2, queue_size=5),
        takes(0.01, "last", max_concurrent=3, queue_size=4),
    ]
    worst = 0
    async with rxd.Pipeline(*stages) as p:
        for n in range(60):
            await p.submit(n)
            # An item counts as begun from the loop's next turn on.
            await asyncio.sleep(0)
            seen = p.stats
            worst = max(worst, seen.submitted - seen.results)
            assert seen.stages["slow"].queued <= 5 + 3
            assert seen.stages["slow"].in_flight <= 2
            assert seen.stages["fast"].queued <= 4
    assert worst <= 4 + 3 + 5 + 2 + 3
    assert 60 == p.stats.results


async def test_a_source_is_asked_for_what_fits() -> None:
    """An async iterable is not read ahead of the pipeline."""
    read = 0

    async def source() -> AsyncIterator[int]:
        nonlocal read
        for n in range(1000):
            read += 1
            yield n

    async with rxd.Pipeline(takes(1.0, max_concurrent=1, queue_size=2), source=source()) as p:
        await asyncio.sleep(10.5)
        assert 10 == p.stats.results
        # Done, in progress, in the queue, waiting for a place there, and in the reader.
        assert 10 + 1 + 2 + 1 + 16 >= read
        assert await p.drain()
    assert read == p.stats.results


async def test_a_slow_reader_of_results_holds_up_submit() -> None:
    """No item begins while there is no room for its result."""
    async with rxd.Pipeline(takes(0.01, max_concurrent=2, queue_size=3)) as p:
        reader = rxd.to_async_iterable(p.results, size=5)
        first = asyncio.create_task(anext(reader))
        feeding = asyncio.create_task(p.feed(range(100)))
        await asyncio.sleep(100)
        assert not feeding.done()
        assert 5 + 1 + 16 + 2 >= p.stats.results
        got = [await first]
        closing = asyncio.create_task(p.drain())
        got += [n async for n in reader]
        assert await closing
        assert list(range(await feeding)) == sorted(got)


async def test_a_slow_reader_of_failures_holds_up_new_items() -> None:
    """A bounded number of failures waits for the reader."""

    async def fail(_: Any) -> None:
        raise ValueError

    async with rxd.Pipeline(rxd.stage(fail, max_concurrent=2, queue_size=3)) as p:
        probe = Probe(room=0).watch(p.failures)
        feeding = asyncio.create_task(p.feed(range(100)))
        await asyncio.sleep(100)
        assert 16 + 2 >= p.stats.failed
        probe.open(1000)
        assert 100 == await feeding
    assert 100 == len(probe.items)
    assert probe.completed


async def test_a_reader_that_leaves_lets_the_pipeline_go_on() -> None:
    """Later results are dropped and counted."""
    async with rxd.Pipeline(takes(0.01, queue_size=1, max_concurrent=1)) as p:
        probe = Probe(room=0).watch(p.results)
        feeding = asyncio.create_task(p.feed(range(100)))
        await asyncio.sleep(100)
        assert not feeding.done()
        probe.dispose()
        assert 100 == await feeding
    assert 100 == p.stats.results


# ------------------------------------------------ order, batches


async def test_results_come_in_order_if_asked_for() -> None:
    """Failed items are left out, and slow ones waited for, across all stages."""

    async def uneven(n: int) -> int:
        await asyncio.sleep((n * 7) % 5)
        if n % 10 == 3:
            raise ValueError(n)
        return n

    got: list[int] = []
    failed: list[rxd.StageError] = []
    stages = [
        rxd.stage(uneven, name="a"),
        rxd.stage(lambda ns: ns, name="b", batch=(3, 0.5), max_concurrent=2),
        takes(0.3, "c", max_concurrent=3),
    ]
    async with rxd.Pipeline(*stages, ordered=True) as p:
        p.results.subscribe(got.append)
        p.failures.subscribe(failed.append)
        await p.feed(range(50))
    assert [n for n in range(50) if n % 10 != 3] == got
    assert [3, 13, 23, 33, 43] == [failure.item for failure in failed]


async def test_results_come_as_they_are_ready() -> None:
    """Without order, slow items are overtaken."""

    async def uneven(n: int) -> int:
        await asyncio.sleep(10 if n == 0 else 1)
        return n

    got: list[int] = []
    async with rxd.Pipeline(rxd.stage(uneven)) as p:
        p.results.subscribe(got.append)
        await p.feed(range(4))
    assert [1, 2, 3, 0] == got


@pytest.mark.parametrize("gap", [0.0, 0.001, 0.02, 0.09, 0.3])
async def test_batches_are_bounded_in_size_and_time_at_every_load(gap: float) -> None:
    """No list is longer than the count, and no item waits longer than the time."""
    came: dict[int, float] = {}
    sizes: list[int] = []
    waits: list[float] = []

    async def write(items: list[int]) -> list[int]:
        sizes.append(len(items))
        waits.extend(now() - came[item] for item in items)
        await asyncio.sleep(0.05)
        return items

    async with rxd.Pipeline(rxd.stage(write, batch=(10, 0.1), max_concurrent=16)) as p:
        for n in range(200):
            came[n] = now()
            await p.submit(n)
            await asyncio.sleep(gap)
    assert max(sizes) <= 10
    assert sum(sizes) == 200
    assert max(waits) <= 0.1 + 1e-9
    if gap == 0:
        assert [10] * 20 == sizes


async def test_batches_fill_while_the_slots_are_busy() -> None:
    """Items that wait for a slot make full lists, not many small ones."""
    sizes: list[int] = []

    async def write(items: list[int]) -> list[int]:
        sizes.append(len(items))
        await asyncio.sleep(1.0)
        return items

    async with rxd.Pipeline(rxd.stage(write, batch=(10, 0.1), max_concurrent=1)) as p:
        for n in range(100):
            await p.submit(n)
            await asyncio.sleep(0.05)
    assert [2] == sizes[:1]
    assert len(sizes) <= 12


# ------------------------------------------------ what goes in


async def test_every_kind_of_source_is_fed() -> None:
    """Observables, async iterables and iterables can be fed."""

    async def numbers() -> AsyncIterator[int]:
        yield 3
        yield 4

    got: list[int] = []
    async with rxd.Pipeline(takes(0.1), ordered=True) as p:
        p.results.subscribe(got.append)
        assert 3 == await p.feed(reactivex.range(3))
        assert 2 == await p.feed(numbers())
        assert 1 == await p.feed([5])
    assert list(range(6)) == got


@pytest.mark.parametrize("kind", ["observable", "iterable", "generator"])
async def test_the_end_of_a_source_closes_the_pipeline(kind: str) -> None:
    """The results can then be read to the end inside the block."""

    async def numbers() -> AsyncIterator[int]:
        for n in range(40):
            yield n

    sources: dict[str, Any] = {
        "observable": reactivex.range(40),
        "iterable": range(40),
        "generator": numbers(),
    }
    async with rxd.Pipeline(takes(1.0), source=sources[kind]) as p:
        got = [n async for n in rxd.to_async_iterable(p.results)]
        assert list(range(40)) == sorted(got)
        with pytest.raises(rxd.TaskRejectedError, match="the pipeline is closed"):
            await p.submit(1)


async def test_leaving_waits_for_the_source() -> None:
    """All items of the source are done."""
    async with rxd.Pipeline(takes(1.0, max_concurrent=2), source=range(10)) as p:
        pass
    assert (5.0, 10) == (now(), p.stats.results)


async def test_the_error_of_a_source_is_raised_after_its_items() -> None:
    """``feed`` raises it, or leaving the block does."""
    failing = reactivex.range(3).pipe(rx.concat(reactivex.throw(ValueError("gone"))))
    p = rxd.Pipeline(takes(1.0), source=failing)
    with pytest.raises(ValueError, match="gone"):
        async with p:
            pass
    assert 3 == p.stats.results
    async with rxd.Pipeline(takes(1.0)) as p:
        with pytest.raises(ValueError, match="gone"):
            await p.feed(failing)
    assert 3 == p.stats.results


async def test_ids_are_new_or_given() -> None:
    """A failure has the id that submit returned."""

    async def fail(_: Any) -> None:
        raise ValueError

    failed: list[rxd.StageError] = []
    async with rxd.Pipeline(rxd.stage(fail)) as p:
        p.failures.subscribe(failed.append)
        ids = [await p.submit(1), await p.submit(2), await p.submit(3, id="three")]
        with pytest.raises(rxd.ConfigError, match="id must be a str of 1 to 200"):
            await p.submit(4, id="")
    assert ids == [failure.task_id for failure in failed]
    assert "three" == ids[2]
    assert 3 == len(set(ids))


async def test_a_submit_that_is_cancelled_puts_nothing_in() -> None:
    """The place of a cancelled submit goes to the next one."""
    got: list[int] = []
    async with rxd.Pipeline(takes(1.0, max_concurrent=1, queue_size=1)) as p:
        p.results.subscribe(got.append)
        await p.submit(0)
        await p.submit(1)
        waiting = asyncio.create_task(p.submit(2))
        await asyncio.sleep(0.5)
        waiting.cancel()
        await p.submit(3)
    assert [0, 1, 3] == got
    assert waiting.cancelled()


# ------------------------------------------------ the end


async def test_drain_takes_no_more_and_finishes_the_rest() -> None:
    """Submits that wait for a place are refused; all accepted items come out."""
    accepted: list[int] = []
    refused: list[int] = []
    got: list[int] = []

    async def produce(n: int) -> None:
        try:
            await p.submit(n)
            accepted.append(n)
        except rxd.TaskRejectedError:
            refused.append(n)

    stages = [takes(1.0, f"s{n}", max_concurrent=2, queue_size=2) for n in range(3)]
    async with rxd.Pipeline(*stages) as p:
        p.results.subscribe(got.append)
        producers = [asyncio.create_task(produce(n)) for n in range(50)]
        await asyncio.sleep(4.5)
        assert await p.drain()
        assert await p.drain()
        await asyncio.gather(*producers)
    assert sorted(accepted) == sorted(got)
    assert refused


@pytest.mark.parametrize("when", [0.0, 0.05, 0.5, 1.5, 2.0, 7.25, 30.0])
async def test_drain_loses_nothing_from_any_state(when: float) -> None:
    """Whenever ``drain`` is called, all items that were taken from a source come out."""
    taken = 0

    async def source() -> AsyncIterator[int]:
        nonlocal taken
        for n in range(80):
            await asyncio.sleep(0.1 if n % 3 else 0)
            taken = n + 1
            yield n

    async def list_of(items: list[int]) -> list[int]:
        await asyncio.sleep(0.7)
        return items

    got: list[int] = []
    stages = [takes(1.0, "a", queue_size=3), rxd.stage(list_of, batch=(4, 0.3), max_concurrent=1)]
    async with rxd.Pipeline(*stages) as p:
        p.results.subscribe(got.append)
        feeding = asyncio.create_task(p.feed(source()))
        await asyncio.sleep(when)
        assert await p.drain()
        assert await feeding == taken == len(got)
    assert list(range(taken)) == sorted(got)


async def test_drain_has_a_timeout() -> None:
    """The remaining items are cancelled, and have ended when ``drain`` returns."""
    ended: list[int] = []

    async def slow(n: int) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            ended.append(n)

    async with rxd.Pipeline(rxd.stage(slow, max_concurrent=2)) as p:
        probe = Probe().watch(p.results)
        for n in range(5):
            await p.submit(n)
        assert not await p.drain(10)
        assert [0, 1] == ended
        assert isinstance(probe.error, rxd.ItemTimeoutError)
        assert not await p.drain()
    assert 11 == now()


async def test_an_exception_cancels() -> None:
    """Subscribers get the error; waiting feeds and submits are refused."""
    running = 0

    async def slow(_: int) -> None:
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(100)
        finally:
            await asyncio.sleep(1)
            running -= 1

    async def leave() -> None:
        stages = rxd.stage(slow, max_concurrent=2, queue_size=1)
        async with rxd.Pipeline(stages, source=reactivex.range(20)) as p:
            probes.extend([Probe().watch(p.results), Probe().watch(p.failures)])
            tasks.append(asyncio.create_task(p.submit(1)))
            tasks.append(asyncio.create_task(p.feed(range(20))))
            await asyncio.sleep(5)
            assert 2 == running
            raise ValueError("enough")

    probes: list[Probe] = []
    tasks: list[asyncio.Task[Any]] = []
    with pytest.raises(ValueError, match="enough"):
        await leave()
    assert 0 == running
    assert 6 == now()
    assert isinstance(probes[0].error, ValueError)
    assert probes[1].completed
    for task in tasks:
        with pytest.raises(rxd.TaskRejectedError, match="the pipeline is closed"):
            await task


@pytest.mark.parametrize("inside", [True, False])
async def test_a_cancellation_cancels(inside: bool) -> None:
    """A cancellation works in the block, and while the pipeline drains."""

    async def main() -> None:
        async with rxd.Pipeline(takes(100.0)) as p:
            probes.append(Probe().watch(p.results))
            await p.feed(range(5))
            if inside:
                await asyncio.sleep(50)

    probes: list[Probe] = []
    task = asyncio.create_task(main())
    await asyncio.sleep(10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(probes[0].error, rxd.TaskRejectedError)


async def test_a_drain_that_is_cancelled_leaves_the_pipeline_draining() -> None:
    """The drain goes on without the caller."""
    async with rxd.Pipeline(takes(10.0)) as p:
        await p.feed(range(5))
        draining = asyncio.create_task(p.drain())
        await asyncio.sleep(1)
        draining.cancel()
        with pytest.raises(rxd.TaskRejectedError):
            await p.submit(1)
    assert 5 == p.stats.results


async def test_results_after_the_end_are_just_the_end() -> None:
    """A later subscriber only sees the completion, even if it is the first."""
    async with rxd.Pipeline(takes(1.0)) as p:
        await p.submit(1)
    late, failures = Probe().watch(p.results), Probe().watch(p.failures)
    stats = Probe().watch(p.stats_every(1.0))
    assert (True, []) == (late.completed, late.items)
    assert (True, []) == (failures.completed, failures.items)
    await stats.wait()
    assert stats.completed


async def test_a_subscriber_that_raises_harms_no_other() -> None:
    """The other subscribers get everything."""
    got: list[int] = []

    def bad(_: int) -> None:
        raise ValueError

    with capture_logs() as logs:
        async with rxd.Pipeline(takes(1.0)) as p:
            p.results.subscribe(bad, on_error=lambda _: None)
            p.results.subscribe(got.append)
            await p.feed(range(3))
    assert [0, 1, 2] == sorted(got)
    assert ["subscriber_failed"] == [log["event"] for log in logs]


async def test_subscribers_that_raise_harm_no_other() -> None:
    """Subscribers may raise in ``on_next``, ``on_error`` or ``on_completed`` of any stream."""
    seen: list[Any] = []

    def bad(*_: Any) -> None:
        raise ValueError

    async def odd(n: int) -> int:
        if n == 1:
            raise KeyError(n)
        return n

    trouble: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    with capture_logs():
        async with rxd.Pipeline(rxd.stage(odd)) as p:
            for stream in (p.results, p.failures, p.stats_every(0.01)):
                stream.subscribe(bad)
                stream.subscribe(bad, bad, bad)
                stream.subscribe(lambda _: None, bad, bad)
                stream.subscribe(lambda _: None, on_completed=lambda: seen.append("|"))
            p.results.subscribe(seen.append)
            await p.feed(range(3))
            await asyncio.sleep(0.05)
    assert [0, 2, "|", "|", "|"] == seen
    # Only the pipeline's own timers may fire now.
    assert {ValueError} >= {type(context["exception"]) for context in trouble}
    trouble.clear()


async def test_subscribers_of_a_graph_that_raise_harm_no_other() -> None:
    """The graph ends, and the others see its end."""
    seen: list[Any] = []

    def bad(*_: Any) -> None:
        raise ValueError

    graph = rxd.Graph()
    graph.add_node("a", takes(0.01).fn)
    graph.add_node("b", takes(0.01).fn)
    graph.connect("a", "b")
    with capture_logs():
        async with graph.run() as run:
            for stream in (run.results("a"), run.failures, run.results("b")):
                stream.subscribe(bad, bad, bad)
                stream.subscribe(lambda _: None, bad, bad)
                stream.subscribe(seen.append, on_completed=lambda: seen.append("|"))
            for n in range(2):
                await run.submit("a", n)
    assert [0, 0, 1, 1, "|", "|", "|"] == sorted(seen, key=str)


def test_a_function_may_be_used_twice() -> None:
    """The name of its second stage gets a number."""
    twice = rxd.stage(len)
    p = rxd.Pipeline(twice, rxd.stage(len, name="len-2"), twice, rxd.stage(str), rxd.stage(len))
    assert ["len", "len-2", "len-3", "str", "len-4"] == [stage.name for stage in p.stages]
    assert p.stage("len-3").fn is len


async def test_a_pipeline_is_used_once() -> None:
    """Use before entry, after the end, and a second entry are refused."""
    p = rxd.Pipeline(takes(1.0))
    with pytest.raises(rxd.TaskRejectedError, match="must be entered first"):
        await p.submit(1)
    with pytest.raises(rxd.TaskRejectedError, match="must be entered first"):
        await p.feed([1])
    with pytest.raises(rxd.ConfigError, match="must be entered before it is drained"):
        await p.drain()
    async with p:
        pass
    with pytest.raises(rxd.TaskRejectedError, match="the pipeline is closed"):
        await p.submit(1)
    with pytest.raises(rxd.TaskRejectedError, match="the pipeline is closed"):
        await p.feed([1])
    with pytest.raises(rxd.ConfigError, match="must be entered once"):
        await p.__aenter__()


# ------------------------------------------------ what it tells


async def test_stats_are_those_of_each_stage() -> None:
    """The stats show where items are, how fast they go, and how long they take."""
    stages = [
        takes(1.0, "a", max_concurrent=2),
        takes(4.0, "b", max_concurrent=rxd.AdaptiveLimit()),
    ]
    async with rxd.Pipeline(*stages) as p:
        await p.feed(range(6))
        await asyncio.sleep(0.5)
        probe = Probe().watch(p.stats_every(1.0))
    seen = [
        [(s.queued, s.in_flight, s.done, s.limit) for s in stats.stages.values()]
        for stats in probe.items[:4]
    ]
    assert [
        [(4, 2, 0, 2), (0, 0, 0, 1)],
        [(2, 2, 2, 2), (1, 1, 0, 1)],
        [(0, 2, 4, 2), (3, 1, 0, 1)],
        [(0, 0, 6, 2), (5, 1, 0, 1)],
    ] == seen
    assert [0.5, 1.5, 2.5, 3.5] == probe.times[:4]
    last = probe.items[-1]
    assert last == p.stats
    assert (6, 6, 0) == (last.submitted, last.results, last.failed)
    latency = last.stages["b"].latency
    assert (6, 4.0, 4.0) == (latency.count, latency.mean, latency.p95)
    assert probe.completed
    assert 0.2 <= last.stages["b"].rate <= 0.5


async def test_stats_come_as_often_as_asked() -> None:
    """The stream ends when its subscriber leaves."""
    async with rxd.Pipeline(takes(1.0)) as p:
        probe = Probe().watch(p.stats_every(0.25))
        await asyncio.sleep(1.1)
        probe.dispose()
        await asyncio.sleep(1.0)
    assert [0.0, 0.25, 0.5, 0.75, 1.0] == probe.times


def test_stages_can_be_looked_at() -> None:
    """Stages are available as a tuple, and by name."""
    one, two = takes(1.0, "one"), takes(2.0, "two")
    p = rxd.Pipeline(one, two)
    assert (one, two) == p.stages
    assert two is p.stage("two")
    with pytest.raises(rxd.ConfigError, match="name must be one of one, two, got 'three'"):
        p.stage("three")
    with pytest.raises(rxd.ConfigError, match="period must be a finite number"):
        p.stats_every(0)


@pytest.mark.parametrize(
    ("stages", "options", "rule"),
    [
        ([], {}, "a pipeline must have a stage"),
        ([len], {}, r"stages must be made by stage\(\)"),
        (
            [rxd.stage(len, name="a"), rxd.stage(str, name="a")],
            {},
            "stages must have distinct names, got 'a'",
        ),
        ([rxd.stage(len)], {"ordered": 1}, "ordered must be True or False"),
        ([rxd.stage(len)], {"source": 3}, "source must be an Observable"),
    ],
)
def test_bad_arguments(stages: list[Any], options: dict[str, Any], rule: str) -> None:
    """Each is refused when the pipeline is made."""
    with pytest.raises(rxd.ConfigError, match=rule):
        rxd.Pipeline(*stages, **options)

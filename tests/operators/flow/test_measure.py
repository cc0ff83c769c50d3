"""``measure``: counts, rates, latency, items in flight, and errors."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._map_blocking import map_blocking
from rxdispatch.operators.flow._measure import measure
from rxdispatch.operators.flow._meter import Measurement, Meter, MeteredStream
from rxdispatch.operators.flow._meters import Meters, measurements
from rxdispatch.streams import run
from rxdispatch.testing import Probe, Supply, run_virtual
from tests.operators.flow.runs import to_list


async def sleep(seconds: float) -> float:
    """Sleep for *item* seconds."""
    await asyncio.sleep(seconds)
    return seconds


def even(item: int) -> bool:
    """Return whether the number is even."""
    return item % 2 == 0


# ---------------------------------------------------------------- counts and times


def test_latency_is_that_of_each_item() -> None:
    """The order in which items come out does not matter."""
    for ordered, longest in ((False, 5.0), (True, 5.0)):
        meter = Meter("x")
        stream = Supply([5.0, 1.0, 3.0])
        run_virtual(to_list(stream.pipe(measure(meter, map_async(sleep, ordered=ordered)))))
        latency = meter.read().latency
        assert (3, longest) == (latency.count, latency.maximum)
        # In ordered mode, the short items wait for the long one.
        assert latency.mean == (5.0 if ordered else 3.0)


def test_percentiles_are_near() -> None:
    """The percentiles are exact to 9 %."""
    meter = Meter("x")
    stream = Supply([n / 100 for n in range(1, 1001)])
    run_virtual(to_list(stream.pipe(measure(meter, map_async(sleep, max_concurrent=1000)))))
    latency = meter.read().latency
    assert 5.0 <= latency.p50 <= 5.0 * 1.1
    assert 9.9 <= latency.p99 <= 10.0
    assert 10.0 == latency.maximum


def test_what_is_in_flight_is_known_at_any_time() -> None:
    """The meter also counts the items that went in and came out."""

    async def main() -> list[Any]:
        meter = Meter("x")
        stream = Supply([1.0, 2.0, 3.0, 4.0, 5.0])
        section = map_async(sleep, max_concurrent=3)
        subscription = stream.pipe(measure(meter, section)).subscribe()
        seen: list[Any] = []
        for _ in range(3):
            await asyncio.sleep(1.6)
            shown = meter.read()
            seen.append((shown.streams, shown.entered, shown.left, shown.in_flight))
        subscription.dispose()
        shown = meter.read()
        return [*seen, (shown.streams, shown.in_flight, shown.completed, shown.errors)]

    assert [(1, 4, 1, 3), (1, 5, 3, 2), (1, 5, 3, 2), (0, 0, 0, 0)] == run_virtual(main())


def test_rates_are_those_of_the_last_seconds() -> None:
    """Both rates are 0 when nothing comes any more."""

    async def main() -> list[tuple[float, float]]:
        meter = Meter("x")
        source: Subject[float] = Subject()
        source.pipe(measure(meter, rx.filter(lambda n: n < 2), rx.map(str))).subscribe()
        seen: list[tuple[float, float]] = []
        for second in range(30):
            for n in range(4 if second < 15 else 0):
                source.on_next(n)
            await asyncio.sleep(1)
            if second in {1, 9, 14, 29}:
                shown = meter.read()
                seen.append((shown.rate_in, shown.rate))
        return seen

    assert [(4.0, 2.0), (4.0, 2.0), (4.0, 2.0), (0.0, 0.0)] == run_virtual(main())


def test_errors_and_completions_are_counted() -> None:
    """The counts include all subscriptions, and the error passes unchanged."""
    meter = Meter("x")

    async def main() -> None:
        await run(reactivex.of(1).pipe(measure(meter)))
        for _ in range(2):
            with pytest.raises(OSError, match="away"):
                await run(reactivex.throw(OSError("away")).pipe(measure(meter, rx.map(str))))

    run_virtual(main())
    shown = meter.read()
    assert (0, 1, 2) == (shown.streams, shown.completed, shown.errors)


def test_without_a_section_what_passes_is_counted() -> None:
    """There is no latency, and nothing is in flight."""
    meter = Meter("x")
    assert list(range(7)) == run_virtual(to_list(Supply(range(7)).pipe(measure(meter))))
    shown = meter.read()
    assert (7, 7, 0, 0) == (shown.entered, shown.left, shown.in_flight, shown.latency.count)


# ---------------------------------------------------------------- items that do not come out


def test_what_is_dropped_is_no_longer_in_flight() -> None:
    """A filter, ``on_error="skip"``, or a list may take an item out."""

    async def odd_fails(item: int) -> int:
        await asyncio.sleep(1)
        if item % 2:
            raise ValueError(item)
        return item

    async def main() -> list[int]:
        meters = [Meter("filter"), Meter("skip"), Meter("batch")]
        source: Subject[int] = Subject()
        source.pipe(measure(meters[0], rx.filter(even), map_async(sleep))).subscribe()
        source.pipe(measure(meters[1], map_async(odd_fails, on_error="skip"))).subscribe()
        source.pipe(measure(meters[2], batch(100, 1000))).subscribe()
        for n in range(10):
            source.on_next(n)
        await asyncio.sleep(1.5)
        # The logged errors refer to tasks, which refer to contexts.
        logs.clear()
        gc.collect()
        in_flight = [meter.read().in_flight for meter in meters]
        await asyncio.sleep(10)
        return in_flight

    with capture_logs() as logs:
        # 2, 4, 6 and 8 still sleep.
        assert [4, 0, 0] == run_virtual(main())


def test_threads_are_followed_too() -> None:
    """``map_blocking`` runs in the context of the item."""
    meter = Meter("x")
    assert list("0123456") == sorted(
        asyncio.run(to_list(Supply(range(7)).pipe(measure(meter, map_blocking(str)))))
    )
    shown = meter.read()
    assert (7, 7, 0, 7) == (shown.entered, shown.left, shown.in_flight, shown.latency.count)


def test_a_section_within_a_section() -> None:
    """Each section follows its own items."""
    outer, inner = Meter("outer"), Meter("inner")

    async def main() -> Any:
        section = measure(
            outer, map_async(sleep), measure(inner, map_async(sleep)), map_async(sleep)
        )
        return await to_list(Supply([1.0, 2.0]).pipe(section))

    assert [1.0, 2.0] == run_virtual(main())
    assert (1.5, 4.5) == (inner.read().latency.mean, outer.read().latency.mean)


def test_items_that_lead_to_others_leave_nothing_behind() -> None:
    """A handler that pushes into its own stream builds no chain from item to item."""

    async def main() -> list[int]:
        outer, inner = Meter("outer"), Meter("inner")
        source: Subject[int] = Subject()

        async def crawl(item: int) -> int:
            if item < 500:
                source.on_next(item + 1)
            else:
                await asyncio.sleep(5)
            return item

        log = Probe()
        source.pipe(measure(outer, measure(inner, map_async(crawl)), rx.map(str))).subscribe(log)
        source.on_next(0)
        await asyncio.sleep(1)
        shown = [outer.read().in_flight, inner.read().in_flight]
        await asyncio.sleep(10)
        assert 501 == len(log.timeline)
        return [*shown, outer.read().in_flight, inner.read().in_flight]

    assert [1, 1, 0, 0] == run_virtual(main())


# ---------------------------------------------------------------- the stream is left alone


def test_demand_errors_and_disposal_pass() -> None:
    """All three are as without a meter."""

    async def main() -> list[Any]:
        paced = Supply(range(100))
        stream = paced.pipe(
            measure("a"), measure("b", map_async(lambda _: sleep(1), max_concurrent=2)), rx.take(4)
        )
        items = await to_list(stream)
        return [items, paced.most_room, paced.disposed]

    assert [[1] * 4, 2, 1] == run_virtual(main())


def test_one_instance_serves_many_subscriptions() -> None:
    """Concurrent subscriptions add up in one meter."""
    meter = Meter("x")

    async def main() -> int:
        stream = Supply([1.0, 2.0]).pipe(measure(meter, map_async(sleep)))
        both = asyncio.gather(to_list(stream), to_list(stream))
        await asyncio.sleep(0.5)
        streams = meter.read().streams
        assert [[1.0, 2.0]] * 2 == list(await both)
        return streams

    assert 2 == run_virtual(main())
    assert (4, 4, 2) == (meter.read().entered, meter.read().left, meter.read().completed)


# ---------------------------------------------------------------- reading


def test_all_of_a_name_share_a_meter() -> None:
    """The meter exists from the making of the operator on, and stays."""
    first, second = measure("test_measure.shared"), measure("test_measure.shared", rx.map(str))
    shown: Measurement = measurements()["test_measure.shared"]
    assert (0, 0) == (shown.entered, shown.streams)
    run_virtual(run(reactivex.range(3).pipe(first)))
    run_virtual(run(reactivex.range(4).pipe(second)))
    shown = measurements()["test_measure.shared"]
    assert (7, 7, 2) == (shown.entered, shown.left, shown.completed)


def test_a_meter_may_be_reset() -> None:
    """Items in flight stay in flight."""

    async def main() -> Measurement:
        meter = Meter("x")
        Supply([1.0, 9.0]).pipe(measure(meter, map_async(sleep))).subscribe()
        await asyncio.sleep(5)
        meter.reset()
        shown = meter.read()
        await asyncio.sleep(5)
        return shown

    shown = run_virtual(main())
    assert (0, 0, 1, 1) == (shown.entered, shown.left, shown.in_flight, shown.streams)
    assert 0.0 == shown.latency.maximum


@pytest.mark.parametrize("name", ["", None, 5])
def test_a_bad_name_is_refused(name: Any) -> None:
    """A bad name is refused when the operator is made."""
    with pytest.raises(ConfigError, match="name must be a string that is not empty"):
        measure(name)


def test_a_section_that_is_no_operator_is_refused() -> None:
    """The section is refused when the operator is made."""
    with pytest.raises(ConfigError, match="section must consist of operators, got 5"):
        measure("x", 5)  # type: ignore[arg-type]


def test_names_that_are_made_at_run_time_are_forgotten() -> None:
    """The last used names are kept, and those with a running stream."""

    async def main() -> list[str]:
        meters = Meters(kept=3)
        running = Meters.get(meters, "running")
        section = MeteredStream()
        running._begin(section, asyncio.get_running_loop().time)
        for n in range(50):
            meters.get(f"session-{n}")
            meters.get("often")
        names = [[*meters.read()]]
        running._end(section, completed=True)
        for n in range(2):
            meters.get(f"later-{n}")
        names.append([*meters.read()])
        return [" ".join(one) for one in names]

    with capture_logs() as logs:
        assert ["often running session-49", "later-0 later-1 often"] == run_virtual(main())
    assert ["meters_forgotten"] == [entry["event"] for entry in logs]


def test_a_stream_whose_meter_was_forgotten_is_measured_all_the_same() -> None:
    """The meter is looked up when the stream begins."""
    stream = reactivex.of(1, 2).pipe(measure("test-forgotten"))
    with capture_logs():
        for n in range(1100):
            measure(f"test-other-{n}")
    assert "test-forgotten" not in measurements()
    run_virtual(run(stream))
    assert 2 == measurements()["test-forgotten"].entered

"""The edge pipeline runs locally first, forwards by choice, and no failure ends the stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx

import rxdispatch as rxd
from rxdispatch.testing import Probe

QUICK = rxd.Backoff(first=0.001, maximum=0.01)


class Cloud:
    """A receiver that can be unavailable."""

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.got: list[tuple[str, Any]] = []

    async def __call__(self, events: list[rxd.OutboxEvent]) -> None:
        """Take a batch."""
        if self.away:
            raise ConnectionError("away")
        self.got += [(event.id, event.event) for event in events]


async def double(n: int) -> int:
    """Double a number; refuse 13."""
    await asyncio.sleep(0)
    if n == 13:
        raise ValueError("unlucky")
    return 2 * n


async def handled(
    edge: rxd.EdgePipeline[int, int], events: list[int]
) -> list[rxd.EdgeResult[int, int]]:
    """Run *events* through and return all results."""
    found: list[rxd.EdgeResult[int, int]] = []
    await rxd.run(edge.results(reactivex.from_iterable(events)).pipe(rx.do_action(found.append)))
    return found


async def test_local_first_then_forwarded_by_choice(tmp_path: Path) -> None:
    """Events are handled while the receiver is unavailable; its results arrive later, by id."""
    cloud = Cloud(away=True)
    async with rxd.Outbox(tmp_path / "box", cloud, backoff=QUICK) as box:
        edge = rxd.EdgePipeline(double, forward=lambda n: n > 10, outbox=box)
        results = await handled(edge, list(range(10)))
        assert [2 * n for n in range(10)] == [result.result for result in results]
        assert [n > 5 for n in range(10)] == [result.forwarded for result in results]
        assert 4 == box.stats.waiting
        cloud.away = False
        await box.flush()
    assert [(r.id, r.result) for r in results if r.forwarded] == cloud.got


async def test_failures_do_not_end_the_stream(tmp_path: Path) -> None:
    """The function, the predicate or a full outbox may fail: each result has its id."""

    def forward(n: int) -> bool:
        if n == 0:
            raise KeyError(n)
        return n > 10

    async with rxd.Outbox(tmp_path / "box", Cloud(away=True), max_items=1, backoff=QUICK) as box:
        edge = rxd.EdgePipeline(double, forward=forward, outbox=box)
        results = await handled(edge, [0, 13, 8, 9, 1])
    assert [0, None, 16, 18, 2] == [result.result for result in results]
    assert [False, False, True, False, False] == [result.forwarded for result in results]
    causes = [result.error.__cause__ for result in results if result.error]
    assert [KeyError, ValueError, rxd.BufferOverflowError] == [type(cause) for cause in causes]
    assert [r.id for r in results if r.error] == [r.error.task_id for r in results if r.error]


async def test_timeout(tmp_path: Path) -> None:
    """An event that takes too long fails alone."""

    async def slow(n: int) -> int:
        await asyncio.sleep(n)
        return n

    async with rxd.Outbox(tmp_path / "box", Cloud()) as box:
        edge = rxd.EdgePipeline(slow, forward=bool, outbox=box, timeout=0.01, max_concurrent=2)
        first, second = await handled(edge, [1000, 0])
    assert isinstance(first.error, rxd.TaskExecutionError)
    assert isinstance(first.error.__cause__, rxd.ItemTimeoutError)
    assert (None, 0) == (second.error, second.result)


async def test_source_waits_for_a_slow_consumer(tmp_path: Path) -> None:
    """The source is asked for no more than fits; disposal cancels the running events."""
    begun: list[int] = []

    async def note(n: int) -> int:
        begun.append(n)
        return n

    async def numbers() -> AsyncIterator[int]:
        for n in range(1000):
            yield n

    async with rxd.Outbox(tmp_path / "box", Cloud()) as box:
        edge = rxd.EdgePipeline(note, forward=lambda _: False, outbox=box, max_concurrent=2)
        probe = Probe(room=0)
        probe.watch(edge.results(rxd.from_async_iterable(numbers())))
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(begun) <= 2
        probe.dispose()
        for _ in range(10):
            await asyncio.sleep(0)


async def test_bad_arguments(tmp_path: Path) -> None:
    """Each is refused at once."""
    box = rxd.Outbox(tmp_path / "box", Cloud())
    good: dict[str, Any] = {"local": double, "forward": bool, "outbox": box}
    wrong: list[dict[str, Any]] = [
        {"local": 3},
        {"forward": None},
        {"outbox": None},
        {"max_concurrent": 0},
        {"timeout": -1},
    ]
    for options in wrong:
        arguments = {**good, **options}
        with pytest.raises(rxd.ConfigError):
            rxd.EdgePipeline(**arguments)


async def test_it_is_unknown_whether_a_cancelled_write_succeeded(tmp_path: Path) -> None:
    """Here the write succeeded; putting the same id again does not store it twice."""
    cloud, release = Cloud(away=True), threading.Event()
    async with rxd.Outbox(tmp_path / "box", cloud, backoff=QUICK) as box:
        write = box._file.add

        def slowly(entries: Any) -> Any:
            answers = write(entries)
            release.wait(10)
            return answers

        box._file.add = slowly  # type: ignore[method-assign]
        edge = rxd.EdgePipeline(double, forward=bool, outbox=box, timeout=0.05)
        results: list[rxd.EdgeResult[int, int]] = []
        done = asyncio.create_task(
            rxd.run(edge.results(reactivex.of(1)).pipe(rx.do_action(results.append)))
        )
        while not results:
            await asyncio.sleep(0.01)
        release.set()
        await done
        assert [(1, 2, None)] == [(r.event, r.result, r.forwarded) for r in results]
        error = results[0].error
        assert error is not None
        assert isinstance(error.__cause__, rxd.ItemTimeoutError)
        await box.put(2, id=results[0].id)
        cloud.away = False
        await box.flush()
    assert [(results[0].id, 2)] == cloud.got


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), GeneratorExit()])
async def test_an_event_fails_whatever_its_function_raises(
    error: BaseException, tmp_path: Path
) -> None:
    """The next one is handled."""

    async def local(n: int) -> int:
        if n == 0:
            raise error
        return n

    async with rxd.Outbox(tmp_path / "box", Cloud()) as box:
        edge = rxd.EdgePipeline(local, forward=bool, outbox=box)
        stream = edge.results(reactivex.of(0, 1)).pipe(rx.to_list())
        results: Any = await rxd.run(stream)
    assert [error, None] == [r.error and r.error.__cause__ for r in results]

"""``KillSwitch`` and a stream that waits for its next attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.streams import run
from rxdispatch.testing import Probe, Supply, no_leaks, run_virtual


def failing(count: int, tries: list[float]) -> Observable[int]:
    """Return a stream that emits *count* items on the first try and fails each time."""

    async def rows() -> AsyncIterator[int]:
        tries.append(asyncio.get_running_loop().time())
        if len(tries) == 1:
            for n in range(count):
                yield n
        raise OSError("connection lost")

    return reactivex.defer(lambda _: rxd.from_async_iterable(rows()))


def test_a_drain_completes_at_once_what_waits() -> None:
    """Buffers below are flushed, and nothing is retried."""

    async def main() -> list[Any]:
        switch, tries, stored = rxd.KillSwitch(), list[float](), list[int]()

        async def store(batch: list[int]) -> None:
            stored.extend(batch)

        stream = failing(40, tries).pipe(
            switch.gate(),
            ops.retry_backoff(rxd.Backoff(first=30.0)),
            ops.batch(100, 60.0),
            ops.map_async(store),
        )
        async with no_leaks():
            running = asyncio.create_task(run(stream))
            await asyncio.sleep(1.0)
            drained = await switch.drain(timeout=2.0)
            await running
        return [drained, stored, asyncio.get_running_loop().time(), tries]

    with capture_logs() as logs:
        assert [True, list(range(40)), 1.0, [0.0]] == run_virtual(main())
    assert [("retry_abandoned", 1, "OSError: connection lost")] == [
        (entry["event"], entry["failures"], entry["error"]) for entry in logs
    ]


def test_a_drain_reaches_it_where_nothing_below_has_a_valve() -> None:
    """The drain also passes operators between the gate and the retry; other streams go on."""

    async def main() -> list[Any]:
        switch, tries = rxd.KillSwitch(), list[float]()
        ended: list[Any] = []

        held: Observable[int] = failing(3, tries).pipe(switch.gate(), ops.checkpoint("held"))
        held.pipe(ops.retry_backoff()).subscribe(
            ended.append, on_completed=lambda: ended.append("|")
        )
        failing(3, []).pipe(ops.retry_backoff(rxd.Backoff(first=30.0))).subscribe(
            on_completed=lambda: ended.append("other")
        )
        await asyncio.sleep(1.0)
        return [await switch.drain(), ended, asyncio.get_running_loop().time()]

    with capture_logs():
        assert [True, [0, 1, 2, "|"], 1.0] == run_virtual(main())


def test_what_fails_while_it_is_drained_is_not_tried_again() -> None:
    """The stream completes, and the error is logged."""

    async def main() -> list[Any]:
        switch = rxd.KillSwitch()
        tries = 0

        async def work(n: int) -> int:
            nonlocal tries
            tries += 1
            await asyncio.sleep(5.0)
            raise OSError(n)

        stream = Supply(range(3)).pipe(
            switch.gate(), ops.map_async(work), ops.retry_backoff(rxd.Backoff(first=30.0))
        )
        running = asyncio.create_task(run(stream))
        await asyncio.sleep(1.0)
        drained = await switch.drain()
        await running
        return [drained, tries, asyncio.get_running_loop().time()]

    with capture_logs() as logs:
        assert [True, 3, 5.0] == run_virtual(main())
    assert "retry_abandoned" in [entry["event"] for entry in logs]


@pytest.mark.parametrize("below", [True, False], ids=["map_async", "nothing"])
def test_an_abort_ends_what_waits(below: bool) -> None:
    """The stream ends with the error, and the timer is gone."""

    async def main() -> Any:
        switch = rxd.KillSwitch()
        got: list[Any] = []

        async def same(n: int) -> int:
            return n

        stream: Observable[int] = failing(1, []).pipe(switch.gate(), ops.retry_backoff())
        if below:
            stream = stream.pipe(ops.map_async(same))
        async with no_leaks():
            stream.subscribe(got.append, got.append)
            await asyncio.sleep(1.0)
            switch.abort(ValueError("stop"))
        return [got[0], str(got[1])]

    assert [0, "stop"] == run_virtual(main())


def test_demand_passes_a_retry() -> None:
    """The source sees the room of the consumer."""

    async def main() -> list[int]:
        supply = Supply(range(100))
        probe = Probe(room=3).watch(supply.pipe(ops.retry_backoff()))
        first = supply.sent
        probe.open(2)
        return [first, supply.most_room, supply.sent]

    assert [3, 3, 5] == run_virtual(main())


def test_a_predicate_that_raises_ends_the_stream() -> None:
    """Any error ends it; a generator function is refused."""

    def wanted(error: BaseException) -> bool:
        del error
        raise asyncio.CancelledError("own")

    async def main() -> list[Any]:
        got: list[Any] = []
        failing(0, []).pipe(ops.retry_backoff(retry_on=wanted)).subscribe(on_error=got.append)
        await asyncio.sleep(1.0)
        return [str(error) for error in got]

    assert ["own"] == run_virtual(main())

    def generator(error: BaseException) -> Any:
        yield error

    with pytest.raises(rxd.ConfigError, match="retry_on must be a plain function"):
        ops.retry_backoff(retry_on=generator)

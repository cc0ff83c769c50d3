"""``map_async``: errors, time limits, and disposal."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.clock import LoopScheduler
from rxdispatch.errors import ItemTimeoutError
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.testing import Probe, Supply, run_virtual
from tests.operators.flow.runs import Work, echo, one_key, to_list

# ---------------------------------------------------------------- errors


def _third(item: int) -> int:
    """Return one of three keys."""
    return item % 3


async def _odd_fails(item: int) -> int:
    await asyncio.sleep(item)
    if item % 2:
        raise ValueError(item)
    return item


def test_stop_passes_on_the_original_error_and_cancels_the_rest() -> None:
    """The error passes once, at the time it happens, and nothing is emitted after it."""

    async def main() -> tuple[list[Any], list[Any], int]:
        work = Work()
        error = ValueError("x")

        async def fn(item: int) -> int:
            await work(item)
            if item == 2:
                raise error
            return item

        log = Probe()
        paced = Supply([3, 2, 1, 4])
        paced.pipe(map_async(fn)).subscribe(log)
        await asyncio.sleep(10)
        assert [(1.0, 1), (2.0, error)] == log.timeline
        return work.ended, work.cancelled, paced.disposed

    assert ([1, 2], [3, 4], 1) == run_virtual(main())


def test_skip_reports_and_goes_on() -> None:
    """Each failure is logged and counted."""

    async def main() -> Any:
        return await to_list(Supply(range(6)).pipe(map_async(_odd_fails, on_error="skip")))

    with capture_logs() as logs:
        assert [0, 2, 4] == run_virtual(main())
    assert [("item_skipped", "map_async", "ValueError", n) for n in (1, 2, 3)] == [
        (entry["event"], entry["operator"], entry["error"].split(":")[0], entry["skipped"])
        for entry in logs
    ]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("key", [None, _third])
def test_more_failures_than_slots_do_not_hang(ordered: bool, key: Any) -> None:
    """The last items may fail too, or *fn* may fail before it returns an awaitable."""

    async def late(item: int) -> int:
        raise ValueError(item)

    def early(item: int) -> Awaitable[int]:
        raise ValueError(item)

    async def main(fn: Any) -> Any:
        stream = Supply(range(500))
        operator = map_async(fn, max_concurrent=2, on_error="skip", ordered=ordered, key=key)
        return await to_list(stream.pipe(operator))

    with capture_logs() as logs:
        assert [] == run_virtual(main(late))
        assert [] == run_virtual(main(early))
    assert len(logs) == 1000


@pytest.mark.parametrize("ordered", [False, True])
def test_a_replacement_takes_the_place_of_the_result(ordered: bool) -> None:
    """The callable gets the item and the error."""

    async def main() -> Any:
        stream = Supply(range(4))
        operator = map_async(
            _odd_fails, on_error=lambda item, error: (item, repr(error)), ordered=ordered
        )
        return await to_list(stream.pipe(operator))

    assert [0, (1, "ValueError(1)"), 2, (3, "ValueError(3)")] == run_virtual(main())


def test_a_replacement_that_fails_stops_the_stream() -> None:
    """The stream ends with the new error, which has the item's error as its context."""

    def replace(item: int, error: BaseException) -> int:
        raise KeyError(item)

    with pytest.raises(KeyError) as caught:
        run_virtual(to_list(Supply([1]).pipe(map_async(_odd_fails, on_error=replace))))
    assert isinstance(caught.value.__context__, ValueError)


def test_a_result_that_is_no_awaitable_is_an_error() -> None:
    """The error names the type of the result."""

    def plain(item: int) -> Any:
        return item

    with pytest.raises(TypeError, match="fn must return an awaitable, got int"):
        run_virtual(to_list(Supply([1]).pipe(map_async(plain))))


def test_stop_iteration_becomes_a_runtime_error() -> None:
    """The error is the same as for any coroutine."""

    def stops(item: int) -> Any:
        raise StopIteration(item)

    with pytest.raises(RuntimeError, match="fn raised StopIteration"):
        run_virtual(to_list(Supply([1]).pipe(map_async(stops))))


@pytest.mark.parametrize("early", [False, True])
def test_a_cancelled_error_of_its_own_is_an_error_of_the_item(early: bool) -> None:
    """The error neither hangs the stream nor cancels anything else."""

    async def late(item: int) -> int:
        if item == 1:
            raise asyncio.CancelledError
        return item

    def at_once(item: int) -> Awaitable[int]:
        if item == 1:
            raise asyncio.CancelledError
        return echo(item)

    async def main() -> Any:
        return await to_list(
            Supply(range(3)).pipe(
                map_async(at_once if early else late, on_error=lambda _, e: type(e).__name__)
            )
        )

    assert [0, 2, "CancelledError"] == sorted(run_virtual(main()), key=str)


def test_a_cancelled_error_of_its_own_stops_the_stream() -> None:
    """By default, this error stops the stream like any other."""

    async def fn(item: int) -> int:
        raise asyncio.CancelledError

    async def main() -> list[Any]:
        log = Probe()
        Supply([1]).pipe(map_async(fn)).subscribe(log)
        await asyncio.sleep(1)
        return [type(item) for item in log.notifications]

    assert [asyncio.CancelledError] == run_virtual(main())


def test_an_error_of_the_source_ends_the_stream_at_once() -> None:
    """Items in flight are cancelled."""

    async def main() -> tuple[list[Any], list[Any]]:
        work = Work()
        source: Subject[int] = Subject()
        error = OSError("x")
        log = Probe()
        source.pipe(map_async(work)).subscribe(log)
        source.on_next(5)
        await asyncio.sleep(1)
        source.on_error(error)
        await asyncio.sleep(10)
        assert [(1.0, error)] == log.timeline
        return work.ended, work.cancelled

    assert ([], [5]) == run_virtual(main())


def test_one_terminal_event_when_errors_and_completion_race() -> None:
    """Two items fail and the source completes, all at the same instant."""

    async def fail(item: int) -> int:
        await asyncio.sleep(1)
        raise ValueError(item)

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        log = Probe()
        source.pipe(map_async(fail)).subscribe(log)
        loop = asyncio.get_running_loop()
        loop.call_at(1.0, source.on_completed)
        source.on_next(1)
        source.on_next(2)
        await asyncio.sleep(5)
        return [str(item) for item in log.notifications]

    with capture_logs() as logs:
        assert ["1"] == run_virtual(main())
    assert ["error_after_end"] == [entry["event"] for entry in logs]


def test_an_error_while_being_cancelled_is_reported() -> None:
    """The error is logged, as there is no subscriber any more."""

    async def stubborn(item: int) -> int:
        try:
            await asyncio.sleep(10)
        finally:
            raise KeyError("clean-up")
        return item

    async def main() -> None:
        subscription = Supply([1]).pipe(map_async(stubborn)).subscribe()
        await asyncio.sleep(1)
        subscription.dispose()
        await asyncio.sleep(1)

    with capture_logs() as logs:
        run_virtual(main())
    assert [("error_after_end", "KeyError: 'clean-up'")] == [(e["event"], e["error"]) for e in logs]


@pytest.mark.parametrize("ordered", [False, True])
def test_a_subscriber_that_raises_stops_nothing(ordered: bool) -> None:
    """The loop reports the error; slots, order and completion are not affected."""

    async def main() -> tuple[list[Any], int]:
        loop = asyncio.get_running_loop()
        heard: list[Any] = []
        loop.set_exception_handler(lambda _, context: heard.append(context["exception"]))
        got: list[Any] = []

        def on_next(item: int) -> None:
            got.append(item)
            raise ValueError(item)

        stream = Supply([2, 1, 2, 1, 2])
        stream.pipe(map_async(Work(), max_concurrent=2, ordered=ordered)).subscribe(
            on_next, on_completed=lambda: got.append("|")
        )
        await asyncio.sleep(20)
        return got, len(heard)

    got, heard = run_virtual(main())
    assert (6, "|", 5) == (len(got), got[-1], heard)


# ---------------------------------------------------------------- time limits


def test_a_limit_cancels_that_item_alone() -> None:
    """The error contains the item and the limit; other items go on."""

    async def main() -> tuple[Any, list[Any]]:
        work = Work()
        errors: list[Any] = []

        def on_error(item: int, error: BaseException) -> Any:
            assert isinstance(error, ItemTimeoutError)
            assert isinstance(error, TimeoutError)
            errors.append((item, error.item, error.seconds, type(error.__cause__)))
            return asyncio.get_running_loop().time()

        stream = Supply([9, 1, 9, 2])
        items = await to_list(stream.pipe(map_async(work, timeout=3, on_error=on_error)))
        assert [9, 9] == work.cancelled
        return items, errors

    items, errors = run_virtual(main())
    assert [1, 2, 3.0, 3.0] == items
    assert [(9, 9, 3.0, asyncio.CancelledError)] * 2 == errors


def test_limits_of_items_that_start_at_different_times() -> None:
    """Each item has its own limit, although one timer serves all."""

    async def main() -> list[Any]:
        log = Probe()
        source: Subject[int] = Subject()
        source.pipe(map_async(Work(), timeout=5, on_error=lambda item, _: -item)).subscribe(log)
        for item in (7, 1, 8, 4):
            source.on_next(item)
            await asyncio.sleep(2)
        source.on_completed()
        await asyncio.sleep(20)
        source.on_next(1)
        return log.timeline

    assert [(3.0, 1), (5.0, -7), (9.0, -8), (10.0, 4), (10.0, "|")] == run_virtual(main())


def test_stop_passes_on_the_limits_error() -> None:
    """The stream ends with ``ItemTimeoutError``."""
    with pytest.raises(ItemTimeoutError, match="of type int must be done within 2 s") as caught:
        run_virtual(to_list(Supply([9]).pipe(map_async(Work(), timeout=2))))
    assert caught.value.item == 9


def test_a_handlers_own_timeout_error_is_left_alone() -> None:
    """The error is not taken for the operator's own."""

    async def own(item: int) -> int:
        async with asyncio.timeout(1):
            await asyncio.sleep(item)
        return item

    with pytest.raises(TimeoutError) as caught:
        run_virtual(to_list(Supply([9]).pipe(map_async(own, timeout=5))))
    assert not isinstance(caught.value, ItemTimeoutError)


def test_an_item_that_is_done_in_time_is_not_cancelled() -> None:
    """The limit of a finished item does not affect later items either."""

    async def main() -> Any:
        operator = map_async(Work(), timeout=2, max_concurrent=1)
        return await to_list(Supply([1.9, 0, 1.9, 1]).pipe(operator))

    assert [1.9, 0, 1.9, 1] == run_virtual(main())


def test_the_slot_is_free_when_the_coroutine_has_ended() -> None:
    """A handler that takes time to clean up keeps its slot that long."""

    async def slow(item: int) -> int:
        try:
            await asyncio.sleep(item)
        except asyncio.CancelledError:
            await asyncio.sleep(4)
            raise
        return item

    async def main() -> list[Any]:
        log = Probe()
        Supply([9, 1]).pipe(
            map_async(slow, max_concurrent=1, timeout=2, on_error=lambda item, _: -item)
        ).subscribe(log, scheduler=LoopScheduler(asyncio.get_running_loop()))
        await asyncio.sleep(30)
        return log.timeline

    assert [(6.0, -9), (7.0, 1), (7.0, "|")] == run_virtual(main())


# ---------------------------------------------------------------- disposal


def test_disposal_cancels_what_is_at_work() -> None:
    """The source is disposed, and nothing more is emitted."""

    async def main() -> tuple[list[Any], list[Any], int]:
        work = Work()
        paced = Supply([1, 5, 5, 5])
        log = Probe()
        subscription = paced.pipe(map_async(work, max_concurrent=3)).subscribe(log)
        await asyncio.sleep(2)
        subscription.dispose()
        subscription.dispose()
        await asyncio.sleep(20)
        assert [(1.0, 1)] == log.timeline[:1]
        return log.notifications, work.cancelled, paced.disposed

    assert ([1], [5, 5, 5], 1) == run_virtual(main())


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("key", [None, one_key])
def test_disposal_from_within_on_next(ordered: bool, key: Any) -> None:
    """``take`` ends the stream while a result is being emitted."""

    async def main() -> tuple[Any, int]:
        work = Work()
        stream = Supply([1] * 10)
        operator = map_async(work, max_concurrent=4, ordered=ordered, key=key)
        items = await to_list(stream.pipe(operator, rx.take(2)))
        await asyncio.sleep(10)
        return items, work.now

    assert ([1, 1], 0) == run_virtual(main())


def test_disposal_before_a_task_had_its_first_step() -> None:
    """No coroutine is left that was never awaited."""

    async def main() -> list[Any]:
        work = Work()
        Supply([1, 2]).pipe(map_async(work)).subscribe().dispose()
        await asyncio.sleep(5)
        return work.started

    assert [] == run_virtual(main())

"""``from_async_iterable``: pulling on demand, closing, errors."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.streams._from_async_iterable import from_async_iterable
from rxdispatch.streams._run import run
from rxdispatch.testing import Probe, run_virtual
from tests.operators.flow.runs import to_list


class Numbers:
    """An async iterable that can be read several times, and records what is done to it."""

    def __init__(self, count: int, pause: float | None = None, closing: float = 0.0) -> None:
        self.count = count
        self.pause = pause
        self.closing = closing
        self.asked = 0
        self.closed = 0

    async def __aiter__(self) -> AsyncIterator[int]:
        """Yield numbers; closing takes some time."""
        try:
            for n in range(self.count):
                self.asked += 1
                if self.pause is not None:
                    await asyncio.sleep(self.pause)
                yield n
        finally:
            if self.closing:
                await asyncio.sleep(self.closing)
            self.closed += 1


def others() -> set[asyncio.Task[Any]]:
    """Return the other tasks of the loop."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


# ---------------------------------------------------------------- values


def test_it_emits_what_the_iterable_yields() -> None:
    """The stream emits the items and completes."""

    async def main() -> list[Any]:
        log = Probe()
        from_async_iterable(Numbers(3, 1.0)).subscribe(log)
        assert [] == log.timeline
        await asyncio.sleep(10)
        assert not others()
        return log.timeline

    assert [(1.0, 0), (2.0, 1), (3.0, 2), (3.0, "|")] == run_virtual(main())


def test_it_completes_when_there_is_nothing() -> None:
    """A stream without items completes."""
    assert [] == run_virtual(to_list(from_async_iterable(Numbers(0))))


def test_each_subscription_reads_an_iterable_anew() -> None:
    """Subscriptions get their own iterators, one after the other or at the same time."""

    async def main() -> list[Any]:
        stream = from_async_iterable(Numbers(3, 1.0))
        return [await to_list(stream), *await asyncio.gather(to_list(stream), to_list(stream))]

    assert [[0, 1, 2]] * 3 == run_virtual(main())
    twice = from_async_iterable(Numbers(2)).pipe(rx.repeat(2))
    assert [0, 1, 0, 1] == run_virtual(to_list(twice))


def test_an_iterator_serves_one_subscription() -> None:
    """The next subscription gets an error instead of a seemingly empty stream."""

    async def main() -> list[Any]:
        stream = from_async_iterable(aiter(Numbers(3)))
        got: list[Any] = [await to_list(stream)]
        for _ in range(2):
            with pytest.raises(ConfigError, match="can be subscribed to only once"):
                await run(stream)
        deferred = reactivex.defer(lambda _: from_async_iterable(aiter(Numbers(1))))
        got.append(await to_list(deferred.pipe(rx.repeat(2))))
        return got

    assert [[0, 1, 2], [0, 0]] == run_virtual(main())


# ---------------------------------------------------------------- demand


def test_it_asks_only_while_there_is_room() -> None:
    """The stream pulls no more items than are taken."""

    async def main() -> list[int]:
        numbers = Numbers(100)
        probe = Probe(room=0)
        probe.watch(from_async_iterable(numbers))
        asked: list[int] = []
        for room in (0, 3, 0, 1, 1000):
            probe.open(room)
            await asyncio.sleep(1)
            asked.append(numbers.asked)
        assert [*range(100), "|"] == probe.notifications
        return asked

    assert [0, 3, 3, 4, 100] == run_virtual(main())


def test_room_that_goes_while_it_pulls_is_noticed() -> None:
    """The item of the current pull is emitted, and no other is pulled."""

    async def main() -> list[Any]:
        numbers = Numbers(100, 1.0)
        probe = Probe(room=5)
        probe.watch(from_async_iterable(numbers))
        await asyncio.sleep(1.5)
        probe.close()
        await asyncio.sleep(20)
        return [numbers.asked, probe.notifications]

    assert [2, [0, 1]] == run_virtual(main())


def test_a_slow_sink_is_never_ahead_of_by_more_than_its_operators_hold() -> None:
    """Demand passes through operators of RxPY and of this package."""

    async def main() -> list[int]:
        numbers = Numbers(5_000)
        most = done = 0

        async def slow(items: list[int]) -> None:
            nonlocal most, done
            most = max(most, numbers.asked - done)
            await asyncio.sleep(1)
            done += len(items)

        async def same(n: int) -> int:
            return n

        def more(n: int) -> int:
            return n + 1

        def positive(n: int) -> bool:
            return n > 0

        await run(
            from_async_iterable(numbers).pipe(
                rx.map(more),
                rx.filter(positive),
                batch(5, 1.0),
                rx.flat_map(reactivex.from_iterable),
                map_async(same, max_concurrent=8),
                batch(10, 1.0),
                map_async(slow, max_concurrent=2),
            )
        )
        return [done, most]

    with capture_logs() as logs:
        done, most = run_virtual(main())
    assert 5_000 == done
    assert most <= 2 * 10 + 10 + 8 * 5
    assert [] == [entry for entry in logs if entry["event"] != "no_demand"]


def test_others_get_their_turns() -> None:
    """Other tasks run, even if the iterable never waits and nothing bounds it."""

    async def main() -> int:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        counting = asyncio.create_task(count())
        await run(from_async_iterable(Numbers(10_000)))
        counting.cancel()
        return turns

    assert run_virtual(main()) > 100


def test_it_makes_one_task() -> None:
    """The number of items does not matter."""

    async def main() -> int:
        made = 0
        loop = asyncio.get_running_loop()

        def make(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> Any:
            nonlocal made
            made += 1
            return asyncio.Task(coro, loop=loop, **options)

        loop.set_task_factory(make)
        await run(from_async_iterable(Numbers(1000)))
        return made

    assert run_virtual(main()) == 1


# ---------------------------------------------------------------- disposal


def test_disposal_closes_an_iterable_that_is_being_waited_for() -> None:
    """The cleanup of the iterable runs to its end, however long it takes."""

    async def main() -> list[int]:
        numbers = Numbers(3, 10.0, closing=5.0)
        log = Probe()
        subscription = from_async_iterable(numbers).subscribe(log)
        await asyncio.sleep(1)
        subscription.dispose()
        subscription.dispose()
        gc.collect()
        left = [len(others())]
        await asyncio.sleep(6)
        assert [] == log.notifications
        return [*left, len(others()), numbers.closed]

    assert [1, 0, 1] == run_virtual(main())


def test_disposal_closes_an_iterable_while_there_is_no_room() -> None:
    """No pull is running then, and ``aclose`` is awaited."""

    async def main() -> list[int]:
        numbers = Numbers(3, closing=5.0)
        probe = Probe(room=1)
        probe.watch(from_async_iterable(numbers))
        await asyncio.sleep(1)
        probe.dispose()
        await asyncio.sleep(6)
        assert [0] == probe.notifications
        return [len(others()), numbers.closed]

    assert [0, 1] == run_virtual(main())


def test_disposal_from_within_on_next_closes_it_too() -> None:
    """The cleanup runs to its end."""

    async def main() -> list[int]:
        numbers = Numbers(3, closing=5.0)
        assert [0] == await to_list(from_async_iterable(numbers).pipe(rx.take(1)))
        await asyncio.sleep(6)
        return [len(others()), numbers.closed, numbers.asked]

    assert [0, 1, 1] == run_virtual(main())


def test_disposal_before_the_first_turn_closes_it_too() -> None:
    """The iterable is closed, although no item was pulled."""

    class Closable:
        closed = 0

        def __aiter__(self) -> Closable:
            return self

        async def __anext__(self) -> int:
            raise AssertionError

        async def aclose(self) -> None:
            self.closed += 1

    async def main() -> list[int]:
        closable = Closable()
        from_async_iterable(closable).subscribe().dispose()
        await asyncio.sleep(1)
        return [len(others()), closable.closed]

    assert [0, 1] == run_virtual(main())


def test_an_iterable_that_will_not_be_cancelled_is_closed_after_its_item() -> None:
    """That item is dropped."""

    async def stubborn() -> AsyncIterator[int]:
        for n in range(9):
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
            yield n

    async def main() -> list[Any]:
        log = Probe()
        subscription = from_async_iterable(stubborn()).subscribe(log)
        await asyncio.sleep(6)
        subscription.dispose()
        await asyncio.sleep(3)
        return [log.notifications, len(others())]

    assert [[0], 0] == run_virtual(main())


def test_an_error_while_it_is_closed_is_logged() -> None:
    """No subscriber is left to receive it."""

    async def bad() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            raise OSError("x")

    with capture_logs() as logs:
        assert [1] == run_virtual(to_list(from_async_iterable(bad()).pipe(rx.take(1))))
    assert [("close_failed", "warning")] == [(e["event"], e["log_level"]) for e in logs]


def test_the_end_of_the_loop_closes_it() -> None:
    """The loop cancels its task like any other task."""
    numbers = Numbers(3, 10.0, closing=1.0)

    async def main() -> None:
        from_async_iterable(numbers).subscribe()
        await asyncio.sleep(1)

    run_virtual(main())
    assert 1 == numbers.closed


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("error", [OSError("x"), asyncio.CancelledError("x")])
def test_an_error_passes_after_what_came_before(error: BaseException) -> None:
    """Any error passes, even one that looks like a cancellation of the task."""

    async def failing() -> AsyncIterator[int]:
        yield 1
        raise error

    async def main() -> list[Any]:
        log = Probe()
        from_async_iterable(failing()).subscribe(log)
        await asyncio.sleep(1)
        assert not others()
        return log.notifications

    assert [1, error] == run_virtual(main())


def test_a_subscriber_that_raises_ends_the_stream() -> None:
    """The subscriber receives its own error, and the iterable is closed."""
    error = ValueError("x")

    async def main() -> list[Any]:
        numbers = Numbers(3, closing=1.0)

        def fail(_: int) -> None:
            raise error

        probe = Probe(on_item=fail)
        from_async_iterable(numbers).subscribe(probe)
        await asyncio.sleep(2)
        return [probe.notifications, numbers.closed, len(others())]

    assert [[0, error], 1, 0] == run_virtual(main())


def test_cancelling_who_waits_for_it_leaves_nothing() -> None:
    """``run`` disposes its subscription, which closes the iterable."""

    async def main() -> list[int]:
        numbers = Numbers(1000, 1.0)
        waiting = asyncio.create_task(run(from_async_iterable(numbers)))
        await asyncio.sleep(3.5)
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(0)
        return [len(others()), numbers.closed, numbers.asked]

    assert [0, 1, 4] == run_virtual(main())


@pytest.mark.parametrize("wrong", [[1, 2], 5, None])
def test_a_bad_argument_is_refused(wrong: Any) -> None:
    """The call that makes the stream refuses it."""
    with pytest.raises(ConfigError, match="iterable must be an async iterable, got "):
        from_async_iterable(wrong)


class OwnError(BaseException):
    """An error that is not an Exception."""


@pytest.mark.parametrize(
    "error",
    [OwnError("x"), asyncio.CancelledError("own"), KeyError(1)],
    ids=["own", "cancel", "key"],
)
def test_whatever_is_raised_ends_the_stream(error: BaseException) -> None:
    """The iterable, its end or the subscriber may raise; the iterable is closed."""

    async def main() -> list[Any]:
        closed: list[str] = []

        async def items(name: str, last: BaseException | None) -> AsyncIterator[int]:
            try:
                yield 1
                if last is not None:
                    raise last
                yield 2
            finally:
                closed.append(name)

        def refuse(item: int) -> None:
            raise error

        ended: list[Any] = []
        from_async_iterable(items("iterable", error)).subscribe(on_error=ended.append)
        from_async_iterable(items("subscriber", None)).subscribe(refuse, ended.append)
        await asyncio.sleep(1)
        return [ended, sorted(closed)]

    assert [[error, error], ["iterable", "subscriber"]] == run_virtual(main())


def test_a_close_that_raises_is_in_the_log() -> None:
    """Any error of the close is logged."""

    async def main() -> None:
        async def items() -> AsyncIterator[int]:
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                raise OwnError("bug")

        subscription = from_async_iterable(items()).subscribe()
        await asyncio.sleep(1)
        subscription.dispose()
        await asyncio.sleep(1)

    with capture_logs() as logs:
        run_virtual(main())
    assert [("close_failed", "OwnError: bug")] == [(log["event"], log["error"]) for log in logs]

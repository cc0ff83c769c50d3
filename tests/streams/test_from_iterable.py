"""``from_iterable``: demand, turns of the loop, and the end."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.streams import run
from rxdispatch.streams._from_iterable import TURN
from rxdispatch.testing import Probe, VirtualTimeLoop, no_leaks, run_virtual


def listed(iterable: Iterable[Any]) -> Any:
    """Run a stream of *iterable* to its end and return its items."""
    return run_virtual(run(rxd.from_iterable(iterable).pipe(rx.to_list())))


@pytest.mark.parametrize("given", [[], (1,), range(200), "abc", {"a": 1}, {1}])
def test_all_items_come_in_order(given: Iterable[Any]) -> None:
    """Any iterable works, and each subscription starts again."""
    stream = rxd.from_iterable(given)
    for _ in range(2):
        assert list(given) == run_virtual(run(stream.pipe(rx.to_list())))


def test_a_csv_reader() -> None:
    """Iterators of other libraries work too."""
    assert [["a", "1"], ["b", "2"]] == listed(csv.reader(io.StringIO("a,1\nb,2\n")))


def test_no_more_is_taken_than_there_is_room_for() -> None:
    """The stream takes item by item, as the consumer makes room."""
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(1000):
            taken.append(n)
            yield n

    async def main() -> list[Any]:
        probe = Probe(room=2).watch(rxd.from_iterable(numbers()))
        seen = [len(taken)]
        for more in (0, 1, 3):
            probe.open(more)
            await asyncio.sleep(1)
            seen.append(len(taken))
        probe.dispose()
        return [seen, probe.items, probe.unasked]

    assert [[0, 2, 3, 6], [0, 1, 2, 3, 4, 5], 0] == run_virtual(main())


def test_an_endless_iterable_behind_slow_work() -> None:
    """Memory only holds the running items."""
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        while True:
            taken += 1
            yield taken

    async def work(n: int) -> int:
        await asyncio.sleep(1)
        return n

    async def main() -> Any:
        stream = rxd.from_iterable(endless()).pipe(
            ops.map_async(work, max_concurrent=3, ordered=True), rx.take(7), rx.to_list()
        )
        return await run(stream)

    assert [1, 2, 3, 4, 5, 6, 7] == run_virtual(main())
    assert taken <= 10


def test_others_get_their_turns() -> None:
    """Other tasks run after a number of items, or after some time if items take long."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        counts: list[int] = []

        def slow() -> Iterator[int]:
            for n in range(10):
                loop.advance(0.01)
                yield n

        for iterable in (range(10 * TURN), slow()):
            got: list[int] = []
            rxd.from_iterable(iterable).subscribe(got.append)
            turns = 0
            while len(got) < 10:
                await asyncio.sleep(0)
                turns += 1
            counts.append(turns)
        return counts

    assert [1, 10] == run_virtual(main())


def test_nothing_comes_before_the_next_turn() -> None:
    """All that subscribe to a shared stream in one turn get the same items."""

    async def main() -> list[list[int]]:
        shared = rxd.from_iterable(range(3)).pipe(ops.broadcast(5))
        one, two = list[int](), list[int]()
        shared.subscribe(one.append)
        shared.subscribe(two.append)
        assert [] == one
        await asyncio.sleep(0.1)
        return [one, two]

    assert [[0, 1, 2], [0, 1, 2]] == run_virtual(main())


class Watched:
    """A generator that records when and how it is closed."""

    def __init__(self, closing: Callable[[], None] = lambda: None) -> None:
        self.closed = 0
        self._closing = closing

    def items(self) -> Iterator[int]:
        """Yield numbers without end."""
        try:
            n = 0
            while True:
                yield n
                n += 1
        finally:
            self.closed += 1
            self._closing()


def test_disposal_closes_the_generator() -> None:
    """The disposal may come at once, before the first item, or from inside the subscriber."""

    async def main() -> list[int]:
        watched = [Watched() for _ in range(3)]
        async with no_leaks():
            probe = Probe(room=1).watch(rxd.from_iterable(watched[0].items()))
            await asyncio.sleep(1)
            probe.dispose()
            assert 1 == watched[0].closed
            rxd.from_iterable(watched[1].items()).subscribe().dispose()
            await run(rxd.from_iterable(watched[2].items()).pipe(rx.take(3)))
        return [one.closed for one in watched]

    # A generator that has not begun has nothing to close.
    assert [1, 0, 1] == run_virtual(main())


def test_a_generator_that_disposes_its_own_subscription() -> None:
    """The generator is closed after its next yield, and that item is dropped."""

    async def main() -> list[Any]:
        closed: list[str] = []

        def items() -> Iterator[int]:
            try:
                yield 1
                subscription.dispose()
                yield 2
            finally:
                closed.append("closed")

        got: list[int] = []
        subscription = rxd.from_iterable(items()).subscribe(got.append)
        await asyncio.sleep(1)
        return [got, closed]

    assert [[1], ["closed"]] == run_virtual(main())


def test_a_generator_that_fails_to_close() -> None:
    """The error is logged and has no other effect."""

    def fail() -> None:
        raise ValueError("bug")

    async def main() -> None:
        probe = Probe(room=1).watch(rxd.from_iterable(Watched(fail).items()))
        await asyncio.sleep(1)
        probe.dispose()

    with capture_logs() as logs:
        run_virtual(main())
    assert [("close_failed", "ValueError: bug")] == [
        (entry["event"], entry["error"]) for entry in logs
    ]


def test_files_stay_open() -> None:
    """An iterator that is not a generator belongs to the caller."""
    file = io.StringIO("a\nb\n")
    assert "a\n" == run_virtual(run(rxd.from_iterable(file).pipe(rx.take(1))))
    assert not file.closed


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), asyncio.CancelledError("own"), GeneratorExit(), BaseException("any")],
    ids=lambda error: type(error).__name__,
)
def test_errors_pass(error: BaseException) -> None:
    """An error of the iterable follows the items before it."""

    class Items:
        def __iter__(self) -> Iterator[int]:
            return self

        count = 0

        def __next__(self) -> int:
            self.count += 1
            if self.count > 2:
                raise error
            return self.count

    async def main() -> list[Any]:
        async with no_leaks():
            probe = Probe().watch(rxd.from_iterable(Items()))
            await probe.wait()
        return [*probe.items, probe.error, probe.ends]

    assert [1, 2, error, 1] == run_virtual(main())


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)], ids=["keys", "exit"])
def test_what_ends_the_process_does(error: BaseException) -> None:
    """The error also ends the stream, and the generator is closed."""
    watched = Watched()

    def fail(item: int) -> None:
        del item
        raise error

    async def main() -> None:
        await run(rxd.from_iterable(watched.items()).pipe(rx.do_action(fail)))

    with pytest.raises(type(error)):
        asyncio.run(main())
    assert 1 == watched.closed


def test_a_subscriber_that_raises_ends_its_stream() -> None:
    """A StopIteration of the subscriber does not look like the end."""

    async def main(error: Exception) -> list[Any]:
        watched = Watched()
        errors: list[Any] = []

        def fail(item: int) -> None:
            raise error

        rxd.from_iterable(watched.items()).subscribe(fail, errors.append)
        await asyncio.sleep(1)
        return [errors, watched.closed]

    for error in (ValueError("x"), StopIteration(1)):
        assert [[error], 1] == run_virtual(main(error))


def test_an_iterable_that_cannot_be_iterated() -> None:
    """Its error ends the stream."""

    class Broken:
        def __iter__(self) -> Iterator[int]:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        listed(Broken())


def test_a_generator_serves_one_subscription() -> None:
    """The second subscription gets an error instead of the remaining items."""

    async def main() -> None:
        stream = rxd.from_iterable(n for n in range(3))
        await run(stream)
        with pytest.raises(rxd.ConfigError, match="an iterator can be subscribed to only once"):
            await run(stream)

    run_virtual(main())


async def _numbers() -> Any:
    yield 1


@pytest.mark.parametrize("wrong", [3, None, reactivex.of(1), _numbers(), rxd.Ingress[int](1)])
def test_what_is_no_iterable_is_refused(wrong: Any) -> None:
    """The call that makes the stream refuses it."""
    with pytest.raises(rxd.ConfigError, match="iterable must be an iterable"):
        rxd.from_iterable(wrong)

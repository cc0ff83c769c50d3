"""Users' functions may raise anything, and operators still behave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from reactivex import Observable
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.streams import run
from rxdispatch.testing import Probe, Supply, no_leaks, run_virtual


class OwnError(BaseException):
    """An error that is not an Exception."""


class RudeError(Exception):
    """An error without a text."""

    def __str__(self) -> str:
        raise RuntimeError("rude")


ERRORS = [
    ValueError("x"),
    RudeError(),
    StopIteration(1),
    StopAsyncIteration(),
    asyncio.CancelledError("own"),
    GeneratorExit(),
    OwnError(),
    BaseExceptionGroup("several", [OwnError(), ValueError("y")]),
]
LEAVING = [KeyboardInterrupt(), SystemExit(2)]
any_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
every_error = pytest.mark.parametrize(
    "error", [*ERRORS, *LEAVING], ids=lambda error: type(error).__name__
)


def raising(error: BaseException) -> Callable[..., Any]:
    """Return a function that raises *error* for the item 1, else returns its first argument."""

    def fn(item: Any, *_: Any) -> Any:
        if item == 1:
            raise error
        return item

    return fn


async def same(item: Any) -> Any:
    """Return *item* after a moment."""
    await asyncio.sleep(0.01)
    return item


def ended(stream: Callable[[], Observable[Any]]) -> list[Any]:
    """Run a stream to its end, check for leftovers, and return its items and its error."""

    async def main() -> list[Any]:
        async with no_leaks():
            probe = Probe().watch(stream())
            await asyncio.wait_for(probe.wait(), 100)
            got = [*probe.items, probe.error]
            assert 1 == probe.ends
            probe.dispose()
        return got

    with capture_logs():
        return run_virtual(main())


@every_error
def test_fn_of_map_async_that_raises_when_it_is_called(error: BaseException) -> None:
    """The slot is free and the policy applies; ``SystemExit`` ends the stream."""

    def fn(item: int) -> Any:
        return same(raising(error)(item))

    def policy(item: int, reason: BaseException) -> Any:
        return (item, type(reason).__name__)

    def made(**options: Any) -> Callable[[], Observable[Any]]:
        return lambda: Supply(range(4)).pipe(ops.map_async(fn, max_concurrent=1, **options))

    name = "RuntimeError" if isinstance(error, StopIteration) else type(error).__name__
    assert [0, name] == [*(got := ended(made()))[:-1], type(got[-1]).__name__]
    if error in LEAVING:
        assert [0, error] == ended(made(on_error="skip")) == ended(made(on_error=policy))
    else:
        assert [0, 2, 3, None] == ended(made(on_error="skip"))
        assert [0, (1, name), 2, 3, None] == ended(made(on_error=policy))
        assert [0, 2, 3, None] == ended(made(on_error="skip", ordered=True, key=id))


@any_error
def test_fn_of_map_async_that_raises_when_it_is_awaited(error: BaseException) -> None:
    """The slot is free and the policy applies, as when the call raises."""

    async def fn(item: int) -> int:
        await asyncio.sleep(0.01)
        return int(raising(error)(item))

    stream = lambda: Supply(range(4)).pipe(  # noqa: E731
        ops.map_async(fn, max_concurrent=2, ordered=True, on_error="skip")
    )
    assert [0, 2, 3, None] == ended(stream)


@every_error
@pytest.mark.parametrize("ordered", [True, False])
def test_key_and_policy_that_raise(error: BaseException, ordered: bool) -> None:
    """The error of a key is that of its item; the error of a policy ends the stream."""

    def keyed() -> Observable[Any]:
        return Supply(range(4)).pipe(
            ops.map_async(same, key=raising(error), ordered=ordered, on_error="skip")
        )

    def policy(item: int, reason: BaseException) -> Any:
        del item, reason
        raise error

    async def bad(item: int) -> int:
        if item == 1:
            raise OSError(item)
        return item

    def replaced() -> Observable[Any]:
        return Supply(range(4)).pipe(
            ops.map_async(bad, ordered=ordered, max_concurrent=1, on_error=policy)
        )

    assert error in LEAVING or [0, 2, 3, None] == ended(keyed)
    assert [0, error] == ended(replaced)


Fn = Callable[..., Any]
MAKERS: dict[str, Callable[[Fn], Any]] = {
    "conflate": lambda fn: ops.conflate(key=fn),
    "merge": lambda fn: ops.conflate(merge=_swapped(fn)),
    "prioritize": lambda fn: ops.prioritize(fn, size=5),
    "delay_until": lambda fn: ops.delay_until(fn, size=5),
    "overflow": lambda fn: ops.buffer_bounded(1, overflow=fn),
}


def _swapped(fn: Fn) -> Callable[[Any, Any], Any]:
    return lambda old, new: fn(new, old)


@every_error
@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_functions_of_operators_that_hold_items(
    make: Callable[[Any], Any], error: BaseException
) -> None:
    """Any error of such a function ends the stream, and the source is disposed."""

    async def main() -> list[Any]:
        async with no_leaks():
            source: Subject[int] = Subject()
            probe = Probe(room=0).watch(source.pipe(make(raising(error))))
            for item in (0, 2, 1, 3):
                source.on_next(item)
            assert not source.observers
            probe.dispose()
            return [*probe.items, probe.error]

    with capture_logs():
        assert [error] == run_virtual(main())


class Changing:
    """A key whose hash changes."""

    def __init__(self) -> None:
        self.hash = 1

    def __hash__(self) -> int:
        return self.hash


def test_a_key_whose_hash_changes_ends_the_stream() -> None:
    """The stream ends with KeyError, as the lane of the key cannot be found again."""
    keys = [Changing() for _ in range(3)]

    async def fn(item: int) -> int:
        keys[item].hash += 1
        return item

    got = ended(lambda: Supply(range(3)).pipe(ops.map_async(fn, key=lambda n: keys[n])))
    assert isinstance(got[-1], KeyError)


def _parts(item: int) -> Any:
    return (part for part in [item])


def _list(item: int) -> Any:
    return [item]


def _nothing(item: int) -> Any:
    del item


@pytest.mark.parametrize("fn", [_parts, _list, _nothing])
def test_what_is_not_awaitable_is_a_failure(fn: Callable[[int], Any]) -> None:
    """Even a generator is refused, which asyncio of Python 3.11 would run as a coroutine."""
    got = ended(lambda: Supply(range(3)).pipe(ops.map_async(fn)))
    assert "fn must return an awaitable" in str(got[0])


def test_a_policy_that_returns_a_coroutine() -> None:
    """The policy fails, as nothing would await the coroutine."""

    async def bad(item: int) -> int:
        raise OSError(item)

    def policy(item: int, reason: BaseException) -> Any:
        del reason
        return same(item)

    got = ended(lambda: Supply(range(3)).pipe(ops.map_async(bad, on_error=policy)))
    assert "on_error must return what to emit, got a coroutine" == str(got[0])


def test_admit_that_returns_a_coroutine() -> None:
    """A coroutine does not admit the item."""

    def admit(item: int) -> Any:
        return same(item)

    ingress = rxd.Ingress[int](1, admit=admit)
    with pytest.raises(TypeError, match="admit must return True or False, got a coroutine"):
        ingress.offer_threadsafe(1)
    assert 0 == ingress.waiting


def test_a_skipped_item_is_in_no_log() -> None:
    """The log contains neither the item nor a local variable of the function."""

    async def fn(item: str) -> str:
        secret = item.upper()
        if item == "slow-card-4711":
            await asyncio.sleep(100)
        raise OSError(f"no route, {len(secret)}")

    async def main() -> None:
        stream = Supply(["card-4711", "slow-card-4711"]).pipe(
            ops.map_async(fn, timeout=1.0, on_error="skip")
        )
        await run(stream)

    with capture_logs() as logs:
        run_virtual(main())
    assert ["item_skipped"] * 2 == [entry["event"] for entry in logs]
    assert "4711" not in repr(logs)
    assert "CARD" not in repr(logs)


def test_a_flush_that_raises_ends_the_stream_all_the_same() -> None:
    """``batch`` still passes on the error of its source."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        errors: list[Any] = []

        def refuse(items: list[int]) -> None:
            raise ValueError(items)

        source.pipe(ops.batch(3, 1.0)).subscribe(refuse, errors.append)
        source.on_next(1)
        with pytest.raises(ValueError, match="1"):
            source.on_error(OSError("lost"))
        return [str(error) for error in errors]

    assert ["lost"] == run_virtual(main())


def test_a_section_that_cannot_be_made_is_not_counted_as_open() -> None:
    """``measure`` counts such a section as failed."""
    meter = rxd.Meter("broken")

    def operator(source: Observable[Any]) -> Observable[Any]:
        raise ValueError(source)

    got = ended(lambda: Supply(range(3)).pipe(ops.measure(meter, operator)))
    assert isinstance(got[-1], ValueError)
    assert (0, 1) == (meter.read().streams, meter.read().errors)


def test_notes_that_are_refused() -> None:
    """``checkpoint`` passes on the error without a note."""

    class RefusingError(Exception):
        """An error whose notes are no list."""

    error: Any = RefusingError("x")
    error.__notes__ = 3
    got = ended(lambda: Supply([1], error).pipe(ops.checkpoint("here"), rx.map(str)))
    assert ["1", error] == got


class Moody:
    """A key that can be compared only a few times."""

    patience = 3

    def __init__(self, number: int) -> None:
        self.number = number

    def __lt__(self, other: Moody) -> bool:
        Moody.patience -= 1
        if Moody.patience < 0:
            raise ValueError("enough")
        return self.number < other.number


def test_keys_that_raise_when_they_are_compared_later() -> None:
    """``prioritize`` ends its stream when an item leaves."""

    async def main() -> list[Any]:
        Moody.patience = 1000
        source: Subject[int] = Subject()
        probe = Probe(room=0).watch(source.pipe(ops.prioritize(Moody, size=9)))
        for n in range(6):
            source.on_next(n)
        Moody.patience = 0
        probe.open()
        await asyncio.sleep(1)
        return [probe.items, str(probe.error), probe.ends, len(source.observers)]

    with capture_logs():
        assert [[], "enough", 1, 0] == run_virtual(main())


class MoodyInt(int):
    """A number that cannot be compared."""

    def __lt__(self, other: object) -> bool:
        raise ValueError("enough")


def test_numbers_that_cannot_be_compared() -> None:
    """``PriorityIngress`` uses their plain value, and no place gets lost."""

    async def main() -> Any:
        ingress = rxd.PriorityIngress[int](3, key=MoodyInt)
        for n in (1, 3, 2):
            assert ingress.offer(n)
        ingress.close()
        return await run(ingress.pipe(rx.to_list()))

    assert [3, 2, 1] == run_virtual(main())


def test_an_extreme_rate() -> None:
    """The number of new tokens exceeds what a float can count."""
    stream = Supply(range(5)).pipe(ops.rate_limit(10**9, 1e-306, burst=1), rx.to_list())
    assert [0, 1, 2, 3, 4] == run_virtual(run(stream))


def test_a_stream_that_fails_with_stop_async_iteration() -> None:
    """A reader does not take the error for the end of the iteration."""

    async def main() -> None:
        async for _ in rxd.to_async_iterable(Supply([1], StopAsyncIteration())):
            pass

    with pytest.raises(RuntimeError, match="failed with StopAsyncIteration"):
        run_virtual(main())

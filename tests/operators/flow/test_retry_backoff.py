"""``retry_backoff``: when, how often, and after which errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import reactivex
from reactivex import Observable, abc
from reactivex import operators as rx
from reactivex.disposable import Disposable

from rxdispatch.backoff import Backoff
from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.streams import run
from rxdispatch.testing import run_virtual
from rxdispatch.valve import Gate, bound_by

EXACT = Backoff(first=2.0, factor=2.0, maximum=32.0, attempts=4, jitter=0.0)


class Flaky:
    """A source that plays the next script for each subscription, and the last one forever."""

    def __init__(self, *scripts: Sequence[Any]) -> None:
        self.scripts = scripts
        self.times: list[float] = []
        self.valves: list[Any] = []
        self.disposed = 0

    def stream(self) -> Observable[Any]:
        """Return the source as a stream."""

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            script = self.scripts[min(len(self.times), len(self.scripts) - 1)]
            self.times.append(asyncio.get_running_loop().time())
            self.valves.append(bound_by(valve_of(scheduler)))
            for item in script:
                if item == "|":
                    observer.on_completed()
                elif isinstance(item, BaseException):
                    observer.on_error(item)  # type: ignore[arg-type]
                else:
                    observer.on_next(item)

            def dispose() -> None:
                self.disposed += 1

            return Disposable(dispose)

        return Observable(subscribe)


def _is_os_error(error: BaseException) -> bool:
    return isinstance(error, OSError)


def _is_error(_: BaseException) -> bool:
    return True


def played(source: Flaky, operator: Callable[[Any], Any]) -> list[Any]:
    """Subscribe for a thousand seconds, and return the log."""

    async def main() -> list[Any]:
        got: list[Any] = []
        source.stream().pipe(operator).subscribe(got.append, got.append, lambda: got.append("|"))
        await asyncio.sleep(1000)
        return got

    return run_virtual(main())


def test_a_stream_without_errors_passes_through() -> None:
    """The source is subscribed to once."""
    source = Flaky([1, 2, "|"])
    assert [1, 2, "|"] == played(source, retry_backoff(EXACT))
    assert [0.0] == source.times


def test_each_wait_is_longer_than_the_one_before() -> None:
    """When all tries are used up, the last error passes."""
    errors = [OSError(str(n)) for n in range(4)]
    source = Flaky(*([error] for error in errors))
    assert [errors[3]] == played(source, retry_backoff(EXACT))
    assert [0.0, 2.0, 6.0, 14.0] == source.times


def test_the_errors_before_are_the_context_of_the_last() -> None:
    """The latest comes first; an error that has a context keeps it."""
    errors = [OSError(str(n)) for n in range(3)]
    own = KeyError("own")
    errors[1].__context__ = own
    played(Flaky(*([error] for error in errors)), retry_backoff(Backoff(1.0, attempts=3)))
    assert (errors[1], own, None) == (
        errors[2].__context__,
        errors[1].__context__,
        own.__context__,
    )


def test_the_same_error_again_makes_no_circle() -> None:
    """A source may fail with the same error each time, or with two alternately."""
    one, two = OSError("one"), OSError("two")
    assert [two] == played(Flaky([one], [two], [one], [two]), retry_backoff(EXACT))
    assert (one, None) == (two.__context__, one.__context__)


def test_a_value_ends_the_row() -> None:
    """After a value, the waits and the number of tries start again."""
    source = Flaky([OSError()], [OSError()], [1, OSError()], [OSError()], [2, "|"])
    assert [1, 2, "|"] == played(source, retry_backoff(EXACT))
    assert [0.0, 2.0, 6.0, 8.0, 12.0] == source.times


def test_one_attempt_never_retries() -> None:
    """The first try counts as an attempt."""
    error = OSError("x")
    source = Flaky([error])
    assert [error] == played(source, retry_backoff(Backoff(attempts=1)))
    assert [0.0] == source.times


@pytest.mark.parametrize(
    "retry_on",
    [OSError, (KeyError, OSError), _is_os_error],
    ids=["class", "tuple", "function"],
)
def test_only_chosen_errors_are_retried(retry_on: Any) -> None:
    """A class, a tuple of classes or a function chooses; other errors pass at once."""
    wrong = ValueError("wrong")
    source = Flaky([OSError()], [wrong])
    assert [wrong] == played(source, retry_backoff(EXACT, retry_on=retry_on))
    assert [0.0, 2.0] == source.times


@pytest.mark.parametrize("retry_on", [Exception, BaseException, _is_error])
def test_cancellation_is_never_retried(retry_on: Any) -> None:
    """A CancelledError passes at once, whatever ``retry_on`` is."""
    error = asyncio.CancelledError()
    source = Flaky([error])
    assert [error] == played(source, retry_backoff(EXACT, retry_on=retry_on))
    assert [0.0] == source.times


def test_a_choice_that_fails_ends_the_stream() -> None:
    """The stream ends with the error of the function."""

    def choose(error: BaseException) -> bool:
        raise KeyError(error)

    got = played(Flaky([OSError()]), retry_backoff(EXACT, retry_on=choose))
    assert [KeyError] == [type(item) for item in got]


def test_disposal_during_the_wait_ends_it() -> None:
    """There is no further try."""

    async def main() -> list[Any]:
        source = Flaky([OSError()])
        got: list[Any] = []
        subscription = source.stream().pipe(retry_backoff(EXACT)).subscribe(got.append, got.append)
        await asyncio.sleep(3)
        subscription.dispose()
        await asyncio.sleep(1000)
        return [got, source.times]

    assert [[], [0.0, 2.0]] == run_virtual(main())


def test_disposal_disposes_the_current_try() -> None:
    """Earlier tries have been disposed already."""

    async def main() -> int:
        source = Flaky([OSError()], [1])
        subscription = source.stream().pipe(retry_backoff(EXACT)).subscribe()
        await asyncio.sleep(3)
        subscription.dispose()
        return source.disposed

    assert run_virtual(main()) == 2


def test_disposal_from_within_on_next() -> None:
    """``take`` ends the stream; an error after it starts no try."""
    source = Flaky([1, OSError()])
    assert [1, "|"] == played(source, lambda s: s.pipe(retry_backoff(EXACT), rx.take(1)))
    assert [0.0] == source.times


def test_many_tries_without_a_wait_do_not_recurse() -> None:
    """Each try starts from the loop."""
    error = OSError("x")
    source = Flaky([error])
    backoff = Backoff(first=0.0, maximum=0.0, attempts=5000)
    assert [error] == played(source, retry_backoff(backoff))
    assert len(source.times) == 5000


def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription counts its own failures."""

    async def main() -> list[Any]:
        operator = retry_backoff(EXACT)
        results: list[Any] = []
        for _ in range(2):
            source = Flaky([OSError()], [OSError()], [OSError()], [7, "|"])
            results.append((await run(source.stream().pipe(operator)), len(source.times)))
        return results

    assert [(7, 4), (7, 4)] == run_virtual(main())


def test_each_try_sees_the_valve() -> None:
    """Demand passes through the operator."""

    async def main() -> list[Any]:
        gate = Gate(lambda: 1, None)
        source = Flaky([OSError()], [OSError()], ["|"])
        source.stream().pipe(retry_backoff(EXACT)).subscribe(
            scheduler=LoopScheduler(asyncio.get_running_loop(), valve=gate)
        )
        await asyncio.sleep(100)
        return [valve is gate for valve in source.valves]

    assert [True, True, True] == run_virtual(main())


def test_a_failing_handler_above_is_tried_again() -> None:
    """If ``map_async`` ends its stream with an error, the source starts again."""
    calls: list[int] = []

    async def fn(item: int) -> int:
        calls.append(item)
        if len(calls) == 2:
            raise OSError(item)
        return item

    stream = reactivex.range(3).pipe(map_async(fn, max_concurrent=1), retry_backoff(EXACT))
    assert [0, 0, 1, 2] == run_virtual(run(stream.pipe(rx.to_list())))
    assert [0, 1, 0, 1, 2] == calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backoff": 3}, "backoff must be a Backoff, got 3"),
        ({"retry_on": 3}, "retry_on must be exception classes or a function, got 3"),
        ({"retry_on": int}, "retry_on must be exception classes or a function, got"),
        ({"retry_on": (OSError, 3)}, "retry_on must be exception classes or a function, got"),
    ],
)
def test_a_bad_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    """A bad argument is refused when the operator is made."""
    with pytest.raises(ConfigError) as caught:
        retry_backoff(**arguments)
    assert str(caught.value).startswith(message)

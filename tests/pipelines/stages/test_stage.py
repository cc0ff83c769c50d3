"""A single stage: its calls, attempts, batches, and errors."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch.testing import run_virtual

Ended = tuple[list[Any], list[rxd.StageError], rxd.PipelineStats]

AT_ONCE = rxd.Backoff(first=0.0, maximum=0.0, attempts=3, jitter=0.0)


async def through(stage: rxd.Stage, items: Any, **options: Any) -> Ended:
    """Send items through one stage; return results, failures and counters."""
    got: list[Any] = []
    failed: list[rxd.StageError] = []
    async with rxd.Pipeline(stage, **options) as p:
        p.results.subscribe(got.append)
        p.failures.subscribe(failed.append)
        await p.feed(items)
    return got, failed, p.stats


def causes(failed: list[rxd.StageError]) -> list[str]:
    """Return the causes of failures."""
    return [f"{type(failure.__cause__).__name__}: {failure.__cause__}" for failure in failed]


def doubled(n: int) -> int:
    """A function that can be pickled."""
    return 2 * n


def all_doubled(numbers: list[int]) -> list[int]:
    """Do the same for lists."""
    return [2 * n for n in numbers]


class Doubler:
    """An object whose call is a coroutine function."""

    async def __call__(self, n: int) -> int:
        return 2 * n


async def added(m: int, n: int) -> int:
    """Add two numbers; a coroutine function for ``partial``."""
    return m + n


# ------------------------------------------------ what is called, and where


@pytest.mark.parametrize("fn", [Doubler(), partial(added, 0), partial(partial(added, 0))])
def test_coroutine_functions_run_on_the_loop(fn: Any) -> None:
    """Callable objects and partials run on the loop too."""
    assert not rxd.stage(fn, name="s").plain


@pytest.mark.parametrize("retry", [None, AT_ONCE])
@pytest.mark.parametrize("batch", [None, (3, 0.01)])
async def test_plain_functions_run_in_threads(retry: Any, batch: Any) -> None:
    """As many run at a time as there are slots, each in the context of its item."""
    who: ContextVar[str] = ContextVar("who")
    seen: set[tuple[str, str]] = set()

    def look(item: Any) -> Any:
        seen.add((who.get(), threading.current_thread().name.rpartition("_")[0]))
        return item

    who.set("me")
    stage = rxd.stage(look, batch=batch, backoff=retry, max_concurrent=2)
    got, failed, _ = await through(stage, range(10), ordered=True)
    assert list(range(10)) == got
    assert [] == failed
    assert {("me", "map_blocking" if retry is None else "pipeline")} == seen
    for thread in threading.enumerate():
        if thread.name.startswith("pipeline"):
            thread.join(10)
            assert not thread.is_alive()


@pytest.mark.parametrize("retry", [None, AT_ONCE])
async def test_an_executor_is_used_and_stays_open(retry: Any) -> None:
    """For processes, functions and items are pickled."""
    with ProcessPoolExecutor(1) as pool:
        one = rxd.stage(doubled, executor=pool, backoff=retry)
        assert [0, 2, 4] == (await through(one, range(3), ordered=True))[0]
        many = rxd.stage(all_doubled, executor=pool, backoff=retry, batch=(2, 0.01))
        assert [0, 2, 4] == (await through(many, range(3), ordered=True))[0]
    with ThreadPoolExecutor(1) as pool:
        one = rxd.stage(doubled, executor=pool, backoff=retry)
        assert [0, 2, 4] == (await through(one, range(3), ordered=True))[0]


@pytest.mark.parametrize("retry", [None, AT_ONCE])
async def test_plain_functions_that_return_coroutines_are_a_mistake(retry: Any) -> None:
    """The error names the mistake, and the coroutine is closed."""
    stage = rxd.stage(lambda n: added(n, n), name="s", backoff=retry)
    _, failed, _ = await through(stage, [1])
    rule = "TypeError: fn must return a result, got a coroutine that has not run"
    assert [rule] == causes(failed)


@pytest.mark.parametrize("retry", [None, AT_ONCE])
async def test_stop_iteration_is_an_error_like_others(retry: Any) -> None:
    """The item fails, although no future accepts such an error."""
    stage = rxd.stage(lambda _: next(iter(())), name="s", backoff=retry)
    _, failed, _ = await through(stage, [1])
    assert ["RuntimeError: fn raised StopIteration"] == causes(failed)


async def test_a_context_goes_through_all_stages() -> None:
    """Each result is emitted in the context of its submitter."""
    who: ContextVar[int] = ContextVar("who")
    seen: list[tuple[int, int]] = []

    async def look(n: int) -> int:
        assert n == who.get()
        return n

    async def send(n: int) -> None:
        who.set(n)
        await p.submit(n)

    stages = [rxd.stage(look, name="a"), rxd.stage(lambda n: n, name="b"), rxd.stage(look)]
    async with rxd.Pipeline(*stages) as p:
        p.results.subscribe(lambda n: seen.append((n, who.get())))
        await asyncio.gather(*map(send, range(20)))
    assert [(n, n) for n in range(20)] == sorted(seen)


# ------------------------------------------------ errors


async def odd_ones_fail(n: int) -> int:
    """Fail for odd numbers."""
    if n % 2:
        raise ValueError(n)
    return n


async def test_an_item_that_fails_harms_no_other() -> None:
    """The failure has the id, the stage, the attempt, the item and the cause."""
    got, failed, stats = await through(rxd.stage(odd_ones_fail, name="s"), range(6))
    assert [0, 2, 4] == sorted(got)
    assert ["ValueError: 1", "ValueError: 3", "ValueError: 5"] == causes(failed)
    first = failed[0]
    assert ("s", 1, 1) == (first.stage, first.attempt, first.item)
    assert f"item {first.task_id!r} failed in stage 's' at attempt 1" == str(first)
    assert isinstance(first, rxd.TaskExecutionError)
    assert (3, 3, 0) == (stats.stages["s"].done, stats.stages["s"].failed, stats.stages["s"].queued)
    assert (6, 3, 3) == (stats.submitted, stats.results, stats.failed)


async def test_failures_without_a_subscriber_are_logged() -> None:
    """The log entry does not contain the item."""
    with capture_logs() as logs:
        async with rxd.Pipeline(rxd.stage(odd_ones_fail, name="s")) as p:
            await p.submit(1, id="one")
    assert [("item_failed", "s", "one", "ValueError: 1")] == [
        (log["event"], log["stage"], log["item"], log["error"]) for log in logs
    ]


async def test_items_that_fail_can_be_skipped() -> None:
    """Skipped items are logged and counted."""
    with capture_logs() as logs:
        stage = rxd.stage(odd_ones_fail, name="s", on_error="skip")
        got, failed, stats = await through(stage, range(4))
    assert ([0, 2], [], 2) == (sorted(got), failed, stats.failed)
    assert [("item_skipped", "s", 1), ("item_skipped", "s", 2)] == [
        (log["event"], log["stage"], log["skipped"]) for log in logs
    ]


@pytest.mark.parametrize("batch", [None, (2, 0.01)])
async def test_items_that_fail_can_be_replaced(batch: Any) -> None:
    """A function of item and error makes the result; if it raises, that is the failure."""

    async def fail(item: Any) -> Any:
        if item in (1, [0, 1]):
            raise ValueError("bad")
        return item

    def replace(item: Any, error: BaseException) -> Any:
        assert "bad" == str(error)
        if item == 0:
            raise KeyError(item)
        return -item

    stage = rxd.stage(fail, name="s", on_error=replace, batch=batch)
    got, failed, stats = await through(stage, range(4), ordered=True)
    if batch is None:
        assert [0, -1, 2, 3] == got
        assert [] == failed
    else:
        assert [-1, 2, 3] == got
        assert ["KeyError: 0"] == causes(failed)
        cause = failed[0].__cause__
        assert cause is not None
        assert "bad" == str(cause.__context__)
    seen = stats.stages["s"]
    assert (4, 0, 0) == (seen.done + seen.failed, seen.queued, seen.in_flight)


@pytest.mark.parametrize(
    ("returned", "rule"),
    [
        (None, "fn of a batch must return a list of results, got 'NoneType'"),
        ("ab", "fn of a batch must return a list of results, got 'str'"),
        ([1], r"fn of a batch must return as many results as it got items \(2\), got 1"),
        ([1, 2, 3], r"fn of a batch must return as many results as it got items \(2\), got 3"),
    ],
)
@pytest.mark.parametrize("plain", [False, True])
async def test_batches_must_return_a_result_for_each_item(
    returned: Any, rule: str, plain: bool
) -> None:
    """If they do not, all items of the batch fail."""

    async def on_loop(_: list[int]) -> Any:
        return returned

    def in_thread(_: list[int]) -> Any:
        return returned

    fn = in_thread if plain else on_loop
    got, failed, _ = await through(rxd.stage(fn, name="s", batch=(2, 1.0)), range(2))
    assert [] == got
    assert [0, 1] == [failure.item for failure in failed]
    with pytest.raises(rxd.ConfigError, match=rule):
        raise failed[0].__cause__ or AssertionError


async def test_a_coroutine_that_cancels_itself_has_failed() -> None:
    """The item fails, and the pipeline goes on."""

    async def give_up(n: int) -> int:
        if n:
            raise asyncio.CancelledError
        return n

    got, failed, _ = await through(rxd.stage(give_up), range(2))
    assert ([0], ["CancelledError: "]) == (got, causes(failed))


# ------------------------------------------------ time limits and tries


@pytest.mark.parametrize("retry", [None, rxd.Backoff(first=5.0, attempts=2, jitter=0.0)])
@pytest.mark.parametrize("batch", [None, (2, 1.0)])
def test_an_attempt_has_a_timeout(retry: rxd.Backoff | None, batch: Any) -> None:
    """The error names the item, and each attempt has its own timeout."""

    async def slow(_: Any) -> None:
        await asyncio.sleep(10)

    async def main() -> None:
        stage = rxd.stage(slow, timeout=2.0, backoff=retry, batch=batch)
        _, failed, _ = await through(stage, [7, 8])
        item = [7, 8] if batch else 7
        name = "a batch of 2 items" if batch else repr(failed[0].task_id)
        assert [f"ItemTimeoutError: {name} must be done within 2 s"] == causes(failed)[:1]
        assert (1 if retry is None else 2) == failed[0].attempt
        cause = failed[0].__cause__
        assert isinstance(cause, rxd.ItemTimeoutError)
        assert item == cause.item
        assert (2.0 if retry is None else 9.0) == asyncio.get_running_loop().time()

    run_virtual(main())


def test_a_timeout_of_the_function_is_passed_on() -> None:
    """The error is not taken for the timeout of the stage."""

    async def slow(_: Any) -> None:
        raise TimeoutError("theirs")

    async def main() -> None:
        stage = rxd.stage(slow, timeout=2.0, backoff=AT_ONCE)
        assert ["TimeoutError: theirs"] == causes((await through(stage, [7]))[1])

    run_virtual(main())


async def test_a_thread_that_takes_too_long_fails_its_item_at_once() -> None:
    """The later result of the thread is dropped."""
    go_on = threading.Event()

    def wait(n: int) -> int:
        if n == 0:
            go_on.wait(30)
        return n

    for retry in (None, rxd.Backoff(first=0.0, maximum=0.0, attempts=2)):
        go_on.clear()
        stage = rxd.stage(
            wait, timeout=0.05, backoff=retry, max_concurrent=4, on_error=lambda n, _: -1
        )
        got, _, stats = await through(stage, range(3))
        assert [-1, 1, 2] == sorted(got)
        assert 1 == stats.failed
        go_on.set()


def test_attempts_wait_in_between_and_keep_their_slot() -> None:
    """Other items use the other slots."""
    tries: list[tuple[int, float]] = []

    async def flaky(n: int) -> int:
        tries.append((n, asyncio.get_running_loop().time()))
        await asyncio.sleep(1)
        if n == 0 and len([m for m, _ in tries if m == 0]) < 3:
            raise ValueError
        return n

    async def main() -> None:
        backoff = rxd.Backoff(first=2.0, factor=2.0, attempts=3, jitter=0.0)
        stage = rxd.stage(flaky, backoff=backoff, max_concurrent=2)
        got, failed, stats = await through(stage, range(9))
        assert list(range(1, 9)) == [n for n in got if n]
        assert 9 == len(got)
        assert ([], 0) == (failed, stats.failed)
        assert [0.0, 3.0, 8.0] == [at for n, at in tries if n == 0]
        assert [float(n - 1) for n in range(1, 9)] == [at for n, at in tries if n]
        assert 9.0 == asyncio.get_running_loop().time()

    run_virtual(main())


async def test_the_last_attempt_counts() -> None:
    """Attempts at an earlier stage do not count."""
    tried: list[int] = []

    async def flaky(n: int) -> int:
        tried.append(n)
        if len(tried) < 3:
            raise ValueError(n)
        return n

    failed: list[rxd.StageError] = []
    stages = [rxd.stage(flaky, backoff=AT_ONCE), rxd.stage(odd_ones_fail, name="then")]
    async with rxd.Pipeline(*stages) as p:
        p.failures.subscribe(failed.append)
        await p.submit(1)
        await asyncio.sleep(0.05)
        tried.clear()
        await p.submit(3)
    assert [("then", 1), ("then", 1)] == [(f.stage, f.attempt) for f in failed]
    _, failed, _ = await through(rxd.stage(odd_ones_fail, backoff=AT_ONCE), [1])
    assert [3] == [f.attempt for f in failed]


async def test_each_attempt_of_a_batch_gets_a_list_of_its_own() -> None:
    """A change that an attempt makes does not reach the next one."""
    seen: list[list[int]] = []

    async def greedy(items: list[int]) -> list[int]:
        seen.append(list(items))
        if len(seen) < 3:
            items.clear()
            raise ValueError
        return items

    got, _, _ = await through(rxd.stage(greedy, batch=(3, 1.0), backoff=AT_ONCE), range(3))
    assert [[0, 1, 2]] * 3 == seen
    assert [0, 1, 2] == got


def test_max_concurrent_may_be_a_limit() -> None:
    """The limit learns from this stage."""

    async def work(n: int) -> int:
        await asyncio.sleep(1)
        return n

    async def main() -> None:
        limit = rxd.AdaptiveLimit(maximum=64)
        stage = rxd.stage(work, max_concurrent=limit)
        assert (64, 64) == (stage.slots, stage.burst)
        got, _, stats = await through(stage, range(1000))
        assert 1000 == len(got)
        assert limit.limit == stats.stages["work"].limit
        assert 1 < limit.limit <= 64

    run_virtual(main())


# ------------------------------------------------ arguments


def test_a_stage_is_data() -> None:
    """A stage has defaults, a name, and derived values."""
    stage = rxd.stage(partial(doubled), batch=(10, 0.5), max_concurrent=3)
    assert ("doubled", 3, 30, None, True) == (
        stage.name,
        stage.slots,
        stage.burst,
        stage.queue_size,
        stage.plain,
    )
    assert "Doubler" == rxd.stage(Doubler()).name
    with pytest.raises(AttributeError):
        stage.name = "x"  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"name": ""}, "name must be a str of 1 to 200 characters"),
        ({"max_concurrent": 0}, "max_concurrent must be an int >= 1 or a Limit, got 0"),
        ({"max_concurrent": True}, "max_concurrent must be an int >= 1 or a Limit, got True"),
        ({"queue_size": 0}, "queue_size must be an int >= 1 or None, got 0"),
        ({"batch": 3}, "batch must be a pair of a count and seconds, got 3"),
        ({"batch": (0, 1.0)}, "the count of batch must be an int >= 1, got 0"),
        ({"batch": (1, 0)}, "the time of batch must be a finite number of seconds > 0, got 0"),
        ({"timeout": 0}, "timeout must be a finite number of seconds > 0, got 0"),
        ({"backoff": 3}, "backoff must be a Backoff or None, got 3"),
        ({"on_error": "fail"}, 'on_error must be "stop", "skip" or callable'),
        ({"on_error": added}, "on_error must be a plain function"),
        ({"executor": 3}, "executor must be a concurrent.futures.Executor or None, got 3"),
    ],
)
def test_bad_options(options: dict[str, Any], rule: str) -> None:
    """Each is refused at once."""
    with pytest.raises(rxd.ConfigError, match=rule):
        rxd.stage(doubled, **options)


def test_bad_functions() -> None:
    """Functions that cannot be called, or cannot be pickled, are refused."""
    with pytest.raises(rxd.ConfigError, match="fn must be callable, got 3"):
        rxd.stage(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(rxd.ConfigError, match="executor must be None for a coroutine function"),
    ):
        rxd.stage(partial(added, 1), executor=pool)

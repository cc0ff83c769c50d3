"""``AdaptiveLimit``, alone and as the ``max_concurrent`` of the bounded maps."""

from __future__ import annotations

import asyncio
import itertools
import random
from typing import Any

import pytest
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError, ItemTimeoutError
from rxdispatch.operators.flow._adaptive_limit import AdaptiveLimit
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._map_blocking import map_blocking
from rxdispatch.protocols import Limit
from rxdispatch.streams import run
from rxdispatch.testing import Probe, Supply, run_virtual
from tests.operators.flow.runs import to_list


class Service:
    """Takes *base* seconds per call for up to *knee* concurrent calls; more calls take longer."""

    def __init__(self, knee: int, base: float = 0.1, *, noise: float = 0.0) -> None:
        self.knee = knee
        self.base = base
        self.noise = noise
        self.now = 0
        self.random = random.Random(1)

    async def __call__(self, item: int) -> int:
        """Return *item* after the time that the load demands."""
        self.now += 1
        seconds = self.base * max(1.0, self.now / self.knee)
        try:
            await asyncio.sleep(seconds * (1 + self.random.random() * self.noise))
        finally:
            self.now -= 1
        return item


def seen(limit: AdaptiveLimit, service: Service, seconds: float, every: float = 0.5) -> list[int]:
    """Return the limit at regular intervals, while *service* is called without a pause."""

    async def main() -> list[int]:
        stream = Supply(itertools.count()).pipe(map_async(service, max_concurrent=limit))
        subscription = stream.subscribe()
        limits: list[int] = []
        for _ in range(int(seconds / every)):
            await asyncio.sleep(every)
            limits.append(limit.limit)
        subscription.dispose()
        await asyncio.sleep(0)
        return limits

    return run_virtual(main())


# ---------------------------------------------------------------- the limit that it finds


@pytest.mark.parametrize(("knee", "noise"), [(5, 0.0), (5, 0.2), (25, 0.0), (25, 0.2)])
def test_it_finds_the_knee(knee: int, noise: float) -> None:
    """The limit rises to the knee and stays near it."""
    limits = seen(AdaptiveLimit(maximum=500), Service(knee, noise=noise), 40)
    later = limits[30:]
    assert knee * 0.4 <= min(later)
    assert max(later) <= knee * 1.6 + 1
    assert knee * 0.8 <= sum(later) / len(later) <= knee * 1.4


def test_it_finds_the_knee_from_above() -> None:
    """The limit falls to the knee, although the best latency is unknown at first."""
    limits = seen(AdaptiveLimit(initial=100, maximum=500), Service(10), 120)
    assert max(limits[-60:]) <= 17


def test_it_grows_to_the_maximum_while_latency_is_flat() -> None:
    """The limit doubles at first; later each probe halves it for a moment."""
    limits = seen(AdaptiveLimit(initial=2, maximum=64), Service(10**9), 20)
    assert 64 == max(limits)
    assert sum(limit == 64 for limit in limits) > len(limits) * 0.8
    assert limits[10] >= 32


def test_it_stays_within_its_bounds() -> None:
    """The limit stays within its bounds, whatever the latency is."""
    limits = seen(AdaptiveLimit(minimum=4, maximum=9, initial=6), Service(1), 30)
    assert all(4 <= limit <= 9 for limit in limits)


def test_it_gets_used_to_a_service_that_became_slower() -> None:
    """A probe shows that fewer concurrent calls would not help."""
    limit = AdaptiveLimit(maximum=500)
    service = Service(10)
    seen(limit, service, 20)
    service.base = 0.5
    limits = seen(limit, service, 200)
    later = limits[200:]
    assert 8 <= sum(later) / len(later) <= 14


def test_it_does_not_grow_while_it_is_not_used() -> None:
    """The latency of a few items says nothing about many."""

    async def main(limit: AdaptiveLimit) -> None:
        stream = Supply(range(500))
        await run(stream.pipe(map_async(lambda n: asyncio.sleep(1, n), max_concurrent=3)))
        for _ in range(500):
            limit.ended(0.1, in_flight=3, dropped=False)

    limit = AdaptiveLimit(initial=8)
    run_virtual(main(limit))
    assert limit.limit <= 8


def test_a_time_out_lowers_it_once_for_all_at_work() -> None:
    """Items that were in flight together lower the limit only once."""
    limit = AdaptiveLimit(initial=10)
    for _ in range(10):
        limit.ended(1.0, in_flight=10, dropped=True)
    assert limit.limit == 8
    limit.ended(1.0, in_flight=8, dropped=True)
    assert limit.limit == 6


# ---------------------------------------------------------------- in a map


def _seventh(item: int) -> int:
    """Return one of seven keys."""
    return item % 7


class Fixed:
    """A limit that the test sets, and which records its calls."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.maximum = 100
        self.told: list[tuple[float, int, bool]] = []

    def ended(self, seconds: float, *, in_flight: int, dropped: bool) -> None:
        self.told.append((seconds, in_flight, dropped))


def test_a_limit_is_a_protocol() -> None:
    """A user's class can implement the protocol."""
    assert isinstance(AdaptiveLimit(), Limit)
    assert isinstance(Fixed(1), Limit)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("keyed", [False, True])
def test_a_limit_that_changes_is_followed(ordered: bool, keyed: bool) -> None:
    """A higher limit applies at once, a lower one as items end, with and without keys."""

    async def main() -> list[int]:
        limit = Fixed(2)
        now = 0

        async def fn(item: int) -> int:
            nonlocal now
            now += 1
            await asyncio.sleep(1)
            now -= 1
            return item

        paced = Supply(range(100))
        key = _seventh if keyed else None
        operator = map_async(fn, max_concurrent=limit, ordered=ordered, key=key)
        log = Probe()
        paced.pipe(operator).subscribe(log)
        at_work: list[int] = []
        for wanted in (2, 6, 6, 3, 3, 1, 1, 5, 5):
            limit.limit = wanted
            await asyncio.sleep(1)
            await asyncio.sleep(0.25)
            at_work.append(now)
            await asyncio.sleep(0.75)
        limit.limit = 100
        await asyncio.sleep(100)
        assert [*range(100), "|"] == sorted(log.notifications[:-1]) + log.notifications[-1:]
        return at_work

    with capture_logs() as logs:
        assert [2, 6, 6, 3, 3, 1, 1, 5, 5] == run_virtual(main())
    assert [] == logs


def test_a_limit_is_told_of_successes_and_time_outs() -> None:
    """The limit hears nothing of items that fail otherwise, as they say nothing about load."""

    async def fn(item: int) -> int:
        await asyncio.sleep(item)
        if item == 2:
            raise ValueError(item)
        return item

    async def main(limit: Fixed) -> Any:
        operator = map_async(fn, max_concurrent=limit, timeout=3, on_error="skip")
        return await to_list(Supply([1, 2, 3, 9]).pipe(operator))

    limit = Fixed(10)
    with capture_logs():
        assert [1] == run_virtual(main(limit))
    assert [(1.0, 4, False), (3.0, 2, True), (3.0, 1, True)] == limit.told


def test_a_limit_that_fails_ends_the_stream() -> None:
    """The stream ends with the error of the limit."""

    class Broken(Fixed):
        def ended(self, seconds: float, *, in_flight: int, dropped: bool) -> None:
            raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        run_virtual(to_list(Supply([1, 2]).pipe(map_async(Service(1), max_concurrent=Broken(1)))))


def test_threads_are_limited_too() -> None:
    """``map_blocking`` takes a limit too."""

    async def main(limit: Fixed) -> Any:
        operator = map_blocking(str, max_concurrent=limit, ordered=True)
        return await to_list(Supply(range(9)).pipe(operator))

    limit = Fixed(2)
    assert [str(n) for n in range(9)] == asyncio.run(main(limit))
    assert 9 == len(limit.told)
    assert all(in_flight <= 2 for _, in_flight, _ in limit.told)


def test_a_shared_limit_serves_two_streams() -> None:
    """Each stream has as many slots as the limit, and both teach it."""

    async def main() -> int:
        limit = AdaptiveLimit(maximum=200)
        service = Service(20)
        streams = [
            Supply(range(2000)).pipe(map_async(service, max_concurrent=limit)) for _ in range(2)
        ]
        await asyncio.gather(*(run(stream) for stream in streams))
        return limit.limit

    assert run_virtual(main()) <= 20


def test_a_time_out_of_a_map_is_an_item_time_out() -> None:
    """Errors are the same with a limit."""
    stream = Supply([9])
    operator = map_async(Service(1, 9.0), max_concurrent=AdaptiveLimit(), timeout=1)
    with pytest.raises(ItemTimeoutError):
        run_virtual(run(stream.pipe(operator)))


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"minimum": 0}, "minimum must be an int >= 1, got 0"),
        ({"maximum": 0}, "maximum must be an int >= 1, got 0"),
        ({"minimum": 3, "maximum": 2}, "maximum must be >= minimum (3), got 2"),
        ({"initial": 11, "maximum": 10}, "initial must be an int from 1 to 10, got 11"),
        ({"tolerance": 1}, "tolerance must be a finite number > 1, got 1"),
        ({"tolerance": float("nan")}, "tolerance must be a finite number > 1, got nan"),
        ({"backoff": 1.0}, "backoff must be a number between 0 and 1, got 1.0"),
        ({"backoff": True}, "backoff must be a number between 0 and 1, got True"),
    ],
)
def test_a_bad_argument_is_refused(options: dict[str, Any], message: str) -> None:
    """A bad argument is refused when the limit is made."""
    with pytest.raises(ConfigError) as caught:
        AdaptiveLimit(**options)
    assert message == str(caught.value)

"""
The command line of all drivers, and the load generator behind it.

::

    about                        versions, as JSON
    submit URL N                 put N tasks on the queue in bulk; {"seconds": ...}
    work URL N CONCURRENCY       handle N tasks; {"starts": [...], "payloads": [...]}
    serve URL CONCURRENCY        handle tasks; for each N on stdin, answer like work for the next N
    load URL RATE SECONDS SEED   submit one at a time, by Poisson arrivals; RATE 0: without pause

A payload is 20 digits: the number of the task; for a load, the intended start in microseconds and
the last four digits of the number. A driver ends when its stdin ends, so that it does not outlive
its parent. It imports only its own system and the standard library, as some systems have an
environment of their own.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import random
import selectors
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib import metadata
from typing import Any, Final, TextIO

__all__ = [
    "SETTLING",
    "SUBMITTERS",
    "Arrivals",
    "Saw",
    "arrive",
    "gather",
    "main",
    "run_load",
    "thread_load",
]

#: A handler calls it with the payload as soon as the handler starts.
Saw = Callable[[str], None]

#: Coroutines that submit at the same time.
SUBMITTERS: Final = 32

#: Seconds at the beginning of a load that do not count, because connections are made then.
SETTLING: Final = 0.5

#: Threads that submit at the same time.
THREADS: Final = 8

_STALLED: Final = 12.0
_LOOK: Final = 0.02


class Arrivals:
    """
    The instants at which tasks are due: a Poisson process, equal for equal seeds.

    Iterating takes the next instant, on the host's clock; several submitters may share an iterator.
    With *rate* 0 each instant is now, until the time is over.
    """

    def __init__(self, rate: float, seconds: float, seed: int) -> None:
        self.slips: list[float] = []
        self.sent = 0
        self.begin = time.time() + 0.1
        self._lock = threading.Lock()
        self._instants = self._flood(seconds) if rate <= 0 else self._poisson(rate, seconds, seed)

    def _poisson(self, rate: float, seconds: float, seed: int) -> Iterator[float]:
        source = random.Random(seed)
        offset = source.expovariate(rate)
        while offset < seconds:
            yield self.begin + offset
            offset += source.expovariate(rate)

    def _flood(self, seconds: float) -> Iterator[float]:
        while (now := time.time()) < self.begin + seconds:
            yield max(now, self.begin)

    def __iter__(self) -> Iterator[float]:
        while True:
            with self._lock:
                instant = next(self._instants, None)
            if instant is None:
                return
            yield instant

    def payload(self, instant: float) -> str:
        """Return 20 digits, which are the intended start and a number; record the delay."""
        with self._lock:
            self.sent += 1
            number = self.sent
        if instant >= self.begin + SETTLING:
            self.slips.append(time.time() - instant)
        return f"{instant * 1e6:016.0f}{number % 10_000:04d}"

    def report(self) -> dict[str, Any]:
        """Return the number of tasks, the begin, and the 99th percentile of the delay."""
        cuts = statistics.quantiles([*self.slips, 0.0, 0.0], n=100)
        return {
            "sent": self.sent,
            "begin": self.begin,
            "slip_p99": cuts[98],
        }


async def arrive(arrivals: Arrivals, submit: Callable[[str], Awaitable[Any]]) -> None:
    """Submit at each arrival, up to ``SUBMITTERS`` at the same time."""

    async def submitter() -> None:
        for instant in arrivals:
            wait = instant - time.time()
            if wait > 0:
                await asyncio.sleep(wait)
            await submit(arrivals.payload(instant))

    await asyncio.gather(*(submitter() for _ in range(SUBMITTERS)))


def run_load(load: Awaitable[Any]) -> None:
    """
    Run a coroutine on a loop whose timers are exact.

    epoll rounds waits up to whole milliseconds, which would count as latency; select does not.
    """

    async def main() -> None:
        await load

    factory = lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())  # noqa: E731
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())


def thread_load(arrivals: Arrivals, submit: Callable[[str], Any]) -> None:
    """Submit at each arrival, from ``THREADS`` threads."""

    def submitter() -> None:
        for instant in arrivals:
            wait = instant - time.time()
            if wait > 0:
                time.sleep(wait)
            submit(arrivals.payload(instant))

    threads = [threading.Thread(target=submitter, daemon=True) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


async def gather(submit: Callable[[str], Awaitable[Any]], payloads: Sequence[str]) -> float:
    """Submit all, ``SUBMITTERS`` at a time, for systems without a bulk call; return the seconds."""
    left = iter(payloads)

    async def submitter() -> None:
        for payload in left:
            await submit(payload)

    start = time.perf_counter()
    await asyncio.gather(*(submitter() for _ in range(SUBMITTERS)))
    return time.perf_counter() - start


def main(
    packages: Sequence[str],
    *,
    submit: Callable[[str, list[str]], float],
    work: Callable[[str, int, Saw], object],
    load: Callable[[str, Arrivals], object],
) -> None:
    """
    Run the command of the command line, then end the process.

    Args:
        packages: Distributions whose versions matter.
        submit: Puts payloads on the queue at a URL in bulk, and returns the seconds it took.
        work: Runs a worker at a URL with a given concurrency; its handlers only call ``saw``.
        load: Submits one task for each arrival.
    """
    _answers()
    command, *words = sys.argv[1:]
    if command == "about":
        _say({package: metadata.version(package) for package in packages})
        return
    seen: list[tuple[float, str]] = []
    url = words[0]
    if command in {"work", "serve"}:
        wanted = int(words[1]) if command == "work" else None
        threading.Thread(target=_watch, args=(seen, wanted), daemon=True).start()
        work(url, int(words[-1]), lambda payload: seen.append((time.time(), payload)))
        raise SystemExit(f"the worker must go on until it is stopped, but {command} ended")
    threading.Thread(target=_follow, daemon=True).start()
    if command == "submit":
        _say({"seconds": submit(url, [f"{n:020d}" for n in range(int(words[1]))])})
    else:
        arrivals = Arrivals(float(words[1]), float(words[2]), int(words[3]))
        load(url, arrivals)
        _say(arrivals.report())
    os._exit(0)


def _watch(seen: list[tuple[float, str]], wanted: int | None) -> None:
    """Report the handled tasks whenever asked; end the process when stdin ends."""
    if wanted is not None:
        _report(seen, 0, wanted)
    first = 0
    for line in sys.stdin:
        first = _report(seen, first, int(line))
    os._exit(0)


def _report(seen: list[tuple[float, str]], first: int, wanted: int) -> int:
    """Wait for *wanted* tasks, or until no more are handled, and print them."""
    known, since = len(seen), time.monotonic()
    while len(seen) < first + wanted and time.monotonic() - since < _STALLED:
        time.sleep(_LOOK)
        if len(seen) > known:
            known, since = len(seen), time.monotonic()
    some = seen[first:]
    _say({"starts": [start for start, _ in some], "payloads": [payload for _, payload in some]})
    return first + len(some)


def _follow() -> None:
    sys.stdin.read()
    os._exit(1)


@functools.cache
def _answers() -> TextIO:
    # Only answers go to stdout: a system may print a banner, or replace sys.stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=_answers(), flush=True)

"""The measurements of one system: submit in bulk, drain, and latency under an open loop."""

from __future__ import annotations

import statistics
from typing import Any, Final

import attrs

from benchmarks.peers.driver import SETTLING
from benchmarks.peers.process import Driver, PeerError, ask, driver
from benchmarks.peers.server import Server
from benchmarks.peers.systems import System

__all__ = ["Drain", "PeerLatency", "Sizes", "calibrate", "capacity", "drain", "latencies"]

CONCURRENCY: Final = 32
_WARM: Final = 64
_SEED: Final = 7
_LIMIT: Final = 60.0


@attrs.frozen(kw_only=True)
class Sizes:
    """
    The sizes of the measurements.

    Attributes:
        drain: Seconds that a drain should take.
        least: The least number of tasks.
        most: The largest number of tasks.
        flood: Seconds of the flood that finds the capacity.
        load: Seconds of each open loop.
        common: Tasks a second of the open loops that are the same for all.
    """

    drain: float = 2.5
    least: int = 500
    most: int = 60_000
    flood: float = 2.5
    load: float = 3.5
    common: tuple[float, ...] = (200.0, 2000.0)


@attrs.frozen
class Drain:
    """Tasks a second of one round."""

    submit: float
    drain: float


@attrs.frozen(kw_only=True)
class PeerLatency:
    """
    The latencies of one open loop, in milliseconds.

    Attributes:
        tasks: The tasks that count.
        rate: The intended tasks a second.
        slip: The 99th percentile of the submitter's delay.
    """

    tasks: int
    rate: float
    p50: float
    p99: float
    p999: float
    slip: float

    def beside(self) -> dict[str, float]:
        """Return the figures of a row besides the median."""
        return {
            "p99": self.p99,
            "p999": self.p999,
            "rate": round(self.rate),
            "tasks": self.tasks,
            "slip p99": self.slip,
        }


async def drain(server: Server, system: System, tasks: int) -> Drain:
    """
    Submit tasks in bulk, then handle them all.

    Raises:
        PeerError: If a task is not handled exactly once, or stays on the queue.
    """
    server.redis.flushall()
    url = _url(server, system)
    submitted = await ask(system, "submit", url, tasks, seconds=_LIMIT)
    async with driver(system, "work", url, tasks, CONCURRENCY) as worker:
        seen = await worker.answer(_LIMIT)
        payloads: list[str] = seen["payloads"]
        if sorted(map(int, payloads)) != list(range(tasks)):
            raise PeerError(f"{len(payloads)} of {tasks} handled, {len(set(payloads))} distinct")
        if not await server.emptied(system.left):
            raise PeerError(f"{server.count(system.left)} are left")
    starts: list[float] = sorted(seen["starts"])
    return Drain(tasks / submitted["seconds"], (tasks - 1) / (starts[-1] - starts[0]))


async def calibrate(server: Server, system: System, sizes: Sizes) -> int:
    """Return the number of tasks for a round."""
    tasks = sizes.least
    if tasks == sizes.most:
        return tasks
    rate = (await drain(server, system, tasks)).drain
    if rate > 10 * sizes.least and tasks * 10 <= sizes.most:
        tasks *= 10
        rate = (await drain(server, system, tasks)).drain
    return max(sizes.least, min(sizes.most, int(rate * sizes.drain)))


async def capacity(server: Server, system: System, sizes: Sizes) -> float:
    """Return the tasks handled a second while tasks are submitted as fast as possible."""
    server.redis.flushall()
    url = _url(server, system)
    async with driver(system, "serve", url, CONCURRENCY) as worker:
        await _warm(worker, system, url)
        flood = await ask(system, "load", url, 0, sizes.flood, _SEED, seconds=_LIMIT)
        starts = (await worker.tell(0, _LIMIT))["starts"]
    begin, end = flood["begin"] + 0.2 * sizes.flood, flood["begin"] + sizes.flood
    handled = sum(begin <= start < end for start in starts)
    if not handled:
        raise PeerError(f"none of {flood['sent']} handled during the flood")
    return float(handled / (end - begin))


async def latencies(
    server: Server, system: System, rates: list[float], sizes: Sizes
) -> list[PeerLatency]:
    """
    Submit at one rate after the other, and return the latencies of one worker.

    Raises:
        PeerError: If a task is not handled exactly once, or stays on the queue.
    """
    server.redis.flushall()
    url = _url(server, system)
    found: list[PeerLatency] = []
    async with driver(system, "serve", url, CONCURRENCY) as worker:
        await _warm(worker, system, url)
        for rate in rates:
            words = ("load", url, rate, sizes.load, _SEED)
            sent = await ask(system, *words, seconds=_LIMIT)
            seen = await worker.tell(sent["sent"], _LIMIT)
            found.append(_latency(rate, sent, seen))
            if not await server.emptied(system.left):
                raise PeerError(f"{server.count(system.left)} are left")
    return found


def _latency(rate: float, sent: dict[str, Any], seen: dict[str, Any]) -> PeerLatency:
    handled, tasks = len(seen["payloads"]), len(set(seen["payloads"]))
    if not handled == tasks == sent["sent"]:
        raise PeerError(f"{handled} of {sent['sent']} handled, {tasks} distinct")
    dues = [int(payload[:16]) / 1e6 for payload in seen["payloads"]]
    begin = min(dues) + SETTLING
    late = [
        (start - due) * 1e3 for start, due in zip(seen["starts"], dues, strict=True) if due >= begin
    ]
    cuts = statistics.quantiles(late, n=1000, method="inclusive")
    return PeerLatency(
        tasks=len(late),
        rate=rate,
        p50=round(cuts[499], 3),
        p99=round(cuts[989], 3),
        p999=round(cuts[998], 3),
        slip=round(sent["slip_p99"] * 1e3, 3),
    )


async def _warm(worker: Driver, system: System, url: str) -> None:
    await ask(system, "submit", url, _WARM, seconds=_LIMIT)
    handled = len((await worker.tell(_WARM, _LIMIT))["starts"])
    if handled != _WARM:
        raise PeerError(f"{handled} of {_WARM} handled to warm up")


def _url(server: Server, system: System) -> str:
    return server.unix if system.unix else server.tcp

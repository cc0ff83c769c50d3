"""A fleet to measure with, and the rows in which results are printed."""

from __future__ import annotations

import statistics
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import rxdispatch as rxd

__all__ = ["HOUR", "change", "node", "p50_p99", "recorded", "register", "show_latency", "state"]

POOLS = ("cpu", "gpu", "large", "spot")
ZONES = 8
CHUNK = 1_000
HOUR = 3600.0


def state(number: int, beat: int = 0) -> dict[str, Any]:
    """Return what a node may tell of itself: 67 bytes of MessagePack."""
    return {
        "load": (number * 7 + beat) % 100 / 100,
        "memory": 16_000_000_000 + beat,
        "host": f"10.0.{number // 256 % 256}.{number % 256}",
        "build": "2026.1",
        "jobs": beat % 8,
    }


def node(number: int) -> rxd.Node:
    """Return a node of one of four pools and eight zones."""
    return rxd.Node(
        f"node-{number:06}",
        pool=POOLS[number % len(POOLS)],
        capacity=8,
        labels={"zone": f"z{number % ZONES}", "arch": "x86"},
        state=state(number),
    )


async def register(hub: rxd.Hub, count: int) -> None:
    """Let a fleet of that size be registered."""
    for at in range(0, count, CHUNK):
        await hub.nodes.register([node(n) for n in range(at, min(count, at + CHUNK))], ttl=HOUR)


async def change(hub: rxd.Hub, numbers: Iterable[int], beat: int) -> None:
    """Let those nodes have news."""
    states: Mapping[str, Any] = {f"node-{n:06}": state(n, beat) for n in numbers}
    await hub.nodes.heartbeats(states)


@contextmanager
def recorded(hub: rxd.Hub) -> Generator[list[bytes]]:
    """Keep the messages that this hub's calls publish, as they are published."""
    fleet: Any = hub._fleet
    messages: list[bytes] = []
    with fleet.written.observable.subscribe(messages.append):
        yield messages


def p50_p99(seconds: list[float]) -> tuple[float, float]:
    """Return the median, and what one in a hundred takes longer than."""
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49], cuts[98]


def show_latency(name: str, seconds: list[float], base: list[float] | None = None) -> None:
    """Print a row of percentiles in milliseconds, beside those of a baseline."""
    p50, p99 = p50_p99(seconds)
    ratio = "" if base is None else f"   {p50 / p50_p99(base)[0]:5.2f} x baseline's p50"
    print(f"{name:46s} p50 {p50 * 1e3:7.3f} ms   p99 {p99 * 1e3:7.3f} ms{ratio}")

"""A fleet to measure with, and helpers that several suites share."""

from __future__ import annotations

import statistics
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import rxdispatch as rxd
from benchmarks.figures.machine import server_version
from benchmarks.figures.record import FigureRecord

__all__ = [
    "HOUR",
    "add_latencies",
    "change",
    "node",
    "note_server",
    "p50_p99",
    "recorded",
    "register",
    "state",
]

POOLS = ("cpu", "gpu", "large", "spot")
ZONES = 8
CHUNK = 1_000
HOUR = 3600.0


def state(number: int, beat: int = 0) -> dict[str, Any]:
    """Return the state of a node: 67 bytes of MessagePack."""
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
    """Register a fleet of that size."""
    for at in range(0, count, CHUNK):
        await hub.nodes.register([node(n) for n in range(at, min(count, at + CHUNK))], ttl=HOUR)


async def change(hub: rxd.Hub, numbers: Iterable[int], beat: int) -> None:
    """Send heartbeats with news for those nodes."""
    states: Mapping[str, Any] = {f"node-{n:06}": state(n, beat) for n in numbers}
    await hub.nodes.heartbeats(states)


@contextmanager
def recorded(hub: rxd.Hub) -> Generator[list[bytes]]:
    """Collect the messages that this hub's calls publish."""
    fleet: Any = hub._fleet
    messages: list[bytes] = []
    with fleet.written.observable.subscribe(messages.append):
        yield messages


async def note_server(record: FigureRecord, hub: rxd.Hub) -> None:
    """Note the server of a hub."""
    redis: Any = hub.client.redis  # The types of redis-py's commands are partial.
    record.note(server=server_version(await redis.info("server")))


def p50_p99(seconds: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile."""
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49], cuts[98]


def add_latencies(
    record: FigureRecord,
    took: Mapping[str, list[float]],
    *,
    base: str,
    at_most: Mapping[str, tuple[float | None, float | None]] | None = None,
    group: str = "",
    x: float | None = None,
) -> None:
    """
    Add the percentiles of seconds by case, in milliseconds, beside those of *base*.

    *at_most* has the milliseconds that the median and the 99th percentile of a case may take;
    *group* begins the names of the two groups of rows.
    """
    for place, name in enumerate(("p50", "p99")):
        for case, seconds in {base: took[base], **took}.items():
            record.add(
                case,
                p50_p99(seconds)[place] * 1e3,
                "ms",
                group=f"{group}, {name}" if group else name,
                x=x,
                base=None if case == base else base,
                at_most=(at_most or {}).get(case, (None, None))[place],
                judged="value",
            )

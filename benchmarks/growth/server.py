# pyright: basic
# The types of redis-py commands are partial.
"""``MeasuredServer``: a server that reports its own use of CPU; ``Points``: measured figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Sequence
from typing import Any, Final

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.growth.costs import CallCost
from rxdispatch.boards.redis.keys import BoardKeys

__all__ = ["US", "MeasuredServer", "Points", "spent"]

US: Final = 1e6


class MeasuredServer:
    """A server under measurement: the CPU, memory and commands that it reports."""

    def __init__(self, hub: rxd.Hub) -> None:
        self.hub = hub
        self.redis: Any = hub.client.redis

    async def cpu(self) -> float:
        """Return its microseconds of CPU."""
        info = await self.redis.info("cpu")
        return float(info["used_cpu_user"] + info["used_cpu_sys"]) * US

    async def memory(self) -> int:
        """Return the bytes that it uses."""
        return int((await self.redis.info("memory"))["used_memory"])

    async def scripts(self) -> int:
        """Return how many scripts were called."""
        stats = await self.redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))

    async def forget(self, board: rxd.Board[Any]) -> None:
        """Delete everything that a board holds."""
        tag = BoardKeys.of("rxd", board.name).tag.decode()
        for key in [key async for key in self.redis.scan_iter(f"{tag}*", count=1000)]:
            await self.redis.delete(key)

    @property
    def url(self) -> str:
        """Its URL."""
        return f"unix://{self.path}"

    @property
    def path(self) -> str:
        """The path of its socket."""
        return str(self.hub.client.target.path)


class Points:
    """Figures of several rounds by case and size."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, float], list[float]] = {}

    def add(self, case: str, x: float, value: float) -> None:
        """Add a figure."""
        self._found.setdefault((case, x), []).append(value)

    def line(self, case: str) -> CallCost:
        """Return the line through the medians."""
        return CallCost.through(
            {x: statistics.median(v) for (c, x), v in self._found.items() if c == case}
        )

    def show(self, record: FigureRecord, group: str, unit: str = "us") -> None:
        """Record the medians with their spread, beside the line through them."""
        for (case, x), values in self._found.items():
            middle = statistics.median(values)
            record.add(
                case, middle, unit, group=group, x=x,
                low=min(values), high=max(values), line=self.line(case).at(x),
            )  # fmt: skip


async def spent(
    server: MeasuredServer, steps: Sequence[Awaitable[Any]]
) -> tuple[float, float, list[Any]]:
    """Return microseconds of CPU per step, of the server and of this process, and the results."""
    before, own = await server.cpu(), time.process_time()
    results = [await step for step in steps]
    own = (time.process_time() - own) * US
    count = len(steps)
    return (await server.cpu() - before) / count, own / count, results

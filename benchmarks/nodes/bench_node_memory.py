"""
How many bytes does a node take in the process of a feed?

Prints bytes a node, by tracemalloc (what Python asked for) and by what the process grew by, which
has the allocator's share in it; each in a process of its own, for 10,000 nodes, or as many as the
variable ``BENCH_NODES`` says:

- the bytes of ids and states alone;
- a dict of dicts as ``json.loads`` makes them; of msgspec Structs, with the state as a dict, or as
  the bytes that came;
- the feed with all it needs to follow and to choose, with states that nobody has read, and after
  every one was read.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import psutil

import rxdispatch as rxd
from benchmarks.figures.record import Record
from benchmarks.nodes.fleet import node, register

NODES = int(os.environ.get("BENCH_NODES", "10000"))
GOAL = 450
BASE = "dict of JSON dicts"


class Plain(msgspec.Struct):
    """A node's fields; what labels and pools have in common is not shared."""

    id: str
    pool: str
    capacity: int
    current_jobs: int
    labels: dict[str, str]
    state: Any
    status: str
    version: int
    seq: int


def fields(number: int) -> dict[str, Any]:
    """Return a node's fields."""
    made = node(number)
    return {
        "id": made.id,
        "pool": made.pool,
        "capacity": made.capacity,
        "current_jobs": 0,
        "labels": dict(made.labels),
        "state": dict(made.state),
        "status": "ready",
        "version": 1,
        "seq": number,
    }


class Growth:
    """What this process grows by from its making on."""

    def __init__(self, traced: bool) -> None:
        gc.collect()
        self._traced = traced
        self._process = psutil.Process()
        if traced:
            tracemalloc.start()
        self._before = self._now()

    def a_node(self) -> float:
        """Return bytes."""
        gc.collect()
        return (self._now() - self._before) / NODES

    def _now(self) -> int:
        if self._traced:
            return tracemalloc.get_traced_memory()[0]
        return int(self._process.memory_info().rss)


async def json_dicts(traced: bool) -> list[float]:
    """Keep what JSON decodes to."""
    kept: dict[str, Any] = {}
    growth = Growth(traced)
    for number in range(NODES):
        made = json.loads(json.dumps(fields(number)))
        kept[made["id"]] = made
    return [growth.a_node()]


async def structs(traced: bool) -> list[float]:
    """Keep msgspec Structs."""
    kept: dict[str, Any] = {}
    decode = msgspec.msgpack.Decoder(Plain).decode
    growth = Growth(traced)
    for number in range(NODES):
        made = decode(msgspec.msgpack.encode(fields(number)))
        kept[made.id] = made
    return [growth.a_node()]


async def packed_structs(traced: bool) -> list[float]:
    """Keep msgspec Structs whose state is bytes."""
    kept: dict[str, Any] = {}
    decode = msgspec.msgpack.Decoder(Plain).decode
    growth = Growth(traced)
    for number in range(NODES):
        values = fields(number)
        values["state"] = msgspec.msgpack.encode(values["state"])
        made = decode(msgspec.msgpack.encode(values))
        kept[made.id] = made
    return [growth.a_node()]


async def alone(_: bool) -> list[float]:
    """Count the bytes of the data."""
    sizes = [len(node(n).id) + len(node(n)._packed_state) for n in range(NODES)]
    return [sum(sizes) / NODES]


async def feed(traced: bool) -> list[float]:
    """Keep a feed; its fleet is registered by another process."""
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=60.0))
    async with rxd.connect(settings=settings) as hub:
        # What a feed needs once, however large the fleet.
        async with hub.feed():
            pass
        filling = (sys.executable, __file__, "fill", f"unix://{hub.client.target.path}")
        process = await asyncio.create_subprocess_exec(*filling)
        await process.wait()
        growth = Growth(traced)
        async with hub.feed() as fed:
            assert len(fed.nodes()) == NODES
            fed.select(pool="gpu")
            untouched = growth.a_node()
            for known in fed.nodes():
                assert known.state["build"]
            return [untouched, growth.a_node()]


async def fill(url: str) -> None:
    """Be the other process."""
    async with rxd.connect(url) as hub:
        await register(hub, NODES)


Case = Callable[[bool], Awaitable[list[float]]]
CASES: dict[str, tuple[Case, tuple[str, ...]]] = {
    "json": (json_dicts, (BASE,)),
    "alone": (alone, ("id and state as MessagePack alone",)),
    "structs": (structs, ("dict of msgspec Structs",)),
    "packed": (packed_structs, ("dict of msgspec Structs, states packed",)),
    "feed": (feed, ("feed, states not read", "feed, all states read")),
}


async def one(name: str, how: str) -> None:
    """Measure one case, in the process that was made for it."""
    print(json.dumps(await CASES[name][0](how == "traced")))


def main() -> None:
    """Run each case twice, in processes of their own."""
    with Record("bench_node_memory", __doc__) as record:
        record.note(nodes=NODES)
        record.control("the feed has all nodes, and all states could be read", True)
        for how, group in (("traced", "tracemalloc"), ("whole", "growth of the process")):
            for name, (_, titles) in CASES.items():
                command = [sys.executable, __file__, name, how]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
                for title, size in zip(titles, json.loads(output), strict=True):
                    record.add(
                        title,
                        size,
                        "B",
                        group=group,
                        base=None if title == BASE else BASE,
                        at_most=GOAL if name == "feed" else None,
                        judged="value",
                    )


if __name__ == "__main__":
    if not sys.argv[1:]:
        main()
    elif sys.argv[1] == "fill":
        asyncio.run(fill(sys.argv[2]))
    else:
        asyncio.run(one(*sys.argv[1:]))

"""
How many bytes does a node take in the process of a feed?

Bytes per node, by tracemalloc (what Python asked for) and by the growth of the process, which
includes the allocator's share; each case in a process of its own, for 10,000 nodes or ``--size``:

- the bytes of ids and states alone;
- a dict of dicts as ``json.loads`` makes them, or of msgspec Structs, with the state as a dict or
  as the received bytes;
- the feed with everything that it needs to follow the fleet and to choose nodes, before any state
  was read, and after all states were read.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import psutil

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import node, register
from benchmarks.support.roles import ROOT, role

MODULE = "benchmarks.nodes.bench_node_memory"
NODES = 10_000
BUDGET = 450
BASE = "dict of JSON dicts"


class PlainNode(msgspec.Struct):
    """A node's fields; equal labels and pools are not shared."""

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


class MemoryGrowth:
    """The growth of this process since the object was made."""

    def __init__(self, traced: bool, nodes: int) -> None:
        gc.collect()
        self._nodes = nodes
        self._traced = traced
        self._process = psutil.Process()
        if traced:
            tracemalloc.start()
        self._before = self._now()

    def a_node(self) -> float:
        """Return the bytes per node."""
        gc.collect()
        return (self._now() - self._before) / self._nodes

    def _now(self) -> int:
        if self._traced:
            return tracemalloc.get_traced_memory()[0]
        return int(self._process.memory_info().rss)


async def json_dicts(traced: bool, nodes: int) -> list[float]:
    """Keep the dicts that JSON decodes to."""
    kept: dict[str, Any] = {}
    growth = MemoryGrowth(traced, nodes)
    for number in range(nodes):
        made = json.loads(json.dumps(fields(number)))
        kept[made["id"]] = made
    return [growth.a_node()]


async def structs(traced: bool, nodes: int) -> list[float]:
    """Keep msgspec Structs."""
    kept: dict[str, Any] = {}
    decode = msgspec.msgpack.Decoder(PlainNode).decode
    growth = MemoryGrowth(traced, nodes)
    for number in range(nodes):
        made = decode(msgspec.msgpack.encode(fields(number)))
        kept[made.id] = made
    return [growth.a_node()]


async def packed_structs(traced: bool, nodes: int) -> list[float]:
    """Keep msgspec Structs whose state is bytes."""
    kept: dict[str, Any] = {}
    decode = msgspec.msgpack.Decoder(PlainNode).decode
    growth = MemoryGrowth(traced, nodes)
    for number in range(nodes):
        values = fields(number)
        values["state"] = msgspec.msgpack.encode(values["state"])
        made = decode(msgspec.msgpack.encode(values))
        kept[made.id] = made
    return [growth.a_node()]


async def alone(_: bool, nodes: int) -> list[float]:
    """Count the bytes of the data."""
    sizes = [len(node(n).id) + len(node(n)._packed_state) for n in range(nodes)]
    return [sum(sizes) / nodes]


async def feed(traced: bool, nodes: int) -> list[float]:
    """Keep a feed; its fleet is registered by another process."""
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=60.0))
    async with rxd.connect(settings=settings) as hub:
        # A first feed makes the allocations that do not depend on the size of the fleet.
        async with hub.feed():
            pass
        filling = role(MODULE, "fill", f"unix://{hub.client.target.path}", nodes)
        process = await asyncio.create_subprocess_exec(*filling, cwd=ROOT)
        await process.wait()
        growth = MemoryGrowth(traced, nodes)
        async with hub.feed() as fed:
            assert len(fed.nodes()) == nodes
            fed.select(pool="gpu")
            untouched = growth.a_node()
            for known in fed.nodes():
                assert known.state["build"]
            return [untouched, growth.a_node()]


async def fill(url: str, nodes: int) -> None:
    """The other process: register the fleet."""
    async with rxd.connect(url) as hub:
        await register(hub, nodes)


MemoryCase = Callable[[bool, int], Coroutine[Any, Any, list[float]]]
CASES: dict[str, tuple[MemoryCase, tuple[str, ...]]] = {
    "json": (json_dicts, (BASE,)),
    "alone": (alone, ("id and state as MessagePack alone",)),
    "structs": (structs, ("dict of msgspec Structs",)),
    "packed": (packed_structs, ("dict of msgspec Structs, states packed",)),
    "feed": (feed, ("feed, states not read", "feed, all states read")),
}


def bench_node_memory(record: FigureRecord, size: int | None) -> None:
    """Each case twice, in processes of their own."""
    nodes = size or NODES
    record.note(nodes=nodes)
    record.control("the feed has all nodes, and all states could be read", True)
    for how, group in (("traced", "tracemalloc"), ("whole", "growth of the process")):
        for name, (_, titles) in CASES.items():
            command = role(MODULE, name, how, nodes)
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout
            for title, found in zip(titles, json.loads(output), strict=True):
                record.add(
                    title,
                    found,
                    "B",
                    group=group,
                    base=None if title == BASE else BASE,
                    at_most=BUDGET if name == "feed" else None,
                    judged="value",
                )


def main(name: str, how: str, nodes: str) -> None:
    """Measure one case in the process that was started for it, or fill a server."""
    if name == "fill":
        asyncio.run(fill(how, int(nodes)))
    else:
        print(json.dumps(asyncio.run(CASES[name][0](how == "traced", int(nodes)))))


if __name__ == "__main__":
    main(*sys.argv[1:])

# pyright: basic
# The types of redis-py commands are partial.
"""Measures what heartbeats cost a server, and what a feed costs its process."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import AsyncExitStack
from typing import Any, Final

import attrs

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.growth.costs import CallCost, fit
from benchmarks.growth.roles import Child
from benchmarks.growth.server import US, MeasuredServer, Points, spent
from benchmarks.nodes import fleet
from benchmarks.nodes.flood import to_sequencer

__all__ = ["measure_fleet"]

FEEDS: Final = (0, 1, 10, 50)
NODES: Final = 10_000
BEATERS: Final = 1_024


async def measure_fleet(server: MeasuredServer, record: FigureRecord) -> dict[str, Any]:
    """Return the costs of heartbeats and of feeds."""
    found = await _beats(server, record)
    found |= await _applying(server, record)
    return found | await _following(server, record, found)


async def _beats(server: MeasuredServer, record: FigureRecord) -> dict[str, Any]:
    """Measure heartbeats by the number of nodes in a call and of feeds that listen."""
    nodes = server.hub.nodes
    await fleet.register(server.hub, BEATERS)
    channel = server.hub._fleet.keys.changes.decode()  # type: ignore[union-attr]
    rows: dict[str, list[tuple[tuple[float, ...], float]]] = {"news": [], "touch": []}
    beat = itertools.count()
    sizes = {1: 60, 64: 6, 256: 3}
    with Child("listen", server.path, channel) as child:
        await child.ready()
        for feeds in FEEDS:
            await child.ask(feeds)
            points = Points()
            for number, (size, calls) in itertools.product(range(3), sizes.items()):
                for name, measured in rows.items():
                    given: list[dict[str, Any]] = []
                    for _ in range(calls):
                        at = next(beat)
                        ids = [(at * size + n) % BEATERS for n in range(size)]
                        given.append(
                            {
                                f"node-{n:06}": fleet.state(n, at) if name == "news" else None
                                for n in ids
                            }
                        )
                    cpu, _, _ = await spent(server, [nodes.heartbeats(g) for g in given])
                    if number:
                        points.add(f"{feeds} feeds, {name}", size, cpu)
                        measured.append(((1.0, size, feeds, feeds * size), cpu))
            points.show(record, "server CPU of heartbeats, by nodes in a call")
    found: dict[str, Any] = {}
    for name, fitted in rows.items():
        a, b, to, each = fit(fitted)
        found |= {name: CallCost(a, b), f"to_feed_{name}": CallCost(to, each)}
    return found


async def _applying(server: MeasuredServer, record: FigureRecord) -> dict[str, Any]:
    """Measure the CPU of a feed for messages, by the number of nodes in them."""
    hub = server.hub
    with fleet.recorded(hub) as first:
        await fleet.register(hub, BEATERS)
    points = Points()
    beat = itertools.count(1)
    for size, calls in {1: 600, 64: 24, 256: 8}.items():
        recorded: dict[str, list[bytes]] = {}
        with fleet.recorded(hub) as recorded["news"]:
            for n in range(calls):
                at = next(beat)
                await fleet.change(hub, [(n * size + i) % BEATERS for i in range(size)], at)
        with fleet.recorded(hub) as recorded["touch"]:
            for n in range(calls):
                ids = [f"node-{(n * size + i) % BEATERS:06}" for i in range(size)]
                await hub.nodes.heartbeats(dict.fromkeys(ids))
        # In the order in which they were published: otherwise gaps would be measured.
        for _ in range(3):
            heard = to_sequencer(first)
            for name, messages in recorded.items():
                own = time.process_time()
                for data in messages:
                    heard(data)
                points.add(name, size, (time.process_time() - own) * US / calls)
        with fleet.recorded(hub) as first:
            await fleet.register(hub, BEATERS)
    points.show(record, "CPU of a feed for a message, by nodes in it")
    return {f"apply_{name}": points.line(name) for name in ("news", "touch")}


async def _following(
    server: MeasuredServer, record: FigureRecord, found: dict[str, Any]
) -> dict[str, Any]:
    """Measure a feed that starts on a large fleet and is then idle."""
    space = "large"
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=30.0))
    async with AsyncExitStack() as stack:
        child = await stack.enter_context(Child("follow", server.url, space)).ready()
        hub = await stack.enter_async_context(
            rxd.connect(server.url, namespace=space, settings=settings)
        )
        before = await server.memory()
        await fleet.register(hub, NODES)
        node_bytes = (await server.memory() - before) / NODES
        cpu = await server.cpu()
        start = await child.ask("go")
        listed = (await server.cpu() - cpu) / NODES
        record.control("a feed reads the whole fleet", start["nodes"] == NODES)
        beats = 1_500
        own = (await child.ask("cpu"))["cpu"]
        for number in range(0, beats, 30):
            # Many at once, as in a busy fleet: single heartbeats would each wake the feed.
            some = range(number, number + 30)
            await asyncio.gather(
                *(hub.nodes.heartbeat(f"node-{n:06}", fleet.state(n, 1)) for n in some)
            )
        await asyncio.sleep(0.2)
        heard = ((await child.ask("cpu"))["cpu"] - own) * US / beats
        scripts, seconds = await server.scripts(), 2.5
        await asyncio.sleep(seconds)
        pulses = (await server.scripts() - scripts) / seconds
    fleet_store: Any = server.hub._fleet
    pulse, _, _ = await spent(server, [fleet_store.pulse() for _ in range(100)])
    ping, _, _ = await spent(server, [server.redis.ping() for _ in range(100)])
    idle = pulses * (pulse + ping)
    own = start["cpu"] * US / NODES
    # The cost of receiving a message, without the cost of applying it.
    hear = max(0.0, heard - found["apply_news"].at(1))
    applying = {
        n: attrs.evolve(found[n], a=found[n].a + hear) for n in ("apply_news", "apply_touch")
    }
    group = f"a feed of {NODES:,} nodes"
    record.add("server CPU to list a node", listed, "us", group=group)
    record.add("CPU of the feed for it", own, "us", group=group, seconds=start["seconds"])
    record.add("bytes a node in the feed's process", start["bytes"] / NODES, "B", group=group)
    record.add("bytes a node in the server", node_bytes, "B", group=group)
    record.add("CPU of the feed for a message of one node", heard, "us", group=group, hear=hear)
    record.add("pulses", pulses, "1/s", group=group)
    record.add("server CPU of a pulse", pulse, "us", group=group, ping=ping)
    return applying | {
        "list_server": listed, "list_feed": own, "node_bytes": node_bytes,
        "feed_bytes": start["bytes"] / NODES, "idle_feed": idle,
    }  # fmt: skip

"""Two databases of one server are isolated from each other."""

from __future__ import annotations

import asyncio

import pytest

import rxdispatch as rxd
from tests.servers import Kind, any_server


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_databases_do_not_hear_each_other(kind: Kind) -> None:
    """Boards of one name notify their own database only; feeds of one namespace see no gap."""
    async with any_server(kind) as target:
        base = target.safe.partition("?")[0].removesuffix("/0")
        first = f"{base}?db=0"
        second = f"{base}?db=1"
        async with rxd.connect(first) as a, rxd.connect(second) as b, a.feed() as fa:
            heard: dict[str, list[str]] = {"a": [], "b": []}
            everything = asyncio.Event()

            def note(hub: str, event: rxd.TaskEvent) -> None:
                heard[hub].append(event.task_id)
                if event.task_id == "last":
                    everything.set()

            a.board("jobs").events.subscribe(lambda event: note("a", event))
            b.board("jobs").events.subscribe(lambda event: note("b", event))
            await a.nodes.register(rxd.Node("n"))
            await b.nodes.register(rxd.Node("n"))
            for n in range(20):
                await b.nodes.heartbeat("n", {"n": n})
            assert a._channels is not None
            assert b._channels is not None
            # One connection carries all channels of a hub in order, so events that follow the
            # barrier's answer are received.
            await a._channels.barrier(5.0)
            await b._channels.barrier(5.0)
            await b.board("jobs").submit(rxd.Task(1, id="of-b"))
            await b._channels.barrier(5.0)
            await a.board("jobs").submit(rxd.Task(1, id="last"))
            async with asyncio.timeout(5):
                await everything.wait()
            assert {"a": ["last"], "b": ["of-b"]} == heard
            assert 0 == fa.stats.gaps

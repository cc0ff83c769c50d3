"""
A process among many: it writes to the registry, and records the changes of its feed.

``test_feed_many.py`` starts it with one argument, the orders as JSON. It prints ``ready`` once its
feed is entered, prints the state of the feed as JSON for each line that it reads, and ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from typing import Any, TextIO

import attrs
import structlog

import rxdispatch as rxd
from tests.nodes.fleets import Account

__all__ = ["Orders", "state_of"]


@attrs.frozen(kw_only=True)
class Orders:
    """
    What a process must do.

    Args:
        url: The server.
        journal: The file to append each change to, as a line of JSON.
        seed: The seed of its writes.
        writes: How many times it writes.
        nodes: How many nodes it writes to; all processes share them.
        pause: Mean seconds between two writes.
    """

    url: str
    journal: str
    seed: int
    writes: int = 300
    nodes: int = 12
    pause: float = 0.003


def state_of(feed: rxd.Feed) -> dict[str, list[Any]]:
    """Return the state of each known node, as JSON values."""
    return {
        node.id: [
            *(node.seq, node.version, node.capacity, node.current_jobs),
            *(node.status.value, dict(node.labels), dict(node.state)),
        ]
        for node in feed.nodes()
    }


async def _write(hub: rxd.Hub, feed: rxd.Feed, orders: Orders) -> None:
    rng = random.Random(orders.seed)
    slots: list[rxd.Slot] = []
    for n in range(orders.writes):
        name = f"{rng.randrange(orders.nodes)}"
        try:
            match rng.randrange(10):
                case 0 | 1:
                    node = rxd.Node(name, capacity=rng.randrange(5), labels={"by": f"{n}"})
                    await hub.nodes.register(node, ttl=1000.0)
                case 2:
                    await hub.nodes.remove(name)
                case 3:
                    await hub.nodes.drain(name)
                case 4 | 5:
                    slots += await feed.reserve_many(2, lease=1000.0)
                case 6 if slots:
                    await feed.release(slots.pop())
                case 7:
                    await hub.nodes.heartbeat(name)
                case _:
                    await hub.nodes.heartbeat(name, {"n": n, "by": orders.seed})
        except (rxd.NodeNotFoundError, rxd.StoreUnavailableError):
            pass  # another process removed it, or the test cut the connection
        await asyncio.sleep(orders.pause * rng.random() * 2)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def _run(orders: Orders, journal: TextIO) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    settings = rxd.Settings(feed=rxd.FeedSettings(pulse_interval=0.3))
    async with rxd.connect(orders.url, settings=settings) as hub, hub.feed() as feed:
        account = Account(feed)

        def note(change: rxd.NodeChange) -> None:
            if change.node is not None:
                what = (change.epoch, change.node.id, change.seq, change.kind)
                journal.write(json.dumps(what) + "\n")

        feed.changes.subscribe(note)
        _say("ready")
        writing = asyncio.create_task(_write(hub, feed, orders))
        while await lines.readline():
            report = {"state": state_of(feed), "done": writing.done(), "errors": account.errors}
            _say(json.dumps(report))
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


def main() -> None:
    """Follow the orders in the only argument."""
    structlog.configure(processors=[_drop])
    orders = Orders(**json.loads(sys.argv[1]))
    # Line-buffered, so that each line survives a kill.
    with Path(orders.journal).open("a", buffering=1) as journal:
        asyncio.run(_run(orders, journal))


def _drop(*_: object) -> str:
    raise structlog.DropEvent


if __name__ == "__main__":
    main()

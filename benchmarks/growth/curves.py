"""What the simulation says of sizes that do not fit here."""

from __future__ import annotations

from typing import Final

from benchmarks.figures.record import Record
from benchmarks.growth.board import CROWD, KEPT, US
from benchmarks.growth.costs import Costs, Line
from benchmarks.growth.simulation import Seen, percentile, queue_at_random, run_board

__all__ = ["draw"]

WORKERS: Final = (1, 10, 30, 100, 300, 1000)
SLOTS: Final = 16
DURATIONS: Final = {0.0: "no-op", 0.01: "10 ms", 1.0: "1 s"}
BEAT: Final = 10.0
FLEET: Final = 1_000_000
FEEDS: Final = (0, 1, 10, 100)
FULL: Final = 0.8
"""The utilisation up to which queues stay short."""


def draw(costs: Costs, record: Record) -> None:
    """Simulate everything, and keep the figures."""
    _throughput(costs, record)
    _latency(costs, record)
    _herd(costs, record)
    _waiting(costs, record)
    _heartbeats(costs, record)
    _feeds(costs, record)


def _throughput(costs: Costs, record: Record) -> None:
    """Tasks a second by workers, where there is always more to do."""
    group = "tasks a second on one server, by workers"
    for duration, name in DURATIONS.items():
        full = 0.0
        for workers in WORKERS:
            # A round of a thousand greedy workers lasts seconds: their window is longer.
            long = max(0.5, duration * 2, workers / 200)
            seen = run_board(costs, workers=workers, slots=SLOTS, duration=duration,
                             warm=long + duration, window=long, most=30_000)  # fmt: skip
            record.add(f"handlers of {name}", seen.rate, "1/s", group=group, x=workers,
                       busy=seen.busy, server=seen.server, own=seen.own)  # fmt: skip
            if seen.busy > 0.95 and not full:
                full = workers
        if full:
            record.add("workers that fill the server", full, "", group=f"{group}: {name}")


def _latency(costs: Costs, record: Record) -> None:
    """How long a task waits for its claim, by the server's utilisation."""
    group = "from submit to claim with 10 workers of 10 ms handlers, by tasks a second"
    for rate in (10, 100, 300, 1000, 2000, 4000):
        seen = run_board(costs, workers=10, slots=64, duration=0.01, rate=rate,
                         window=min(10.0, max(1.0, 500 / rate)), most=30_000)  # fmt: skip
        _waits(record, "p50", seen, group, rate)


def _herd(costs: Costs, record: Record) -> None:
    """What single tasks do to a server with many idle workers."""
    group = "single tasks to idle workers, {:,} a second"
    for rate in (1, 10, 100):
        for workers in (1, 10, 100, 1000):
            window = max(1.0, min(10.0, 20 / rate))
            for turns in (False, True):
                if not turns or workers > CROWD:
                    seen = run_board(costs, workers=workers, rate=rate, warm=2.0, window=window,
                                     most=30_000, turns=turns)  # fmt: skip
                    all_at_once = "if all claimed at once"
                    _waits(record, "in turns" if turns else all_at_once, seen,
                           group.format(rate), workers,
                           base=all_at_once if turns else None)  # fmt: skip


def _waits(
    record: Record, case: str, seen: Seen, group: str, x: float, base: str | None = None
) -> None:
    record.add(case, percentile(seen.waits, 0.5) * 1e3, "ms", group=group, x=x, base=base,
               p99=percentile(seen.waits, 0.99) * 1e3, busy=seen.busy,
               claims=seen.claims)  # fmt: skip


def _waiting(costs: Costs, record: Record) -> None:
    """Memory of tasks that wait, and the hours to put them there and to take them."""
    group = "memory of the server, by tasks that wait"
    for tasks in (10_000, 100_000, 1_000_000, 10_000_000, 100_000_000):
        record.add(
            "tasks of 20 bytes", tasks * costs.task_bytes / 2**30, "GiB", group=group, x=tasks
        )
    calls = 1e6 / ((costs.nothing + costs.submit.at(1) + costs.settle.at(1)) / 3)
    replies = calls * KEPT * costs.reply_bytes / 2**30
    group = "memory of the server besides"
    record.add("replies kept for a minute, at most", replies, "GiB", group=group, calls=calls)
    fill = 1e6 / (costs.submit.at(1000) / 1000)
    turn = 1e6 / ((costs.claim.at(256) + costs.settle.at(256)) / 256)
    both = 1 / (1 / fill + 1 / turn)
    group = "100 million tasks on one server"
    for what, rate in (("submit", fill), ("claim and settle", turn), ("both at once", both)):
        record.add(what, 1e8 / rate / 3600, "h", group=group, rate=rate)


def _heartbeats(costs: Costs, record: Record) -> None:
    """Nodes that a server carries, each with a heartbeat in ten seconds."""
    group = "nodes a server carries at a heartbeat in 10 s, by feeds"
    for size, share in ((1, 0.1), (1, 1.0), (256, 0.1), (256, 1.0)):
        how = "one a call" if size == 1 else f"{size} a call"
        for feeds in FEEDS:
            call = _call(costs, size, share, feeds)
            idle = feeds * costs.idle_feed * US
            nodes = FULL * (1 - idle) / (call / size) * BEAT
            record.add(f"{how}, {share:.0%} with news", nodes, "", group=group, x=feeds,
                       a_million=FLEET / BEAT * call / size + idle)  # fmt: skip
    group = "a heartbeat's call with 10 feeds, by utilisation"
    for size in (1, 256):
        call = _call(costs, size, 0.1, 10)
        for full in (0.2, 0.5, 0.8, 0.95):
            busy, took = queue_at_random(call, full / call, count=15_000)
            record.add(f"{size} a call", percentile(took, 0.5) * 1e3, "ms", group=group, x=full,
                       p99=percentile(took, 0.99) * 1e3, busy=busy)  # fmt: skip


def _call(costs: Costs, size: int, share: float, feeds: int) -> float:
    """Return the server's seconds for a call of heartbeats, part of them with news."""

    def mixed(news: Line, touch: Line) -> float:
        return share * news.at(size) + (1 - share) * touch.at(size)

    to_feeds = mixed(costs.to_feed_news, costs.to_feed_touch)
    return (mixed(costs.news, costs.touch) + feeds * to_feeds) * US


def _feeds(costs: Costs, record: Record) -> None:
    """What a feed of many nodes takes in its process."""
    group = "a feed, by nodes with a heartbeat in 10 s"
    for nodes in (10_000, 100_000, FLEET):
        record.add("memory", nodes * costs.feed_bytes / 2**20, "MiB", group=group, x=nodes)
        for size in (1, 256):
            for share in (0.1, 1.0):
                line = share * costs.apply_news.at(size) + (1 - share) * costs.apply_touch.at(size)
                busy = nodes / BEAT * line / size * US
                record.add(f"share of a core, {size} a message, {share:.0%} with news", busy, "",
                           group=group, x=nodes)  # fmt: skip
        record.add(
            "CPU to read the whole fleet", nodes * costs.list_feed * US, "s", group=group, x=nodes
        )
        record.add(
            "of the server for it", nodes * costs.list_server * US, "s", group=group, x=nodes
        )
    line = 0.1 * costs.apply_news.at(1) + 0.9 * costs.apply_touch.at(1)
    _, took = queue_at_random(line * US, FULL / (line * US), count=10_000)
    record.add("a message in a feed at 80 % of its core", percentile(took, 0.5) * 1e3, "ms",
               group="where a feed ends", p99=percentile(took, 0.99) * 1e3,
               nodes=FULL / (line * US) * BEAT)  # fmt: skip

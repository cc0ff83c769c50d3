"""
How much load one server carries, computed from measured costs.

The server does one thing at a time, so it is full when the calls of one second take one second of
CPU. The result depends most on how many tasks a call carries; ``workers.py`` measures that with
real workers.
"""

from __future__ import annotations

from typing import Final

from benchmarks.figures.record import FigureRecord
from benchmarks.growth.costs import CallCost, Costs

__all__ = [
    "add_formulas",
    "full_rate",
    "heartbeat_call",
    "herd",
    "mean_wait",
    "server_share",
    "worker_rate",
]

BATCHES: Final = (1, 4, 16, 64, 256)
SLOTS: Final = 16
HANDLERS: Final = {"no-op": 0.0, "10 ms": 0.01, "1 s": 1.0}
RATES: Final = (10, 100, 1_000, 2_000)
IDLE: Final = (10, 100, 1_000)
BEAT: Final = 10.0
FLEET: Final = 1_000_000
FEEDS: Final = (0, 1, 10, 100)
KEPT: Final = 60.0
"""Seconds for which the server keeps a reply."""
FULL: Final = 0.8
"""The utilisation up to which queues stay short."""


def full_rate(costs: Costs, batch: float) -> float:
    """Return the tasks a second that a full server moves from claim to settlement."""
    return 1e6 / (costs.claim.each(batch) + costs.settle.each(batch))


def worker_rate(costs: Costs, batch: float, duration: float) -> float:
    """Return the tasks a second of one worker with :data:`SLOTS` handlers of *duration* seconds."""
    own = costs.own_waiting if duration else costs.own_handler
    rate = 1e6 / (own + costs.own_claim.each(batch) + costs.own_settle.each(batch))
    return min(rate, SLOTS / duration) if duration else rate


def server_share(costs: Costs, claims: float, settles: float) -> float:
    """Return the server's microseconds per task, with that many claims and settles per task."""
    claim, settle = costs.claim, costs.settle
    return claim.a * claims + claim.b + settle.a * settles + settle.b


def mean_wait(service: float, busy: float) -> float:
    """Return the mean time in the queue of a server with a constant *service* time: M/D/1."""
    return service * busy / (2 * (1 - busy))


def herd(costs: Costs, workers: int, *, handed: bool) -> float:
    """
    Return the server's microseconds for a single task among idle workers.

    If it is *handed* over, one worker receives a message with the task. Otherwise each worker
    receives a message and claims; one claim finds the task, and the others find nothing.
    """
    found = costs.submit.at(1) + costs.claim.at(1) + costs.settle.at(1)
    told = 1 if handed else workers
    return found + (told - 1) * costs.nothing + costs.hint.b * told


def heartbeat_call(costs: Costs, size: int, share: float, feeds: int) -> float:
    """Return the server's microseconds for a call with *size* nodes; a *share* of them has news."""

    def mixed(news: CallCost, touch: CallCost) -> float:
        return share * news.at(size) + (1 - share) * touch.at(size)

    to_feeds = mixed(costs.to_feed_news, costs.to_feed_touch)
    return mixed(costs.news, costs.touch) + feeds * to_feeds


def add_formulas(costs: Costs, record: FigureRecord) -> None:
    """Record everything that follows from the costs."""
    _throughput(costs, record)
    _latency(costs, record)
    _idle_workers(costs, record)
    _waiting(costs, record)
    _heartbeats(costs, record)
    _feeds(costs, record)


def _throughput(costs: Costs, record: FigureRecord) -> None:
    """How many tasks a second a full server moves, and how many workers fill it."""
    for batch in BATCHES:
        rate = full_rate(costs, batch)
        group = "tasks a second that fill a server, by tasks in a call"
        record.add("claim and settle", rate, "1/s", group=group, x=batch, us=1e6 / rate)
        for name, duration in HANDLERS.items():
            # A worker with waiting handlers has no more tasks for a call than it has slots.
            if batch <= SLOTS or not duration:
                workers = rate / worker_rate(costs, batch, duration)
                group = "workers that fill a server, by tasks in a call"
                record.add(f"handlers of {name}", workers, "", group=group, x=batch)


def _latency(costs: Costs, record: FigureRecord) -> None:
    """How long single tasks wait for the server."""
    service = costs.submit.at(1) + costs.claim.at(1) + costs.settle.at(1)
    group = "mean wait for the server, by single tasks a second"
    for rate in RATES:
        busy = rate * service / 1e6
        record.add("M/D/1", mean_wait(service, busy) / 1e3, "ms", group=group, x=rate, busy=busy)
    record.add("single tasks that fill a server", 1e6 / service, "1/s", group="one by one")


def _idle_workers(costs: Costs, record: FigureRecord) -> None:
    """What a single task costs a server with many idle workers."""
    group = "server CPU of a single task, by idle workers"
    for workers in IDLE:
        for case, handed in (("if all claimed at once", False), ("handed over", True)):
            cost = herd(costs, workers, handed=handed)
            base = "if all claimed at once" if handed else None
            record.add(
                case, cost, "us", group=group, x=workers, base=base, most_a_second=1e6 / cost
            )
        waiting = workers * costs.idle_worker / 1e6
        record.add("share of a core", waiting, "", group="idle workers that wait", x=workers)


def _waiting(costs: Costs, record: FigureRecord) -> None:
    """The memory of waiting tasks, and the minutes that it takes to submit and to drain them."""
    group = "memory of the server, by tasks that wait"
    for tasks in (10_000, 1_000_000, 100_000_000):
        size = tasks * costs.task_bytes / 2**30
        record.add("tasks of 20 bytes", size, "GiB", group=group, x=tasks)
    calls = 1e6 / ((costs.nothing + costs.submit.at(1) + costs.settle.at(1)) / 3)
    replies = calls * KEPT * costs.reply_bytes / 2**20
    group = "memory of the server besides"
    record.add("replies kept for a minute, at most", replies, "MiB", group=group, calls=calls)
    group = "100 million tasks on one server"
    rates = {"submit": 1e6 / costs.submit.each(1000), "claim and settle": full_rate(costs, 256)}
    for what, rate in rates.items():
        record.add(what, 1e8 / rate / 60, "min", group=group, rate=rate)


def _heartbeats(costs: Costs, record: FigureRecord) -> None:
    """How many nodes a server carries, each with a heartbeat every ten seconds."""
    group = "nodes a server carries at a heartbeat in 10 s, by feeds"
    for size, share in ((1, 0.1), (1, 1.0), (256, 0.1), (256, 1.0)):
        how = "one a call" if size == 1 else f"{size} a call"
        for feeds in FEEDS:
            each = heartbeat_call(costs, size, share, feeds) / size / 1e6
            idle = feeds * costs.idle_feed / 1e6
            nodes = FULL * (1 - idle) / each * BEAT
            million = FLEET / BEAT * each + idle
            case = f"{how}, {share:.0%} with news"
            record.add(case, nodes, "", group=group, x=feeds, a_million=million)
    group = "mean wait of a heartbeat's call with 10 feeds, by utilisation"
    for size in (1, 256):
        call = heartbeat_call(costs, size, 0.1, 10)
        for busy in (0.2, 0.5, 0.8, 0.95):
            wait = mean_wait(call, busy) / 1e3
            record.add(f"{size} a call", wait, "ms", group=group, x=busy, service=call / 1e3)


def _feeds(costs: Costs, record: FigureRecord) -> None:
    """What a feed of many nodes costs its process."""
    group = "a feed, by nodes with a heartbeat in 10 s"
    for nodes in (10_000, 100_000, FLEET):
        for size in (1, 256):
            for share in (0.1, 1.0):
                news, touch = costs.apply_news.each(size), costs.apply_touch.each(size)
                busy = nodes / BEAT * (share * news + (1 - share) * touch) / 1e6
                case = f"share of a core, {size} a message, {share:.0%} with news"
                record.add(case, busy, "", group=group, x=nodes)
        for case, value, unit in (
            ("memory", nodes * costs.feed_bytes / 2**20, "MiB"),
            ("CPU to read the whole fleet", nodes * costs.list_feed / 1e6, "s"),
            ("of the server for it", nodes * costs.list_server / 1e6, "s"),
        ):
            record.add(case, value, unit, group=group, x=nodes)
    message = 0.1 * costs.apply_news.at(1) + 0.9 * costs.apply_touch.at(1)
    carried = FULL * 1e6 / message * BEAT
    record.add("nodes at 80 % of a core, one a message", carried, "", group="where a feed ends")

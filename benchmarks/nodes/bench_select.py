"""
How well and how fast is a node chosen?

First the share of placements that went to a node that was already full: 100 nodes of 16 slots at
70 % load, and 8 schedulers that reserve nothing and see the fleet as it was up to 50, 200 or 1000
placements ago. Each scheduler has its own selector on its own copy; all copies are refreshed at
once, or in turn. *research* has the results of an earlier simulation; it is not known which of the
two it did, nor how it broke ties. 2,000 placements are counted, or ``--size``.

Then microseconds a pick among 10,000 nodes, beside a scan with ``min`` and ``random.choice``.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from benchmarks.figures.record import FigureRecord
from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.placements import Placements
from rxdispatch.nodes.placement.selector import Selector
from rxdispatch.nodes.placement.strategies import StrategyName

NODES = 100
SLOTS = 16
LOAD = 0.7
SCHEDULERS = 8
REFRESHES = (50, 200, 1000)
PLACEMENTS = 2_000
# Placements a second of all schedulers together: 1000 take less time than placements are kept.
RATE = 5_000

FLEET = 10_000
ZONES = 100
ROUNDS = 5
SEED = 20

RESEARCH = {
    "least loaded": (68.0, 92.0, 98.0),
    "random": (9.6, 9.6, 9.6),
    "power of two": (0.0, 0.2, 7.4),
    "power of two + own placements": (0.0, 0.2, 6.3),
}


@cache
def made(name: str, jobs: int) -> Node:
    """Return a node; making the same thousands again would take longer than everything else."""
    return Node(name, capacity=SLOTS, current_jobs=jobs)


class Scheduler:
    """A process with its own, possibly outdated copy of the fleet."""

    def __init__(
        self, strategy: StrategyName | None, own: bool, clock: Callable[[], float], seed: int
    ) -> None:
        self.nodes: dict[str, Node] = {}
        self._criteria = None if strategy is None else Criteria(strategy=strategy)
        self._own = own
        self._rng = random.Random(seed)
        self._placements = Placements(clock, self._rng)
        self._selector = Selector(self.nodes, self._placements, self._rng)
        self._names = [f"n{n}" for n in range(NODES)]

    def refresh(self, jobs: list[int]) -> None:
        """Copy the fleet as it is now."""
        for name, number in zip(self._names, jobs, strict=True):
            previous = self.nodes.get(name)
            node = made(name, number)
            self.nodes[name] = node
            self._selector.changed(previous, node)
            self._placements.reported(name)

    def place(self) -> int:
        """Choose a node, and return its number."""
        if self._criteria is None:
            return self._rng.randrange(NODES)
        picked = self._selector.pick(self._criteria)
        # All known nodes are full, so it does not matter which.
        node = picked[0].id if picked else self._rng.choice(self._names)
        if self._own:
            self._placements.placed(node)
        return int(node[1:])


def over_capacity(
    strategy: StrategyName | None, own: bool, refresh: int, in_turn: bool, placements: int
) -> float:
    """Return the percentage of placements that went to a full node."""
    rng = random.Random(SEED)
    placed = 0
    schedulers = [
        Scheduler(strategy, own, lambda: placed / RATE, SEED + n) for n in range(SCHEDULERS)
    ]
    running = [rng.randrange(NODES) for _ in range(int(NODES * SLOTS * LOAD))]
    jobs = [running.count(n) for n in range(NODES)]
    warm = max(refresh * 2, 2 * len(running))
    over = 0
    for placed in range(warm + placements):
        for n, scheduler in enumerate(schedulers):
            shift = n * refresh // SCHEDULERS if in_turn else 0
            if placed == 0 or (placed + shift) % refresh == 0:
                scheduler.refresh(jobs)
        node = rng.choice(schedulers).place()
        if placed >= warm and jobs[node] >= SLOTS:
            over += 1
        # One job begins, another one ends.
        ended = rng.randrange(len(running))
        jobs[running[ended]] -= 1
        running[ended] = node
        jobs[node] += 1
    return 100 * over / placements


def quality(record: FigureRecord, placements: int) -> None:
    """Record these strategies in the form of the earlier simulation's table."""
    cases: dict[str, tuple[StrategyName | None, bool]] = {
        "least loaded": ("least_loaded", False),
        "least loaded + own placements": ("least_loaded", True),
        "random": (None, False),
        "power of two": ("power_of_two", False),
        "power of two + own placements": ("power_of_two", True),
    }
    for name, (strategy, own) in cases.items():
        for at, refresh in enumerate(REFRESHES):
            in_research = RESEARCH.get(name)
            research: dict[str, Any] = {"research": in_research[at]} if in_research else {}
            for in_turn in (False, True):
                share = over_capacity(strategy, own, refresh, in_turn, placements)
                group = f"placed on a full node, refreshed {'in turn' if in_turn else 'at once'}"
                record.add(name, share, "%", group=group, x=refresh, **research)


def fleet(load: float, full: float) -> dict[str, Node]:
    """Return nodes of one pool in 100 zones; the share *full* of them has no room."""
    rng = random.Random(SEED)
    labels = [{"zone": f"z{n}"} for n in range(ZONES)]
    nodes: dict[str, Node] = {}
    for n in range(FLEET):
        jobs = SLOTS if rng.random() < full else sum(rng.random() < load for _ in range(SLOTS))
        name = f"n{n}"
        zone = labels[n % ZONES]
        nodes[name] = Node(name, pool="gpu", capacity=SLOTS, current_jobs=jobs, labels=zone)
    return nodes


def least(nodes: dict[str, Node]) -> Node:
    """Return the least loaded node by the simplest scan."""
    return min(
        (
            node
            for node in nodes.values()
            if node.status is NodeStatus.READY and node.current_jobs < node.capacity
        ),
        key=lambda node: node.current_jobs / node.capacity,
    )


def microseconds(call: Callable[[], object], times: int) -> float:
    """Return the microseconds of one call."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times * 1e6


def picker(nodes: dict[str, Node], criteria: Criteria) -> Callable[[], object]:
    """Return a function that picks from a selector that has built its candidates."""
    selector = Selector(nodes, Placements(time.monotonic), random.Random(SEED))
    selector.pick(criteria)
    return lambda: selector.pick(criteria)


def heartbeat(nodes: dict[str, Node]) -> Callable[[], object]:
    """Return a function that passes a heartbeat to a selector."""
    selector = Selector(nodes, Placements(time.monotonic), random.Random(SEED))
    selector.pick(Criteria(pool="gpu"))
    before = nodes["n1"]
    after = before._renewed(1, 1)
    return lambda: selector.changed(before, after)


def even(node: Node) -> bool:
    """Match every other node."""
    return node.id[-1] in "02468"


def speed(record: FigureRecord) -> None:
    """Measure all in turn, so that noise of the machine affects all."""
    nodes, tight, full = fleet(LOAD, 0.0), fleet(LOAD, 0.95), fleet(LOAD, 0.99)
    listed = list(nodes.values())
    zone = {"zone": "z1"}
    rng = random.Random(SEED)
    cases: dict[str, tuple[Callable[[], object], int]] = {
        "random.choice of a list": (lambda: rng.choice(listed), 20_000),
        "min() scan": (lambda: least(nodes), 10),
        "power of two": (picker(nodes, Criteria()), 20_000),
        "pool and labels (1 %)": (picker(nodes, Criteria(pool="gpu", labels=zone)), 20_000),
        "where (half)": (picker(nodes, Criteria(where=even)), 10_000),
        "95 % full": (picker(tight, Criteria()), 20_000),
        "95 % full, pool and labels": (picker(tight, Criteria(pool="gpu", labels=zone)), 20_000),
        "99 % full": (picker(full, Criteria()), 20_000),
        "least_loaded": (picker(nodes, Criteria(strategy="least_loaded")), 10),
        "sticky": (picker(nodes, Criteria(strategy="sticky", key="k")), 10),
        "sticky, labels (1 %)": (
            picker(nodes, Criteria(strategy="sticky", key="k", labels=zone)),
            1_000,
        ),
        "changed(), a heartbeat": (heartbeat(nodes), 50_000),
    }
    best = dict.fromkeys(cases, float("inf"))
    for _ in range(ROUNDS):
        for name, (call, times) in cases.items():
            best[name] = min(best[name], microseconds(call, times))
    found = picker(nodes, Criteria(strategy="least_loaded"))()
    record.control("a pick finds a node with room, as the scan does", bool(found and least(nodes)))
    group = f"a pick among {FLEET:,} nodes"
    scan = best.pop("min() scan")
    record.add("min() scan", scan, "us", group=group)
    for name, value in best.items():
        record.add(name, value, "us", group=group, base="min() scan")


def bench_quality(record: FigureRecord, size: int | None) -> None:
    """The share of placements on a full node."""
    placements = size or PLACEMENTS
    record.note(nodes=NODES, slots=SLOTS, load=LOAD, schedulers=SCHEDULERS, placements=placements)
    quality(record, placements)


def bench_speed(record: FigureRecord) -> None:
    """The time of a pick."""
    record.note(fleet=FLEET)
    speed(record)

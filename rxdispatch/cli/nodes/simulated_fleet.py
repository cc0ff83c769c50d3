"""``SimulatedFleet``: nodes that come, work, die and leave, driven by a seed."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from rxdispatch.checks import integer
from rxdispatch.errors import ConfigError
from rxdispatch.node import Node

__all__ = ["FleetEvents", "PendingUpdates", "SimulatedFleet"]

MOST_NODES: Final = 1_000_000

_ZONES: Final = ("a", "b", "c")
_FATES: Final = ("dies", "drains", "goes")
# Seconds from the drain of a node until its jobs have ended.
_DRAINING: Final = (3.0, 10.0)
# A dead node may be kept longer than its ttl, see FeedSettings.mass_lapse_delay.
_PATIENCE: Final = 150.0
# How far a node's load moves between two heartbeats, and the digits of a load: they are few, so a
# load sometimes stays the same.
_STEP: Final = 0.03
_DIGITS: Final = 2


@attrs.define(slots=True)
class PendingUpdates:
    """
    Updates not yet sent to the registry; the sender removes them.

    Attributes:
        register: Nodes by id.
        drain: Ids, in order.
        remove: Ids, in order.
        heartbeats: States by id.
    """

    register: dict[str, Node] = attrs.field(factory=dict[str, Node])
    drain: dict[str, None] = attrs.field(factory=dict[str, None])
    remove: dict[str, None] = attrs.field(factory=dict[str, None])
    heartbeats: dict[str, Mapping[str, Any]] = attrs.field(factory=dict[str, Mapping[str, Any]])


@attrs.define(slots=True)
class FleetEvents:
    """
    The number of nodes by event.

    Attributes:
        came: New nodes.
        died: Nodes that stopped sending heartbeats.
        drained: Drained nodes.
        went: Nodes that were removed.
        lost: Nodes that register again, because the registry no longer has them.
    """

    came: int = 0
    died: int = 0
    drained: int = 0
    went: int = 0
    lost: int = 0


@attrs.define(slots=True, eq=False)
class _SimulatedNode:
    node: Node
    load: float
    next_beat: float
    leaves: float | None = None


class SimulatedFleet:
    """
    A simulated fleet that needs neither a server nor a clock.

    Once a second a share of the ready nodes dies silently, is drained or leaves, and as many new
    nodes come. Drained nodes leave some seconds later. The events of a second depend only on the
    seed, not on when :meth:`advance` is called within it.

    Args:
        size: How many nodes are ready at a time.
        pools: The names of the pools; the nodes are spread evenly.
        capacity: The capacity of each node.
        churn: The share of the nodes with an event in a second, from 0 to 1.
        interval: Seconds between two heartbeats of a node.
        ttl: Seconds after which a dead node is gone from the registry.
        seed: The seed of all random choices.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> fleet = SimulatedFleet(
        ...     4, pools=["cpu"], capacity=8, churn=0.5, interval=2.0, ttl=6.0, seed=1
        ... )
        >>> fleet.advance(0.0)
        >>> list(fleet.pending.register)
        ['cpu-0001', 'cpu-0002', 'cpu-0003', 'cpu-0004']
        >>> fleet.pending.register.clear()
        >>> fleet.advance(1.0)
        >>> list(fleet.pending.register)
        ['cpu-0005', 'cpu-0006']
    """

    def __init__(
        self,
        size: int,
        *,
        pools: Sequence[str],
        capacity: int,
        churn: float,
        interval: float,
        ttl: float,
        seed: int,
    ) -> None:
        integer("nodes", size, 1, MOST_NODES)
        if not pools or len(set(pools)) != len(pools):
            raise ConfigError("pools must be different names", list(pools))
        for pool in pools:
            # Making a node checks the name of the pool, the capacity and the longest id.
            Node(f"{pool}-{'9' * 12}", pool=pool, capacity=capacity)
        if not 0 <= churn <= 1:
            raise ConfigError("churn must be a share from 0 to 1", churn)
        if not 0 < interval < ttl:
            raise ConfigError("interval must be > 0 and less than ttl", interval)
        self.pending = PendingUpdates()
        self.events = FleetEvents()
        self._size = size
        self._pools = tuple(pools)
        self._capacity = capacity
        self._churn = churn
        self._interval = interval
        self._keep = ttl + _PATIENCE
        # Loads have their own generator, because how often they need one depends on the time.
        self._fates = random.Random(seed)
        self._loads = random.Random(seed + 1)
        self._ready: dict[str, _SimulatedNode] = {}
        self._draining: dict[str, _SimulatedNode] = {}
        self._silent: dict[str, float] = {}
        self._number = 0
        self._due = 0.0
        self._next_churn: float | None = None

    @property
    def ready(self) -> int:
        """How many nodes send heartbeats and are not drained."""
        return len(self._ready)

    @property
    def draining(self) -> int:
        """How many nodes are drained and have not left."""
        return len(self._draining)

    @property
    def ids(self) -> list[str]:
        """Every node that the registry may have, including dead nodes and nodes to remove."""
        return [*{**self._ready, **self._draining, **self._silent, **self.pending.remove}]

    def advance(self, now: float) -> None:
        """
        Advance the time, and add the resulting updates to :attr:`pending`.

        Args:
            now: The time in seconds, never less than before. A longer break counts as one second.
        """
        if self._next_churn is None:
            self._next_churn = now + 1
            self._come(now)
        elif now >= self._next_churn:
            self._next_churn = now + 1 - (now - self._next_churn) % 1
            self._second(now)
        self._beat(now)

    def lost(self, ids: Iterable[str]) -> None:
        """Handle nodes that the registry does not have: they register again, unless drained."""
        for node in ids:
            self._draining.pop(node, None)
            member = self._ready.get(node)
            if member is not None:
                self.pending.register[node] = _loaded(member)
                self.events.lost += 1

    def _second(self, now: float) -> None:
        for node, died in tuple(self._silent.items()):
            if now - died < self._keep:
                break
            del self._silent[node]
        for node, member in tuple(self._draining.items()):
            if member.leaves is not None and now >= member.leaves:
                del self._draining[node]
                self._go(node)
        self._due += self._churn * self._size
        count = min(int(self._due), len(self._ready))
        self._due -= int(self._due)
        for node in self._fates.sample(tuple(self._ready), count):
            self._meet(node, self._fates.choice(_FATES), now)
        self._come(now)

    def _meet(self, node: str, fate: str, now: float) -> None:
        member = self._ready.pop(node)
        if fate == "dies":
            self.events.died += 1
            self._silent[node] = now
            self.pending.heartbeats.pop(node, None)
        elif fate == "drains":
            self.events.drained += 1
            member.leaves = now + self._fates.uniform(*_DRAINING)
            self._draining[node] = member
            self.pending.drain[node] = None
        else:
            self._go(node)

    def _go(self, node: str) -> None:
        self.events.went += 1
        self.pending.register.pop(node, None)
        self.pending.drain.pop(node, None)
        self.pending.heartbeats.pop(node, None)
        self.pending.remove[node] = None

    def _come(self, now: float) -> None:
        for _ in range(self._size - len(self._ready)):
            pool = self._pools[self._number % len(self._pools)]
            # Each pool has nodes in each zone, whatever the number of pools.
            zone = _ZONES[self._number // len(self._pools) % len(_ZONES)]
            self._number += 1
            self.events.came += 1
            node = Node(
                f"{pool}-{self._number:04}",
                pool=pool,
                capacity=self._capacity,
                labels={"zone": zone},
            )
            first = now + self._interval * self._loads.random()
            member = _SimulatedNode(node, self._loads.random(), first)
            self._ready[node.id] = member
            self.pending.register[node.id] = _loaded(member)

    def _beat(self, now: float) -> None:
        for members in (self._ready, self._draining):
            for node, member in members.items():
                if now < member.next_beat:
                    continue
                # The heartbeats stay spread out, even after a break.
                member.next_beat = now + self._interval - (now - member.next_beat) % self._interval
                moved = member.load + self._loads.gauss(0, _STEP)
                member.load = min(1.0, max(0.0, moved))
                self.pending.heartbeats[node] = _state(member)


def _state(member: _SimulatedNode) -> dict[str, Any]:
    return {"load": round(member.load, _DIGITS)}


def _loaded(member: _SimulatedNode) -> Node:
    node = member.node
    return Node(
        node.id,
        pool=node.pool,
        capacity=node.capacity,
        labels=node.labels,
        state=_state(member),
    )

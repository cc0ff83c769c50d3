"""``SimulatedFleet``: nodes that come, work, die and go, as a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from rxdispatch.checks import integer
from rxdispatch.errors import ConfigError
from rxdispatch.node import Node

__all__ = ["Happened", "SimulatedFleet", "Todo"]

MOST_NODES: Final = 1_000_000

_ZONES: Final = ("a", "b", "c")
_FATES: Final = ("dies", "drains", "goes")
# Seconds from being drained until what still runs there has ended.
_DRAINING: Final = (3.0, 10.0)
# A node that died may be kept for longer than its ttl, see FeedSettings.mass_lapse_delay.
_PATIENCE: Final = 150.0
# How far the load of a node moves between two heartbeats, and to how many digits it is told: now
# and then nothing is new.
_STEP: Final = 0.03
_DIGITS: Final = 2


@attrs.define(slots=True)
class Todo:
    """
    What the registry has yet to be told; who has told it takes it out.

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
class Happened:
    """
    What has happened to how many nodes.

    Attributes:
        came: They were new.
        died: They fell silent.
        drained: They were drained.
        went: They were removed in good order.
        lost: They spoke up and were not in the registry any more.
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
    The nodes of a simulation, and what happens to them; it talks to nobody and has no clock.

    Once a second a share of the nodes that are ready dies silently, is drained or goes, and as
    many others come. Those that are drained go some seconds later. What happens in which second
    depends on the seed alone, not on when :meth:`advance` is called within it.

    Args:
        size: How many nodes are ready at a time.
        pools: Their names; nodes are spread evenly.
        capacity: Of each node.
        churn: The share to which something happens in a second, from 0 to 1.
        interval: Seconds between two heartbeats of a node.
        ttl: Seconds after which a node that died is gone from the registry.
        seed: Of all that is random.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> fleet = SimulatedFleet(
        ...     4, pools=["cpu"], capacity=8, churn=0.5, interval=2.0, ttl=6.0, seed=1
        ... )
        >>> fleet.advance(0.0)
        >>> list(fleet.todo.register)
        ['cpu-0001', 'cpu-0002', 'cpu-0003', 'cpu-0004']
        >>> fleet.todo.register.clear()
        >>> fleet.advance(1.0)
        >>> list(fleet.todo.register)
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
            # Of what will be made of it, the longest id included.
            Node(f"{pool}-{'9' * 12}", pool=pool, capacity=capacity)
        if not 0 <= churn <= 1:
            raise ConfigError("churn must be a share from 0 to 1", churn)
        if not 0 < interval < ttl:
            raise ConfigError("interval must be > 0 and less than ttl", interval)
        self.todo = Todo()
        self.happened = Happened()
        self._size = size
        self._pools = tuple(pools)
        self._capacity = capacity
        self._churn = churn
        self._interval = interval
        self._keep = ttl + _PATIENCE
        # Loads have dice of their own: how often they are thrown depends on the time.
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
        """How many are drained and still there."""
        return len(self._draining)

    @property
    def ids(self) -> list[str]:
        """Every node that the registry may know: also those that died, and are to be removed."""
        return [*{**self._ready, **self._draining, **self._silent, **self.todo.remove}]

    def advance(self, now: float) -> None:
        """
        Let time pass, and add to :attr:`todo` what follows.

        Args:
            now: Seconds that only grow. Of a longer break one second counts.
        """
        if self._next_churn is None:
            self._next_churn = now + 1
            self._come(now)
        elif now >= self._next_churn:
            self._next_churn = now + 1 - (now - self._next_churn) % 1
            self._second(now)
        self._beat(now)

    def lost(self, ids: Iterable[str]) -> None:
        """Take note that the registry does not know these: they come back, unless drained."""
        for node in ids:
            self._draining.pop(node, None)
            member = self._ready.get(node)
            if member is not None:
                self.todo.register[node] = _loaded(member)
                self.happened.lost += 1

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
            self.happened.died += 1
            self._silent[node] = now
            self.todo.heartbeats.pop(node, None)
        elif fate == "drains":
            self.happened.drained += 1
            member.leaves = now + self._fates.uniform(*_DRAINING)
            self._draining[node] = member
            self.todo.drain[node] = None
        else:
            self._go(node)

    def _go(self, node: str) -> None:
        self.happened.went += 1
        self.todo.register.pop(node, None)
        self.todo.drain.pop(node, None)
        self.todo.heartbeats.pop(node, None)
        self.todo.remove[node] = None

    def _come(self, now: float) -> None:
        for _ in range(self._size - len(self._ready)):
            pool = self._pools[self._number % len(self._pools)]
            # Pools and zones cross, whatever their numbers.
            zone = _ZONES[self._number // len(self._pools) % len(_ZONES)]
            self._number += 1
            self.happened.came += 1
            node = Node(
                f"{pool}-{self._number:04}",
                pool=pool,
                capacity=self._capacity,
                labels={"zone": zone},
            )
            first = now + self._interval * self._loads.random()
            member = _SimulatedNode(node, self._loads.random(), first)
            self._ready[node.id] = member
            self.todo.register[node.id] = _loaded(member)

    def _beat(self, now: float) -> None:
        for members in (self._ready, self._draining):
            for node, member in members.items():
                if now < member.next_beat:
                    continue
                # After a break the nodes still take turns.
                member.next_beat = now + self._interval - (now - member.next_beat) % self._interval
                moved = member.load + self._loads.gauss(0, _STEP)
                member.load = min(1.0, max(0.0, moved))
                self.todo.heartbeats[node] = _state(member)


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

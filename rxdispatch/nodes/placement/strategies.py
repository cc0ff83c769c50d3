"""
Strategies: how the nodes with room are ranked.

If the data may be stale, taking the better of two random nodes beats looking at all of them:
processes that see the same least loaded node would all send their work there (M. Mitzenmacher,
"The Power of Two Choices in Randomized Load Balancing"; measured by
``benchmarks/nodes/bench_select.py``).
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Final, Literal, TypeVar, get_args

from rxdispatch.node import Node

__all__ = ["STRATEGY_NAMES", "Choose", "Cost", "Jobs", "StrategyName", "chooser"]

StrategyName = Literal["power_of_two", "least_loaded", "bin_pack", "spread", "sticky"]
STRATEGY_NAMES: Final[tuple[StrategyName, ...]] = get_args(StrategyName)

Jobs = Callable[[Node], int]
"""Returns how many jobs a node has, recent placements of this process included."""

Cost = Callable[[Node, float], float]
"""Takes a node and its load (jobs / capacity), returns its cost; the lowest comes first."""

Choose = Callable[[Iterator[Node], int, Jobs], list[Node]]
"""Takes nodes with room in random order and a count; returns that many, the best first."""

Rank = TypeVar("Rank", int, float, tuple[bool, int])

_PRIME: Final = 2**61 - 1
# How many hashes are kept. It must exceed the number of nodes, or each choice would hash them all.
_MARKS: Final = 1 << 18


def chooser(strategy: StrategyName | Cost, key: str | None) -> Choose:
    """
    Return the function that implements *strategy*.

    Args:
        strategy: A name, or a cost function.
        key: The key of ``sticky``.
    """
    if callable(strategy):
        return _by_cost(strategy)
    return _sticky(key or "") if strategy == "sticky" else _CHOICES[strategy]


def _power_of_two(nodes: Iterator[Node], count: int, jobs: Jobs) -> list[Node]:
    first = next(nodes, None)
    second = next(nodes, None)
    if first is None or second is None:
        return [] if first is None else [first]
    if jobs(second) * first.capacity < jobs(first) * second.capacity:
        first, second = second, first
    if count == 1:
        return [first]
    # The first is the better of two, not the best of all: the more nodes are compared, the more
    # often processes with the same stale data choose the same one.
    others = [second, *islice(nodes, count - 1)]
    others.sort(key=lambda node: jobs(node) / node.capacity)
    return [first, *others[: count - 1]]


def _lowest(nodes: Iterator[Node], count: int, rank: Callable[[Node], Rank]) -> list[Node]:
    # Ties go to the node that comes first. The order is random, so processes choose differently.
    if count > 1:
        return heapq.nsmallest(count, nodes, key=rank)
    best = min(nodes, key=rank, default=None)
    return [] if best is None else [best]


def _least_loaded(nodes: Iterator[Node], count: int, jobs: Jobs) -> list[Node]:
    return _lowest(nodes, count, lambda node: jobs(node) / node.capacity)


def _bin_pack(nodes: Iterator[Node], count: int, jobs: Jobs) -> list[Node]:
    def rank(node: Node) -> float:
        load = jobs(node) / node.capacity
        # A node that this process has filled up comes last, before the registry reports it as full.
        return -load if load < 1 else load

    return _lowest(nodes, count, rank)


def _spread(nodes: Iterator[Node], count: int, jobs: Jobs) -> list[Node]:
    def rank(node: Node) -> tuple[bool, int]:
        number = jobs(node)
        return number >= node.capacity, number

    return _lowest(nodes, count, rank)


def _by_cost(cost: Cost) -> Choose:
    def choose(nodes: Iterator[Node], count: int, jobs: Jobs) -> list[Node]:
        return _lowest(nodes, count, lambda node: cost(node, jobs(node) / node.capacity))

    return choose


def _sticky(key: str) -> Choose:
    """
    Rank nodes by a hash of key and node: when a node leaves, only the keys that it had move.

    Key and node are each hashed well, once, and the two hashes are multiplied modulo a prime: a
    tenth of the work of hashing the pair. See D. Thaler, C. Ravishankar: "A Name-Based Mapping
    Scheme for Rendezvous".
    """
    factor = _hashed(key)

    def choose(nodes: Iterator[Node], count: int, _: Jobs) -> list[Node]:
        return _lowest(nodes, count, lambda node: _marks[node.id] * factor % _PRIME)

    return choose


def _hashed(text: str) -> int:
    """Return a number from 1 to the prime, the same in every process."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
    return 1 + int.from_bytes(digest) % (_PRIME - 1)


class _Marks(dict[str, int]):
    """The hashes of node ids; a key is not kept here, as its Criteria hash it once."""

    def __missing__(self, node_id: str) -> int:
        if len(self) >= _MARKS:
            self.clear()
        mark = self[node_id] = _hashed(node_id)
        return mark


_marks: Final = _Marks()
_CHOICES: Final[dict[Any, Choose]] = {
    "power_of_two": _power_of_two,
    "least_loaded": _least_loaded,
    "bin_pack": _bin_pack,
    "spread": _spread,
}

"""
Strategies: which of the nodes with room come first.

Sampling two and taking the better one beats looking at all of them wherever the picture is not
fresh: whoever sees the same least loaded node sends everything there (M. Mitzenmacher, "The Power
of Two Choices in Randomized Load Balancing"; ``benchmarks/nodes/bench_select.py`` measures it).
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
"""How many jobs a node has, those included that this process has just placed."""

Cost = Callable[[Node, float], float]
"""What it costs to take a node of this load (jobs through capacity); the lowest comes first."""

Choose = Callable[[Iterator[Node], int, Jobs], list[Node]]
"""Takes nodes with room in random order, and returns so many of them, the best first."""

Rank = TypeVar("Rank", int, float, tuple[bool, int])

_PRIME: Final = 2**61 - 1
# Nodes whose hash is kept; more than there are, or all would be hashed for every choice.
_MARKS: Final = 1 << 18


def chooser(strategy: StrategyName | Cost, key: str | None) -> Choose:
    """
    Return what chooses by *strategy*.

    Args:
        strategy: A name, or a cost function.
        key: What ``sticky`` goes by.
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
    # The first is the better of two, not the best of all: the more are compared, the more
    # processes with the same old picture take the same one.
    others = [second, *islice(nodes, count - 1)]
    others.sort(key=lambda node: jobs(node) / node.capacity)
    return [first, *others[: count - 1]]


def _lowest(nodes: Iterator[Node], count: int, rank: Callable[[Node], Rank]) -> list[Node]:
    # Ties go to whoever comes first, which is random: not everybody takes the same one.
    if count > 1:
        return heapq.nsmallest(count, nodes, key=rank)
    best = min(nodes, key=rank, default=None)
    return [] if best is None else [best]


def _least_loaded(nodes: Iterator[Node], count: int, jobs: Jobs) -> list[Node]:
    return _lowest(nodes, count, lambda node: jobs(node) / node.capacity)


def _bin_pack(nodes: Iterator[Node], count: int, jobs: Jobs) -> list[Node]:
    def rank(node: Node) -> float:
        load = jobs(node) / node.capacity
        # What this process itself has filled up comes last, though nobody has told of it yet.
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
    Rank by a hash of key and node: a node that leaves moves only the keys that it had.

    Both are hashed well, once, and multiplied modulo a prime: a tenth of what it takes to hash
    the pair. See D. Thaler and C. Ravishankar, "A Name-Based Mapping Scheme for Rendezvous".
    """
    factor = _hashed(key)

    def choose(nodes: Iterator[Node], count: int, _: Jobs) -> list[Node]:
        return _lowest(nodes, count, lambda node: _marks[node.id] * factor % _PRIME)

    return choose


def _hashed(text: str) -> int:
    """Return a number from 1 to the prime, the same one in every process."""
    digest = hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest()
    return 1 + int.from_bytes(digest) % (_PRIME - 1)


class _Marks(dict[str, int]):
    """The numbers of nodes; keys are many, and each is hashed once a Criteria."""

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

"""Strategies: how the nodes with room are ranked."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from rxdispatch.node import Node
from rxdispatch.nodes.placement import strategies as module
from rxdispatch.nodes.placement.strategies import Cost, StrategyName, chooser


def fleet(*jobs: tuple[int, int]) -> list[Node]:
    """Return nodes a, b, c, ... with these pairs of jobs and capacity."""
    return [
        Node(chr(97 + n), current_jobs=now, capacity=most) for n, (now, most) in enumerate(jobs)
    ]


def chosen(
    strategy: StrategyName | Cost,
    nodes: list[Node],
    count: int = 9,
    key: str | None = None,
    own: dict[str, int] | None = None,
) -> str:
    """Return the ids in the order of choice, one letter each."""
    placed = own or {}
    choose = chooser(strategy, key)
    return "".join(
        node.id
        for node in choose(
            iter(nodes), count, lambda node: node.current_jobs + placed.get(node.id, 0)
        )
    )


def most_jobs(node: Node, load: float) -> float:
    """A cost function."""
    return -load * node.capacity


KNOWN = "acdeb"
NODES = fleet((8, 16), (3, 4), (1, 8), (0, 1), (15, 16))


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("least_loaded", "dcabe"),
        ("bin_pack", "ebacd"),
        ("spread", "dcbae"),
        # The better one of the first two comes first, then the others.
        ("power_of_two", "adcbe"),
        (most_jobs, "eabcd"),
    ],
)
def test_the_best_come_first(strategy: StrategyName | Cost, order: str) -> None:
    """The best nodes come first, as many as requested."""
    assert order == chosen(strategy, NODES)
    for count in (1, 2, 3):
        assert order[0] == chosen(strategy, NODES, count)[0]
        assert count == len(set(chosen(strategy, NODES, count)))


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        ("least_loaded", "cab"),
        ("bin_pack", "acb"),
        ("spread", "cab"),
        ("power_of_two", "acb"),
    ],
)
def test_own_placements_count(strategy: StrategyName, order: str) -> None:
    """A node that own placements fill comes last, but is not excluded."""
    nodes = fleet((2, 4), (1, 2), (1, 4))
    assert order == chosen(strategy, nodes, own={"b": 1})


@pytest.mark.parametrize("strategy", ["power_of_two", "least_loaded", "bin_pack", "spread"])
def test_no_nodes_no_choice(strategy: StrategyName) -> None:
    """Without nodes there is no choice, and with one node no second one."""
    for count in (1, 2):
        assert "" == chosen(strategy, [], count)
        assert "a" == chosen(strategy, fleet((0, 1)), count)


@pytest.mark.parametrize("strategy", ["power_of_two", "least_loaded", "bin_pack", "spread"])
def test_ties_go_to_the_first_node(strategy: StrategyName) -> None:
    """Ties go to the first node, as the caller passes the nodes in random order."""
    nodes = fleet((1, 4), (1, 4), (1, 4))
    assert "a" == chosen(strategy, nodes, 1)
    assert "c" == chosen(strategy, nodes[::-1], 1)


def test_two_choices_look_at_no_more_than_they_need() -> None:
    """Two choices look at few nodes, however large the fleet is."""
    nodes = iter([Node(f"n{n}") for n in range(100)])
    choose = chooser("power_of_two", None)
    choose(nodes, 1, lambda node: node.current_jobs)
    choose(nodes, 3, lambda node: node.current_jobs)
    assert "n6" == next(nodes).id


def test_the_same_key_goes_to_the_same_node() -> None:
    """Neither order nor load matters; fixed values reveal an unintended change."""
    nodes = fleet((0, 4), (3, 4), (1, 4), (2, 4), (0, 4))
    order = chosen("sticky", nodes, key="user-1")
    assert order == chosen("sticky", nodes[::-1], key="user-1", own={"a": 3})
    assert KNOWN == order


def test_the_same_key_goes_to_the_same_node_in_every_process() -> None:
    """The choice is the same in every process, which the built-in hash would not guarantee."""
    code = (
        "from rxdispatch.node import Node\n"
        "from rxdispatch.nodes.placement.strategies import chooser\n"
        "nodes = iter([Node(name) for name in 'abcde'])\n"
        "print(''.join(n.id for n in chooser('sticky', 'user-1')(nodes, 5, lambda n: 0)))\n"
    )
    for seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert KNOWN == ran.stdout.strip()


def test_keys_are_spread_evenly() -> None:
    """Each node gets its share of keys, within chance."""
    nodes = [Node(f"node-{n}") for n in range(10)]
    shares = Counter(first(nodes, f"key-{n}") for n in range(5000))
    assert {node.id for node in nodes} == set(shares)
    # Chi-square with 9 degrees of freedom exceeds 27.9 once in a thousand cases.
    assert sum((count - 500) ** 2 / 500 for count in shares.values()) < 27.9


def test_a_node_that_leaves_moves_only_its_own_keys() -> None:
    """Its keys move to all other nodes, evenly."""
    nodes = [Node(f"node-{n}") for n in range(10)]
    heirs: Counter[str] = Counter()
    for n in range(5000):
        key = f"key-{n}"
        before, after = first(nodes, key), first(nodes[1:], key)
        if before == "node-0":
            heirs[after] += 1
        else:
            assert before == after
    share = heirs.total() / 9
    # Chi-square with 8 degrees of freedom exceeds 26.1 once in a thousand cases.
    assert sum((heirs[node.id] - share) ** 2 / share for node in nodes[1:]) < 26.1


def first(nodes: list[Node], key: str) -> str:
    """Return the node to which a key goes."""
    return chooser("sticky", key)(iter(nodes), 1, lambda node: node.current_jobs)[0].id


def test_hashes_of_removed_nodes_are_not_kept_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dropping them changes no choice."""
    nodes = [Node(f"node-{n}") for n in range(30)]
    before = [first(nodes, f"key-{n}") for n in range(20)]
    monkeypatch.setattr(module, "_MARKS", 7)
    first([Node("new")], "key")
    assert before == [first(nodes, f"key-{n}") for n in range(20)]
    assert len(vars(module)["_marks"]) <= 7

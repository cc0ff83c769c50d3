"""``Criteria``: which arguments are valid, and how they are printed."""

from __future__ import annotations

from typing import Any

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.node import Node
from rxdispatch.nodes.placement.criteria import Criteria


def small(node: Node) -> bool:
    """Return whether a node is small."""
    return node.capacity < 4


def by_name(node: Node, load: float) -> float:
    """Cost function: the shorter the name, the lower."""
    return len(node.id) + load


async def later(node: Node) -> bool:
    """A coroutine function, whose coroutine would count as true."""
    return bool(node)


def test_no_criteria_match_any_node() -> None:
    """Criteria without arguments match any node, by power of two choices."""
    criteria = Criteria()
    assert (None, {}, None, frozenset(), "power_of_two", None) == (
        criteria.pool,
        criteria.labels,
        criteria.where,
        criteria.exclude,
        criteria.strategy,
        criteria.key,
    )


def test_what_is_given_is_copied() -> None:
    """Criteria copy their arguments, so they can be kept and compared."""
    labels, exclude = {"zone": "a"}, ["n1"]
    criteria = Criteria._of(labels=labels, exclude=exclude)
    labels["zone"] = "b"
    exclude.append("n2")
    assert {"zone": "a"} == criteria.labels
    assert frozenset({"n1"}) == criteria.exclude
    same = Criteria(labels={"zone": "a"}, exclude={"n1"})
    assert same == criteria
    assert hash(same) == hash(criteria)
    assert Criteria(labels={"zone": "b"}, exclude={"n1"}) != criteria


NAMES = "power_of_two, least_loaded, bin_pack, spread, sticky"
WRONG: list[tuple[dict[str, Any], str, Any]] = [
    ({"pool": ""}, "pool must be a str of 1 to 200 characters or None", ""),
    ({"pool": 3}, "pool must be a str of 1 to 200 characters or None", 3),
    ({"pool": "x" * 201}, "pool must be a str of 1 to 200 characters or None", "x" * 201),
    ({"labels": None}, "labels must map str to str", None),
    ({"labels": ["zone"]}, "labels must map str to str", ["zone"]),
    ({"labels": {"b": "x", "a": 1}}, "labels must map str to str", {"a": 1}),
    ({"where": True}, "where must be a plain function or None", True),
    ({"where": later}, "where must be a plain function or None", later),
    ({"exclude": "n1"}, "exclude must be an iterable of node ids", "n1"),
    ({"exclude": None}, "exclude must be an iterable of node ids", None),
    ({"exclude": ["n1", 2]}, "exclude must hold node ids", 2),
    (
        {"strategy": "random"},
        f"strategy must be one of {NAMES} or a plain function",
        "random",
    ),
    ({"key": "k"}, "key must be None unless the strategy is sticky", "k"),
    ({"strategy": by_name, "key": "k"}, "key must be None unless the strategy is sticky", "k"),
    ({"strategy": "sticky"}, "key must be a str where the strategy is sticky", None),
    ({"strategy": "sticky", "key": 1}, "key must be a str where the strategy is sticky", 1),
    (
        {"zone": "a"},
        "criteria must be among pool, labels, where, exclude, strategy, key",
        "zone",
    ),
    (
        {"spec": (None, frozenset())},
        "criteria must be among pool, labels, where, exclude, strategy, key",
        "spec",
    ),
]


@pytest.mark.parametrize(("given", "rule", "value"), WRONG)
def test_anything_else_is_refused(given: dict[str, Any], rule: str, value: Any) -> None:
    """The error states the rule and the value."""
    with pytest.raises(ConfigError) as caught:
        Criteria._of(**given)
    assert (rule, value) == (caught.value.rule, caught.value.value)


@pytest.mark.parametrize("strategy", ["", None, 2, later])
def test_strategies_are_names_or_plain_functions(strategy: Any) -> None:
    """The error lists the names of the strategies."""
    with pytest.raises(ConfigError, match="strategy must be one of power_of_two, "):
        Criteria(strategy=strategy)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "any pool"),
        ({"pool": "gpu", "labels": {"zone": "a"}}, "pool='gpu', labels={'zone': 'a'}"),
        ({"where": small, "exclude": ["b", "a"]}, "where=small, exclude=['a', 'b']"),
        ({"exclude": "abcd", "strategy": "spread"}, "exclude=4 ids, strategy='spread'"),
        ({"strategy": "sticky", "key": "user"}, "strategy='sticky', key='user'"),
        ({"strategy": by_name}, "strategy=by_name"),
    ],
)
def test_it_reads_well_in_a_message(given: dict[str, Any], text: str) -> None:
    """Only the given criteria are printed."""
    if "exclude" in given:
        given = {**given, "exclude": list(given["exclude"])}
    assert text == str(Criteria._of(**given))


def test_a_long_one_is_cut() -> None:
    """Long criteria are cut, so that a message stays readable."""
    text = str(Criteria(labels={f"label-{n}": "x" * 50 for n in range(20)}))
    assert 203 == len(text)
    assert text.endswith("...")

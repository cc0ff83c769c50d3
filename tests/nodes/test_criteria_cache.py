"""``CriteriaCache``: equal arguments are checked once."""

from __future__ import annotations

from typing import Any

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.node import Node
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.criteria_cache import CriteriaCache


def test_equal_arguments() -> None:
    """Equal arguments return the same object, even with labels in a new mapping."""
    cache = CriteriaCache()
    first = cache.get({"pool": "gpu", "labels": {"zone": "a"}})
    assert first is cache.get({"pool": "gpu", "labels": {"zone": "a"}})
    assert Criteria(pool="gpu", labels={"zone": "a"})._spec == first._spec
    assert cache.get({}) is cache.get({})


def test_different_arguments() -> None:
    """Any difference makes other criteria."""
    cache = CriteriaCache()

    def good(node: Node) -> bool:
        return node.id == "a"

    def bad(node: Node) -> bool:
        return not good(node)

    questions: list[Any] = [
        {},
        {"pool": "a"},
        {"pool": "b"},
        {"labels": {"pool": "a"}},
        {"labels": {"a": "pool"}},
        {"where": good},
        {"where": bad},
        {"exclude": ("a",)},
        {"exclude": frozenset("a")},
        {"strategy": "spread"},
        {"strategy": "least_loaded"},
    ]
    found = [cache.get(question) for question in questions]
    assert len(questions) == len({id(one) for one in found})
    assert found == [cache.get(question) for question in questions]


def test_labels_that_change_afterwards() -> None:
    """Later changes to a mapping that was passed have no effect."""
    cache = CriteriaCache()
    labels = {"zone": "a"}
    first = cache.get({"labels": labels})
    labels["zone"] = "b"
    second = cache.get({"labels": labels})
    assert [{"zone": "a"}, {"zone": "b"}] == [dict(first.labels), dict(second.labels)]


def test_what_cannot_be_remembered() -> None:
    """Unhashable arguments, such as lists of ids, are checked each time."""
    cache = CriteriaCache()
    exclude = ["a"]
    assert {"a"} == cache.get({"exclude": exclude}).exclude
    exclude.append("b")
    assert {"a", "b"} == cache.get({"exclude": exclude}).exclude
    ids = iter("ab")
    assert {"a", "b"} == cache.get({"exclude": list(ids)}).exclude


def test_generators_are_not_remembered() -> None:
    """A generator can be read only once, so it is checked each time."""
    cache = CriteriaCache()
    asked: list[Any] = [{"exclude": iter("ab")}, {"exclude": iter("cd")}]
    assert [{"a", "b"}, {"c", "d"}] == [cache.get(question).exclude for question in asked]


BAD: list[dict[str, Any]] = [
    {"pool": 5},
    {"pool": []},
    {"labels": {"a": 1}},
    {"labels": {"a": []}},
    {"where": 1},
    {"exclude": "a"},
    {"strategy": "best"},
]


@pytest.mark.parametrize("question", BAD, ids=str)
def test_bad_arguments(question: Any) -> None:
    """Each call with bad arguments raises the error."""
    cache = CriteriaCache()
    for _ in range(2):
        with pytest.raises(ConfigError):
            cache.get(question)


def test_an_unknown_name() -> None:
    """The error names the unknown argument."""
    unknown: Any = {"colour": "red"}
    with pytest.raises((ConfigError, TypeError), match="colour"):
        CriteriaCache().get(unknown)


def test_new_arguments_without_end() -> None:
    """An endless series of new arguments does not fill the memory."""
    cache = CriteriaCache()
    for n in range(2000):
        cache.get({"pool": f"{n}"})
    assert len(cache._known) <= 256

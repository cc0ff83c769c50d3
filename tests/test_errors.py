"""Errors keep the facts, and their messages state the rule before the value."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

import rxdispatch
from rxdispatch import errors

MADE: list[tuple[errors.RxDispatchError, str, dict[str, Any]]] = [
    (
        errors.ConfigError("count must be >= 1", 0),
        "count must be >= 1, got 0",
        {"rule": "count must be >= 1", "value": 0},
    ),
    (
        errors.ConfigError("url must name a server", None),
        "url must name a server, got None",
        {"value": None},
    ),
    (errors.ConfigError("the login must succeed"), "the login must succeed", {"value": None}),
    (
        errors.CodecError("payload must be finite", float("inf"), task_id="a"),
        "task 'a': payload must be finite, got inf",
        {"rule": "payload must be finite", "task_id": "a"},
    ),
    (errors.CodecError("stored bytes must be a task"), "stored bytes must be a task", {}),
    (
        errors.BoardFullError("jobs", ("a",), "the disk is full"),
        "board 'jobs' must have room for new tasks, got a full one: the disk is full",
        {"board": "jobs", "accepted": ("a",), "why": "the disk is full"},
    ),
    (errors.TaskRejectedError("closed"), "task refused: closed", {"reason": "closed"}),
    (
        errors.TaskExecutionError("a", 2),
        "task 'a' failed at attempt 2",
        {"task_id": "a", "attempt": 2},
    ),
    (
        errors.ItemTimeoutError(1.5, "item"),
        "an item of type str must be done within 1.5 s",
        {"seconds": 1.5, "item": "item"},
    ),
    (errors.ItemTimeoutError(2.0), "the next item must be done within 2 s", {"item": None}),
    (errors.BufferOverflowError(5), "buffer must hold at most 5 items", {"size": 5}),
    (errors.NodeNotFoundError("n"), "node 'n' must be registered", {"node_id": "n"}),
    (errors.NoCapacityError("pool=gpu"), "a node with room must match pool=gpu", {}),
    (
        errors.StoreUnavailableError("submit", maybe_executed=True, accepted=("a",)),
        "submit: the server did not answer in time; it may have been executed",
        {"operation": "submit", "maybe_executed": True, "accepted": ("a",)},
    ),
]


@pytest.mark.parametrize(("error", "text", "facts"), MADE, ids=lambda value: type(value).__name__)
def test_messages_and_facts(
    error: errors.RxDispatchError, text: str, facts: dict[str, Any]
) -> None:
    """The message is built from the attributes of the error."""
    assert text == str(error)
    assert facts == {name: getattr(error, name) for name in facts}
    assert isinstance(error, errors.RxDispatchError)


def test_they_are_of_known_kinds_too() -> None:
    """The errors have standard base classes, so code without rxdispatch can catch them."""
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.CodecError, ValueError)
    assert issubclass(errors.ItemTimeoutError, TimeoutError)


PAGE = Path(__file__).parents[1] / "docs" / "reference" / "errors.md"
LINE = re.compile(r"^( *)(?:[├└]── )?(\w+Error)(?: \((\w+)\))?", re.MULTILINE)


def _tree(text: str) -> dict[str, tuple[str, ...]]:
    """Return the names in a drawing, each with its bases."""
    found: dict[str, tuple[str, ...]] = {}
    above: list[str] = []
    for line in text.replace("│", " ").split("\n"):
        match = LINE.match(line)
        if match:
            depth = len(match[1]) // 4 + ("──" in line)
            above[depth:] = [match[2]]
            bases = (above[depth - 1] if depth else "Exception", match[3])
            found[match[2]] = tuple(base for base in bases if base)
    return found


def test_all_of_them_are_public_and_drawn() -> None:
    """All errors are public, and the trees in docstring and reference match the classes."""
    public: dict[str, Any] = {name: getattr(rxdispatch, name) for name in rxdispatch.__all__}
    assert set(errors.__all__) <= set(public)
    classes = {
        name: tuple(base.__name__ for base in value.__bases__)
        for name, value in public.items()
        if inspect.isclass(value) and issubclass(value, errors.RxDispatchError)
    }
    assert classes == _tree(inspect.cleandoc(errors.__doc__ or "").replace("\n    ", "\n"))
    page = PAGE.read_text("utf-8")
    assert classes == _tree(page.partition("```text\n")[2].partition("```")[0])
    rows = re.findall(r"^\| \[?`(\w+)`", page, re.MULTILINE)
    assert sorted(classes) == sorted(["RxDispatchError", *rows])


def test_long_values_are_cut() -> None:
    """A message stays readable, however long the value is."""
    text = str(errors.ConfigError("id must be short", "x" * 10_000))
    assert len(text) < 300
    assert text.endswith("... (10002 characters)")


def test_values_that_cannot_be_shown() -> None:
    """The rule is told even if the value has a repr that raises."""

    class Bad:
        def __repr__(self) -> str:
            raise ValueError

    rule = "id must be short"
    assert f"{rule}, got an object of type Bad" == str(errors.ConfigError(rule, Bad()))
    assert f"{rule}, got an object of type int" == str(errors.ConfigError(rule, 10**20_000))


@pytest.mark.parametrize("error", [made[0] for made in MADE], ids=lambda e: type(e).__name__)
def test_they_travel(error: errors.RxDispatchError) -> None:
    """An error keeps its message and attributes when a process pool pickles it."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(error) is type(copy)
    assert str(error) == str(copy)
    assert vars(error) == vars(copy)

"""Tasks, claims and settlements without a board's help."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from copy import deepcopy
from datetime import timedelta
from typing import Any
from uuid import UUID

import attrs
import pytest

from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.claim import Claim, Outcome
from rxdispatch.errors import ConfigError, TaskExecutionError
from rxdispatch.seconds import seconds
from rxdispatch.task import Status, Task


def test_defaults() -> None:
    """The defaults are those in the documentation."""
    task = Task(1)
    assert 7 == UUID(task.id).version
    assert ("default", 0, 0.0, None, None, 5, {}) == (
        task.kind,
        task.priority,
        task.delay,
        task.ttl,
        task.timeout,
        task.max_attempts,
        task.headers,
    )


def test_ids_are_unique_and_grow() -> None:
    """The order of the ids is the order in which they were made."""
    ids = [Task(0).id for _ in range(1000)]
    assert sorted(set(ids)) == ids


def test_durations() -> None:
    """A duration is given as int, float or timedelta, and kept as float seconds."""
    given: dict[str, Any] = {"ttl": timedelta(minutes=1), "timeout": timedelta(milliseconds=5)}
    task = Task(0, delay=1, **given)
    assert (1.0, 60.0, 0.005) == (task.delay, task.ttl, task.timeout)
    assert [float] * 3 == [type(value) for value in (task.delay, task.ttl, task.timeout)]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"id": ""}, "id must be a str that is not empty, got ''"),
    ({"id": 5}, "id must be a str that is not empty, got 5"),
    ({"id": None}, "id must be a str that is not empty, got None"),
    ({"id": b"a"}, "id must be a str that is not empty, got b'a'"),
    ({"id": "x" * 1025}, "id must be at most 1024 bytes in UTF-8, got 1025"),
    ({"id": "ü" * 513}, "id must be at most 1024 bytes in UTF-8, got 1026"),
    ({"id": "\udcff" * 1025}, "id must be at most 1024 bytes in UTF-8, got 1025"),
    ({"id": "\ud800" * 342}, "id must be at most 1024 bytes in UTF-8, got 1026"),
    ({"kind": 5}, "kind must be a str that is not empty, got 5"),
    ({"kind": ""}, "kind must be a str that is not empty, got ''"),
    ({"kind": "k" * 201}, "kind must be at most 200 characters, got 201"),
    ({"headers": {"h": "x" * 65_536}}, "headers must be at most 65536 bytes in UTF-8, got 65537"),
    ({"headers": {"ü" * 33_000: ""}}, "headers must be at most 65536 bytes in UTF-8, got 66000"),
    ({"priority": 4097}, "priority must be an int from -4096 to 4096, got 4097"),
    ({"priority": -4097}, "priority must be an int from -4096 to 4096, got -4097"),
    ({"priority": 1.0}, "priority must be an int from -4096 to 4096, got 1.0"),
    ({"priority": True}, "priority must be an int from -4096 to 4096, got True"),
    ({"delay": -0.1}, "delay must be a finite number of seconds >= 0, got -0.1"),
    ({"delay": math.nan}, "delay must be a finite number of seconds >= 0, got nan"),
    ({"delay": math.inf}, "delay must be a finite number of seconds >= 0, got inf"),
    ({"delay": "1"}, "delay must be a finite number of seconds >= 0, got '1'"),
    ({"delay": None}, "delay must be a finite number of seconds >= 0, got None"),
    ({"delay": False}, "delay must be a finite number of seconds >= 0, got False"),
    ({"ttl": 0}, "ttl must be a finite number of seconds > 0, got 0"),
    ({"ttl": -1.0}, "ttl must be a finite number of seconds > 0, got -1.0"),
    ({"ttl": math.inf}, "ttl must be a finite number of seconds > 0, got inf"),
    ({"ttl": timedelta(0)}, "ttl must be a finite number of seconds > 0, got datetime."),
    ({"timeout": 0.0}, "timeout must be a finite number of seconds > 0, got 0.0"),
    ({"timeout": math.nan}, "timeout must be a finite number of seconds > 0, got nan"),
    ({"max_attempts": 0}, "max_attempts must be an int >= 1, got 0"),
    ({"max_attempts": 1.5}, "max_attempts must be an int >= 1, got 1.5"),
    ({"max_attempts": True}, "max_attempts must be an int >= 1, got True"),
    ({"headers": {"a": 1}}, "headers must map str to str, got {'a': 1}"),
    ({"headers": {1: "a"}}, "headers must map str to str, got {1: 'a'}"),
    ({"headers": ["a"]}, "headers must map str to str, got ['a']"),
    ({"headers": None}, "headers must map str to str, got None"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    """A bad argument is refused when the task is made; the error has the rule and the value."""
    with pytest.raises(ConfigError) as caught:
        Task(0, **options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("priority", [-4096, 4096])
def test_the_limits_are_allowed(priority: int) -> None:
    """Priorities from -4096 to 4096 are allowed, both included."""
    assert priority == Task(0, priority=priority).priority


def test_frozen() -> None:
    """Neither a field nor a header can be changed."""
    given = {"a": "1"}
    task: Any = Task(0, headers=given)
    given["a"] = "2"
    assert {"a": "1"} == task.headers
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        task.priority = 1
    with pytest.raises(TypeError):
        task.headers["b"] = "2"
    assert 3 == attrs.evolve(task, priority=3).priority


@pytest.mark.parametrize("task", [Task([1], id="a", headers={"h": "1"}), Task(None, ttl=5.0)])
def test_copies(task: Task[Any]) -> None:
    """A copy is equal to the task, even one that was pickled."""
    for copy in (pickle.loads(pickle.dumps(task)), deepcopy(task)):
        assert task == copy
        assert hash(task) == hash(copy)


def test_a_subclass_is_a_task() -> None:
    """A subclass may have methods and fields of its own."""

    class Mail(Task[str]):
        def subject(self) -> str:
            return self.payload.upper()

    mail = Mail("hello", priority=3)
    assert ("HELLO", 3, 7) == (mail.subject(), mail.priority, UUID(mail.id).version)
    with pytest.raises(ConfigError, match="priority"):
        Mail("hello", priority=5000)


def test_every_text_is_an_id() -> None:
    """Even the text that the signature shows for a new id is an ordinary id."""
    assert "a new UUID" == Task(0, id="a new UUID").id


def test_tasks_of_boards_are_ordinary_tasks() -> None:
    """Tasks that boards make differ in nothing from those that users make."""
    made, trusted = Task([1], id="a"), Task.trusted([1], "a")
    assert made == trusted
    assert Task([1], id="a", kind="k") == Task.trusted([1], "a", "k")
    assert hash(made) == hash(trusted)
    assert repr(made) == repr(trusted)
    assert type(made) is type(trusted)
    assert made == pickle.loads(pickle.dumps(trusted))
    frozen: Any = trusted
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        frozen.priority = 1


def test_statuses_are_words() -> None:
    """A status is a word that reads well in logs and JSON."""
    assert "READY" == Status.READY == str(Status.READY)


@pytest.mark.parametrize("value", [1, 1.0, timedelta(seconds=1)])
def test_seconds(value: float | timedelta) -> None:
    """A number or a timedelta becomes float seconds."""
    assert 1.0 == seconds("wait", value)


@pytest.mark.parametrize("value", [10**400, -1, True, "1", None, float("nan"), float("inf")])
def test_no_seconds(value: Any) -> None:
    """Anything else is refused, even an int that no float can hold."""
    with pytest.raises(ConfigError, match=r"^wait must be a finite number of seconds >= 0, got "):
        seconds("wait", value)


def test_importing_is_quick_and_quiet() -> None:
    """Importing prints nothing and starts no thread."""
    code = "import rxdispatch, asyncio, threading; print(threading.active_count())"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert ("1\n", "") == (result.stdout, result.stderr)


async def _claim() -> Claim[int]:
    board: MemoryBoard[int] = MemoryBoard("b")
    await board.submit(Task(1, id="a", max_attempts=2))
    return (await board.claim(1))[0]


async def test_settlements_of_outcomes() -> None:
    """The outcome decides kind, error, delay and reason of the settlement, if there is one."""
    claim = await _claim()
    failure = TaskExecutionError("a", 1)
    failure.__cause__ = KeyError("k")
    cases: list[tuple[Outcome[int, None], tuple[str, str, float, str]]] = [
        (Outcome(claim, "done"), ("done", "", 0.0, "")),
        (Outcome(claim, "released", delay=2.0), ("released", "", 2.0, "")),
        (
            Outcome(claim, "retry", error=failure, delay=3.0),
            ("retry", "KeyError: 'k'", 3.0, "failed"),
        ),
        (
            Outcome(claim, "dead", error=ValueError("v"), reason="r" * 300),
            ("dead", "ValueError: v", 0.0, "r" * 200),
        ),
    ]
    for outcome, expected in cases:
        settlement = outcome.settlement()
        assert settlement is not None
        assert expected == (
            settlement.kind,
            settlement.error,
            settlement.delay,
            settlement.reason,
        )
    lost: Outcome[int, None] = Outcome(claim, "lost")
    assert lost.settlement() is None


async def test_what_a_settlement_comes_to() -> None:
    """A retry without an attempt left makes the task dead."""
    claim = await _claim()
    assert "retry" == claim.retry("no").verdict
    claim.attempt = 2
    assert "dead" == claim.retry("no").verdict
    assert "released" == claim.release().verdict


async def test_reprs_show_no_machinery() -> None:
    """The repr shows the task, the token and the attempt, but not the board behind the claim."""
    claim = await _claim()
    assert repr(claim).startswith("Claim(task=Task(payload=1, id='a'")
    assert "_origin" not in repr(claim)

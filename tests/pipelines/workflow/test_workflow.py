"""Workflows in one process: transitions, failures, limits, and refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rxdispatch as rxd
from rxdispatch.testing import run_virtual


async def fine(_: Any) -> str:
    """Accept anything."""
    return "ok"


def path(result: rxd.WorkflowResult | rxd.WorkflowError) -> list[tuple[str, str]]:
    """Return the transitions of a history."""
    return [(entry.source, entry.target) for entry in result.history]


def order(**options: Any) -> rxd.Workflow:
    """Return the workflow of an order that is checked and then paid."""

    async def check(data: dict[str, int]) -> rxd.Move | str:
        return rxd.Move("ok", {**data, "checked": 1}) if data["total"] < 100 else "bad"

    workflow = rxd.Workflow(**options)
    workflow.define_state("new", check, next_states={"ok": "checked", "bad": "refused"})
    workflow.define_state("checked", fine, next_states={"ok": "paid"})
    workflow.define_state("paid")
    workflow.define_state("refused")
    return workflow


async def test_results_choose_the_way_and_change_the_data() -> None:
    """The history has each transition with its result, its time and its attempt."""
    good = await order().run({"total": 12}, id="a")
    assert ("a", "paid", {"total": 12, "checked": 1}) == (good.id, good.state, good.data)
    assert [("new", "checked"), ("checked", "paid")] == path(good)
    assert [("ok", 1, ""), ("ok", 1, "")] == [(e.result, e.attempt, e.error) for e in good.history]
    assert 0 < good.history[0].at <= good.history[1].at
    bad = await order().run({"total": 120})
    assert ("refused", {"total": 120}) == (bad.state, bad.data)
    assert good.id != bad.id


async def test_predicates_choose_the_way() -> None:
    """The first predicate that holds is taken; a plain function works too."""
    workflow = rxd.Workflow("count")
    workflow.define_state(
        "count", len, next_states=[(lambda n: n > 2, "many"), (lambda n: n > 0, "few")]
    )
    workflow.define_state("many")
    workflow.define_state("few")
    assert "many" == (await workflow.run("abc")).state
    assert "few" == (await workflow.run("a")).state
    with pytest.raises(rxd.WorkflowError, match="must satisfy one of its predicates, got 0"):
        await workflow.run("")


async def test_retries_then_failure_state() -> None:
    """A state is attempted as often as its backoff says, and then the failure state follows."""
    calls: list[int] = []

    async def flaky(succeeds_at: int) -> str:
        calls.append(succeeds_at)
        if len(calls) < succeeds_at:
            raise OSError("away")
        return "ok"

    workflow = rxd.Workflow("send")
    retry = rxd.Backoff(first=0.001, attempts=3)
    workflow.define_state("send", flaky, next_states={"ok": "sent"}, failed="lost", backoff=retry)
    workflow.define_state("sent")
    workflow.define_state("lost")
    sent = await workflow.run(3)
    assert ("sent", 3) == (sent.state, sent.history[0].attempt)
    calls.clear()
    lost = await workflow.run(9)
    assert ("lost", 3, 3) == (lost.state, len(calls), lost.history[0].attempt)
    assert (None, "OSError: away") == (lost.history[0].result, lost.history[0].error)


async def test_failure_without_a_state_for_it() -> None:
    """The error has the id, the cause, and the history so far."""

    async def fail(_: Any) -> str:
        raise KeyError("rate")

    workflow = rxd.Workflow()
    workflow.define_state("new", fine, next_states={"ok": "bad"})
    workflow.define_state("bad", fail, next_states={"ok": "end"})
    workflow.define_state("end")
    with pytest.raises(rxd.TaskExecutionError) as caught:
        await workflow.run(None, id="w")
    error = caught.value
    assert isinstance(error, rxd.WorkflowError)
    assert isinstance(error.__cause__, KeyError)
    assert ("w", "bad", 1) == (error.task_id, error.state, error.attempt)
    assert [("new", "bad")] == path(error)
    assert "workflow 'w' failed in state 'bad' at attempt 1: KeyError: 'rate'" == str(error)


@pytest.mark.parametrize("result", ["what", ["unhashable"]])
async def test_unknown_results_are_not_tried_again(result: Any) -> None:
    """An unknown result is a failure of the state, and a retry would be wrong again."""
    calls: list[int] = []

    async def odd(_: Any) -> Any:
        calls.append(1)
        return result

    workflow = rxd.Workflow()
    workflow.define_state(
        "new", odd, next_states={"ok": "end"}, failed="end", backoff=rxd.Backoff()
    )
    workflow.define_state("end")
    done = await workflow.run(None)
    assert ("end", 1) == (done.state, len(calls))
    assert "Error: " in done.history[0].error


def test_timeout() -> None:
    """An attempt that takes too long is cancelled, and fails."""

    async def main() -> rxd.WorkflowResult:
        workflow = rxd.Workflow()

        async def slow(_: Any) -> None:
            await asyncio.sleep(100)

        workflow.define_state(
            "new",
            slow,
            next_states={None: "end"},
            failed="late",
            timeout=1.0,
            backoff=rxd.Backoff(first=2.0, attempts=2, jitter=0),
        )
        workflow.define_state("end")
        workflow.define_state("late")
        result = await workflow.run(None, id="w")
        assert 4.0 == asyncio.get_running_loop().time()
        return result

    result = run_virtual(main())
    assert ("late", 2) == (result.state, result.history[0].attempt)
    assert "ItemTimeoutError: 'w' must be done within 1 s" == result.history[0].error


async def test_endless_loops_are_ended() -> None:
    """After ``max_transitions`` the workflow fails, with the whole history."""
    workflow = rxd.Workflow("a", max_transitions=7)
    workflow.define_state("a", fine, next_states={"ok": "b", "end": "end"})
    workflow.define_state("b", fine, next_states={"ok": "a"})
    workflow.define_state("end")
    with pytest.raises(rxd.WorkflowError, match=r"max_transitions \(7\)") as caught:
        await workflow.run(None)
    assert 7 == len(caught.value.history)
    assert isinstance(caught.value.__cause__, rxd.ConfigError)


async def test_as_many_transitions_as_allowed() -> None:
    """The last allowed transition may reach the end."""
    workflow = order(max_transitions=2)
    assert "paid" == (await workflow.run({"total": 1})).state


async def test_cancelled_run() -> None:
    """The cancellation reaches the state's function, and nothing keeps running."""
    cancelled = asyncio.Event()

    async def wait(_: Any) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return ""

    workflow = rxd.Workflow()
    workflow.define_state("new", wait, next_states={"": "end"}, backoff=rxd.Backoff())
    workflow.define_state("end")
    running = asyncio.create_task(workflow.run(None))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cancelled.is_set()


def test_machines_that_cannot_work() -> None:
    """Unknown or unreachable states, and machines without an end, are refused."""

    def machine(*states: tuple[str, dict[str, str]], initial: str = "new") -> rxd.Workflow:
        workflow = rxd.Workflow(initial)
        for name, following in states:
            if following:
                workflow.define_state(name, fine, next_states=following)
            else:
                workflow.define_state(name)
        return workflow

    for workflow, rule in [
        (machine(), "initial must be a defined state, got 'new'"),
        (machine(("new", {})), "initial must be a state with next_states"),
        (machine(("new", {"ok": "x"})), "next states of 'new' must be defined, got 'x'"),
        (machine(("new", {"ok": "a"}), ("a", {}), ("b", {})), "reachable .* got 'b'"),
        (machine(("new", {"ok": "a"}), ("a", {"ok": "new"})), "must be a terminal state"),
    ]:
        with pytest.raises(rxd.ConfigError, match=rule):
            workflow.validate()


def test_bad_arguments() -> None:
    """Each breaks a rule, and changes nothing."""
    board = rxd.MemoryBoard[Any]("b")
    wrong: list[dict[str, Any]] = [
        {"initial": ""},
        {"max_transitions": 0},
        {"max_transitions": True},
        {"board": board},
        {"journal": board},
        {"board": board, "journal": board},
        {"board": "b", "journal": board},
    ]
    for options in wrong:
        with pytest.raises(rxd.ConfigError):
            rxd.Workflow(**options)
    workflow: Any = rxd.Workflow()
    good = {"ok": "end"}
    wrong = [
        {"process": fine},
        {"next_states": good},
        {"process": 3, "next_states": good},
        {"process": fine, "next_states": {}},
        {"process": fine, "next_states": "end"},
        {"process": fine, "next_states": {"ok": 3}},
        {"process": fine, "next_states": [("ok", "end")]},
        {"process": fine, "next_states": [("ok",)]},
        {"process": fine, "next_states": good, "failed": ""},
        {"process": fine, "next_states": good, "timeout": 0},
        {"process": fine, "next_states": good, "backoff": 3},
        {"timeout": 1.0},
        {"backoff": rxd.Backoff()},
        {"failed": "end"},
    ]
    for arguments in wrong:
        with pytest.raises(rxd.ConfigError):
            workflow.define_state("new", **arguments)
    workflow.define_state("new", fine, next_states=good)
    with pytest.raises(rxd.ConfigError, match="not be defined already"):
        workflow.define_state("new")


async def test_without_a_board() -> None:
    """A workflow without a board cannot be submitted."""
    workflow = order()
    for call in (workflow.submit(1), workflow.result("a"), workflow.forget("a")):
        with pytest.raises(rxd.ConfigError, match="must have a board and a journal"):
            await call
    with pytest.raises(rxd.ConfigError, match="must have a board and a journal"):
        workflow.worker()


class PanicError(BaseException):
    """An error that bindings to other languages raise."""


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        PanicError("rust"),
        asyncio.CancelledError(),
        BaseExceptionGroup("", [PanicError()]),
    ],
)
async def test_a_state_fails_whatever_its_function_raises(error: BaseException) -> None:
    """The failure state follows; this holds for errors of predicates too."""

    async def process(data: Any) -> Any:
        if data == "process":
            raise error
        return data

    def holds(_: Any) -> bool:
        raise error

    workflow = rxd.Workflow("start")
    workflow.define_state("start", process, next_states=[(holds, "end")], failed="failed")
    workflow.define_state("end")
    workflow.define_state("failed")
    for data in ("process", "predicate"):
        result = await workflow.run(data)
        assert "failed" == result.state
        assert result.history[0].error.startswith(type(error).__name__)


async def test_generators_are_refused_as_states() -> None:
    """A generator function is refused when it is defined, or by its result if it is hidden."""

    def rows(data: Any) -> Any:
        yield data

    def decorated(data: Any) -> Any:
        return rows(data)

    workflow = rxd.Workflow("start")
    with pytest.raises(rxd.ConfigError, match="process must not be a generator function"):
        workflow.define_state("start", rows, next_states={"ok": "end"})
    with pytest.raises(rxd.ConfigError, match=r"each predicate of next_states must take 1"):
        workflow.define_state("start", decorated, next_states=[(lambda: True, "end")])  # type: ignore[list-item, misc]  # pyright: ignore[reportArgumentType]
    workflow.define_state("start", decorated, next_states={"ok": "end"})
    workflow.define_state("end", next_states={})
    with pytest.raises(rxd.WorkflowError, match="process of 'start' must return a result"):
        await workflow.run(1)

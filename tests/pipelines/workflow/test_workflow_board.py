"""Workflows on a board: submitted, resumed after a kill, recorded once, and forgotten."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from reactivex import operators as rx

import rxdispatch as rxd
from rxdispatch.pipelines.workflow.log import WorkflowLog
from rxdispatch.pipelines.workflow.states import Step
from rxdispatch.testing import run_virtual
from tests.pipelines.workflow.workflow_worker import STATES, machine
from tests.servers import valkey_server

ROOT = Path(__file__).parents[3]
Boards = tuple[rxd.Board[Any], rxd.Board[Any]]


@asynccontextmanager
async def places(kind: str) -> AsyncGenerator[Boards]:
    """Yield two boards, in memory or on a server."""
    if kind == "memory":
        yield rxd.MemoryBoard("w"), rxd.MemoryBoard("w.journal")
    else:
        async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
            yield hub.board("w"), hub.board("w.journal")


def counting(boards: Boards, process: Any = None) -> rxd.Workflow:
    """Return a workflow that counts to three; *process* replaces its first state."""

    async def count(n: int) -> rxd.Move:
        return rxd.Move("done" if n == 2 else "on", n + 1)

    workflow = rxd.Workflow("start", board=boards[0], journal=boards[1])
    workflow.define_state("start", process or count, next_states={"on": "count"})
    workflow.define_state("count", count, next_states={"on": "count", "done": "end"})
    workflow.define_state("end")
    return workflow


async def work(workflow: rxd.Workflow) -> list[rxd.Outcome[Any, rxd.WorkflowResult]]:
    """Run all workflows on the board; return the outcomes."""
    outcomes: list[rxd.Outcome[Any, rxd.WorkflowResult]] = []
    await rxd.run(workflow.worker(until="joined").pipe(rx.do_action(outcomes.append)))
    return outcomes


@pytest.mark.parametrize("kind", ["memory", "server"])
async def test_submit_run_and_result(kind: str) -> None:
    """The worker emits results, and `result` returns them by id until they are forgotten."""
    async with places(kind) as boards:
        workflow = counting(boards)
        waiting = asyncio.create_task(_later(workflow))
        ids = [await workflow.submit(0, id=f"w{n}") for n in range(20)]
        outcomes = await work(workflow)
        assert Counter(ids) == Counter(o.result.id for o in outcomes if o.result)
        expected = [("start", "count"), ("count", "count"), ("count", "end")]
        for found in (await waiting, await workflow.result("w0"), await workflow.result("w0")):
            assert ("w0", "end", 3) == (found.id, found.state, found.data)
            assert expected == [(e.source, e.target) for e in found.history]
        # A workflow that has ended does not run again: the result has the same time.
        assert "w0" == await workflow.submit(7, id="w0")
        (again,) = await work(workflow)
        assert await workflow.result("w0") == again.result
        await workflow.forget("w0")
        with pytest.raises(rxd.ConfigError, match="was submitted"):
            await workflow.result("w0")
        assert 19 * 3 == (await boards[1].counts()).ready
        await workflow.submit(0, id="w0")
        with pytest.raises(rxd.ConfigError, match="terminal state"):
            await workflow.forget("w0")
        await boards[0].cancel("w0")


@pytest.mark.parametrize("kind", ["memory", "server"])
async def test_readers_of_a_result_do_not_shut_one_another_out(kind: str) -> None:
    """Each reader reads the journal once, and none claims from it."""
    async with places(kind) as boards:
        workflow = counting(boards)
        await workflow.submit(0, id="w")
        await work(workflow)
        calls = Counter[str]()
        engine = boards[1]._engine
        for name in ("claim", "settle", "read"):
            setattr(engine, name, _counted(calls, name, getattr(engine, name)))
        found = await asyncio.gather(*(workflow.result("w") for _ in range(160)))
        assert [found[0]] * 160 == found
        assert {"read": 160} == calls
        for name in ("claim", "settle", "read"):
            delattr(engine, name)


def _counted(calls: Counter[str], name: str, call: Any) -> Any:
    def counted(*args: Any) -> Any:
        calls[name] += 1
        return call(*args)

    return counted


async def _later(workflow: rxd.Workflow) -> rxd.WorkflowResult:
    while True:
        try:
            return await workflow.result("w0")
        except rxd.ConfigError:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("kind", ["memory", "server"])
async def test_failed_workflow_goes_on_after_redrive(kind: str) -> None:
    """The workflow is dead with its history, and resumes from the state that failed."""
    async with places(kind) as boards:
        broken = True
        runs: list[str] = []

        async def start(_: Any) -> str:
            runs.append("start")
            return "on"

        async def send(_: Any) -> str:
            runs.append("send")
            if broken:
                raise OSError("away")
            return "ok"

        workflow = rxd.Workflow("start", board=boards[0], journal=boards[1])
        workflow.define_state("start", start, next_states={"on": "send"})
        workflow.define_state("send", send, next_states={"ok": "sent"})
        workflow.define_state("sent")
        await workflow.submit("x", id="w")
        (outcome,) = await work(workflow)
        assert outcome.status == "dead"
        assert isinstance(outcome.error, rxd.TaskExecutionError)
        inner = outcome.error.__cause__
        assert isinstance(inner, rxd.WorkflowError)
        assert isinstance(inner.__cause__, OSError)
        with pytest.raises(rxd.WorkflowError, match="OSError: away") as caught:
            await workflow.result("w")
        assert ("send", 1) == (caught.value.state, len(caught.value.history))
        assert inner.history == caught.value.history
        broken = False
        assert 1 == await boards[0].redrive("w")
        await work(workflow)
        assert "sent" == (await workflow.result("w")).state
        assert ["start", "send", "send"] == runs


@pytest.mark.parametrize("kind", ["memory", "server"])
async def test_the_log_wins(kind: str) -> None:
    """A worker that was overtaken drops its own transition and follows the recorded one."""
    async with places(kind) as boards:
        log = WorkflowLog(boards[1], 100)

        async def overtaken(_: Any) -> rxd.Move:
            entry = rxd.Transition("start", "count", "on", 5.0, 4)
            assert await log.add("w", 1, Step(entry, 1))
            return rxd.Move("on", 2)

        workflow = counting(boards, overtaken)
        await workflow.submit(0, id="w")
        await work(workflow)
        result = await workflow.result("w")
        assert rxd.Transition("start", "count", "on", 5.0, 4) == result.history[0]
        assert ("end", 3, 3) == (result.state, result.data, len(result.history))


async def test_data_that_cannot_be_stored() -> None:
    """The workflow is dead, with a reason."""
    boards: Boards = rxd.MemoryBoard("w"), rxd.MemoryBoard("w.journal")

    async def odd(_: Any) -> rxd.Move:
        return rxd.Move("on", float("nan"))

    workflow = counting(boards, odd)
    await workflow.submit(0, id="w")
    await work(workflow)
    with pytest.raises(rxd.WorkflowError, match="CodecError"):
        await workflow.result("w")


def test_disposal_gives_back_and_another_goes_on() -> None:
    """A worker that is stopped in a state releases the workflow, which resumes from its log."""

    async def main() -> None:
        boards: Boards = rxd.MemoryBoard("w"), rxd.MemoryBoard("w.journal")
        starts = asyncio.Event()

        async def hang(_: Any) -> str:
            starts.set()
            await asyncio.sleep(1000)
            return "on"

        slow = counting(boards, hang)
        await slow.submit(0, id="w")
        running = asyncio.create_task(work(slow))
        await starts.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await boards[0]._intakes.finished()
        await work(counting(boards))
        assert "end" == (await slow.result("w")).state

    run_virtual(main())


def test_reading_waits_for_other_readers() -> None:
    """Reading waits for records that another process holds, or held when it was killed."""

    async def main() -> None:
        boards: Boards = rxd.MemoryBoard("w"), rxd.MemoryBoard("w.journal", max_crashes=0)
        workflow = counting(boards)
        await workflow.submit(0, id="w")
        await work(workflow)
        assert 1 == len(await boards[1].claim(1, ids=["w/2"], lease=3.0))
        # The lease lapses; as no crash is allowed, the record is dead, and is redriven.
        assert 3 == len((await workflow.result("w")).history)
        some = await asyncio.gather(*(workflow.result("w") for _ in range(20)))
        assert [3] * 20 == [len(result.history) for result in some]

    run_virtual(main())


def test_waits_while_there_is_no_room() -> None:
    """A board that is unavailable or full delays the workflow, and costs no attempt."""

    class Full(rxd.MemoryBoard[Any]):
        refusals = 3

        async def submit(self, tasks: Any) -> rxd.SubmitResult:
            if self.refusals:
                self.refusals -= 1
                raise rxd.BoardFullError("w.journal")
            return await super().submit(tasks)

    async def main() -> None:
        boards: Boards = rxd.MemoryBoard("w"), Full("w.journal")
        workflow = counting(boards)
        await workflow.submit(0, id="w")
        (outcome,) = await work(workflow)
        assert ("done", 1) == (outcome.status, outcome.claim.attempt)

    run_virtual(main())


def test_lapsed_claim_records_nothing() -> None:
    """A worker whose lease has passed does not go on, and the workflow is not lost."""

    async def main() -> None:
        boards: Boards = rxd.MemoryBoard("w"), rxd.MemoryBoard("w.journal")

        async def stall(_: Any) -> rxd.Move:
            claim = rxd.current_claim()
            if claim.crashes == 0:
                claim._deadline = 0.0
            return rxd.Move("on", 1)

        workflow = counting(boards, stall)
        await workflow.submit(0, id="w")
        await asyncio.sleep(1)
        outcomes: list[Any] = []
        with workflow.worker(lease=30.0).subscribe(outcomes.append):
            await asyncio.sleep(1)
            assert 0 == (await boards[1].counts()).ready
            await asyncio.sleep(60)
        assert ["lost", "done"] == [outcome.status for outcome in outcomes]
        await boards[0]._intakes.finished()

    run_virtual(main())


async def test_killed_processes_record_each_transition_once(tmp_path: Path) -> None:
    """Workers are killed by SIGKILL at random; all workflows end, with each transition once."""
    path = str(tmp_path / "states")
    rng = random.Random(7)
    count = 30
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        workflow = machine(hub, path, "nobody")
        await asyncio.gather(*(workflow.submit([], id=f"w{n}") for n in range(count)))
        results = asyncio.gather(*(workflow.result(f"w{n}") for n in range(count)))
        workers: dict[str, subprocess.Popen[bytes]] = {}
        kills = 0
        try:
            # On a busy machine, the workflows may all end before the last kill.
            while kills <= 8 and not results.done():
                for label in ("a", "b"):
                    if label not in workers:
                        workers[label] = _start(server.target.safe, label, path)
                done = _lines(path)
                goal = rng.randrange(5, 30)
                while kills < 8 and _lines(path) < done + goal and not results.done():
                    await asyncio.sleep(0.001)
                for label in rng.choice([["a"], ["b"], ["a", "b"]]) if kills < 8 else ():
                    victim = workers.pop(label)
                    victim.kill()
                    victim.wait()
                kills += 1
            await results
        finally:
            for process in workers.values():
                process.kill()
                process.wait()
        for result in await results:
            chain = [(f"s{n}", f"s{n + 1}") for n in range(STATES)]
            assert chain == [(entry.source, entry.target) for entry in result.history]
            # The data matches the history, so no result of another process was mixed in.
            told = [f"{entry.source} {entry.result[3:]}" for entry in result.history]
            assert told == result.data
        assert count * STATES == (await hub.board("flows.journal").counts()).ready
        assert kills > 0
        # States run at least once, and only those of a killed process run again.
        assert count * STATES <= _lines(path) <= count * STATES + kills * 8 * 2


def _lines(path: str) -> int:
    return Path(path).read_text().count("\n") if Path(path).exists() else 0


def _start(url: str, label: str, path: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.pipelines.workflow.workflow_worker", url, label, path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
    )

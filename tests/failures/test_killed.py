"""Processes that are killed, stopped, or kill themselves."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import rxdispatch as rxd
from tests.failures.fleet import NOISE, Worker, eventually, orders, subscribed
from tests.servers import valkey_server

LEASE = 1.0


def sleeping(count: int, seconds: float, prefix: str = "t") -> list[rxd.Task[Any]]:
    """Return tasks that sleep for *seconds* in their first run, and not after a crash."""
    return [rxd.Task({"do": "sleep", "seconds": seconds}, id=f"{prefix}{i}") for i in range(count)]


async def test_killed_worker_is_replaced_and_each_task_settles_once(tmp_path: Path) -> None:
    """After SIGKILL of one of two workers, all tasks are done once, within the lease + 2 s."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        # As a worker runs four tasks at a time, each worker has at least two of the six long ones.
        tasks = [*sleeping(6, 4.0, "long"), *sleeping(60, 0.05)]
        ids = [task.id for task in tasks]
        async with subscribed(hub, board) as account:
            with (
                Worker(orders(server.target, "b", tmp_path, "a", lease=LEASE)) as a,
                Worker(orders(server.target, "b", tmp_path, "b", lease=LEASE)) as b,
            ):
                await eventually(lambda: a.entries("ready") and b.entries("ready"))
                await board.submit(tasks)
                await eventually(lambda: len([i for i in a.tasks("start") if "long" in i]) >= 2)
                a.signal(signal.SIGKILL)
                killed = time.monotonic()
                await board.join()
            await eventually(lambda: account.finished(ids))
            held = {e.task_id for e in account.events if e.kind == "claimed" and e.worker == "a"}
            lost = {e.task_id for e in account.events if e.kind == "crashed" and e.worker == "a"}
            assert len([i for i in lost if "long" in i]) >= 2
            assert lost <= held
            assert account.settled_once(ids)
            assert account.count("done") == Counter(ids)
            # The lease, and at most 2 s until a process sweeps.
            assert max(account.seen["crashed", i] for i in lost) - killed < LEASE + 2 + NOISE
            assert all(n == 1 for n in account.count("crashed").values())
            assert (await board.counts()).done == len(ids)


async def test_stopped_worker_loses_its_claims_and_learns_of_it(tmp_path: Path) -> None:
    """After a SIGSTOP past the lease, handlers are cancelled, outcomes lost, none settled twice."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        tasks = [
            rxd.Task({"do": do, "seconds": 60.0}, id=f"{do}{i}")
            for do in ("sleep", "stubborn")
            for i in range(2)
        ]
        ids = [task.id for task in tasks]
        async with subscribed(hub, board) as account:
            with Worker(orders(server.target, "b", tmp_path, "a", lease=0.6)) as a:
                await board.submit(tasks)
                await eventually(lambda: len(a.tasks("start")) == 4)
                a.signal(signal.SIGSTOP)
                with Worker(orders(server.target, "b", tmp_path, "b", lease=0.6)) as b:
                    # The other worker takes over the lapsed tasks.
                    await eventually(lambda: len(b.tasks("outcome", status="done")) == 4)
                    a.signal(signal.SIGCONT)
                    await eventually(lambda: len(a.tasks("outcome")) == 4)
                    # The first worker still works: it executes the next task.
                    b.signal(signal.SIGKILL)
                    await board.submit(rxd.Task({"do": "sleep", "seconds": 0.0}, id="next"))
                    await eventually(lambda: a.tasks("outcome", status="done") == ["next"])
                assert Counter(ids) == Counter(a.tasks("outcome", status="lost"))
                assert Counter(ids) == Counter(a.tasks("cancelled"))
                assert {"stubborn0", "stubborn1"} == set(a.tasks("end")) - {"next"}
                assert {e["task"] for e in a.logged("claim_lost")} <= set(ids)
                assert a.logged("event_loop_blocked")
            await eventually(lambda: account.finished([*ids, "next"]))
            assert account.settled_once([*ids, "next"])
            assert account.count("crashed") == Counter(ids)
            workers = {e.task_id: e.worker for e in account.events if e.kind == "done"}
            assert {**dict.fromkeys(ids, "b"), "next": "a"} == workers


async def test_late_settles_are_refused(tmp_path: Path) -> None:
    """Every settlement of a stopped worker for claims that have a new owner is refused."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        tasks = sleeping(8, 0.0)
        ids = [task.id for task in tasks]
        go = tmp_path / "go"
        async with subscribed(hub, board) as account:
            await board.submit(tasks)
            late = orders(server.target, "b", tmp_path, "a", flow="raw", lease=0.5, go=str(go))
            with Worker(late) as a:
                await eventually(lambda: a.entries("claimed"))
                a.signal(signal.SIGSTOP)
                # When the late settle comes, another owner has done six tasks and still holds two.
                taken: list[rxd.Claim[Any]] = []
                while len(taken) < 8:
                    taken += await board.claim(8, ids=ids, worker="b")
                    await asyncio.sleep(0.02)
                assert [True] * 6 == await board.settle([c.done() for c in taken[:6]])
                go.touch()
                a.signal(signal.SIGCONT)
                assert 0 == await a.ended()
                assert [True] * 8 == a.entries("lost")[0]["answers"]
                assert [False] * 8 == a.entries("settled")[0]["answers"]
                assert set(ids) == set(a.entries("renewed")[0]["lost"])
            assert [True] * 2 == await board.settle([c.done() for c in taken[6:]])
            await eventually(lambda: account.finished(ids))
            assert account.count("done") == Counter(ids)
            assert not account.count("dead", "retried", "released")


async def test_task_that_kills_its_process_dies(tmp_path: Path) -> None:
    """After ``max_crashes`` the task is dead, ``crashed``; the tasks behind it are done."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b", max_crashes=2)
        tasks = [rxd.Task({"do": "exit"}, id="poison", priority=1), *sleeping(5, 0.0)]
        async with subscribed(hub, board) as account:
            await board.submit(tasks)
            joined = asyncio.create_task(board.join())
            plan = orders(
                *(server.target, "b", tmp_path, "a"),
                lease=0.4,
                prefetch=1,
                concurrent=1,
                until="joined",
            )
            generations = 0
            starts: list[str] = []
            while not joined.done():
                generations += 1
                with Worker(plan) as worker:
                    status = await worker.ended()
                    assert status in {0, 3}
                    starts = worker.tasks("start")
                await asyncio.wait({joined}, timeout=0.05)
            await joined
            await eventually(lambda: account.finished(t.id for t in tasks))
            assert account.settled_once(task.id for task in tasks)
            assert {"poison": 1} == account.count("dead")
            assert {"poison": 3} == account.count("crashed")
            assert 3 == starts.count("poison")
            assert generations >= 3
        letters = [letter async for letter in board.dead_letters()]
        assert [("poison", "crashed", 0, 3)] == [
            (d.task.id, d.reason, d.attempts, d.crashes) for d in letters
        ]

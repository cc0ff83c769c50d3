"""Processes with parked workers that are killed, stopped or blocked, and tasks that do it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rxdispatch as rxd
from tests.failures.fleet import NOISE, ROOT, Worker, eventually, orders
from tests.failures.handed import DELIVERY_LEASE, Field, field


def task(name: str, do: str = "sleep", seconds: float = 0.0) -> rxd.Task[Any]:
    """Return a task for a worker process."""
    return rxd.Task({"do": do, "seconds": seconds}, id=name)


def worker(all_: Field, folder: Path, name: str, **more: Any) -> Worker:
    """Start a worker process with leases of 30 s."""
    more = {"lease": 30.0, **more}
    return Worker(orders(all_.server.target, "b", folder, name, **more))


async def parked(all_: Field, count: int) -> None:
    """Wait until so many workers are parked."""

    async def enough() -> bool:
        return await all_.parked() == count

    await eventually(enough)


@contextmanager
def host(all_: Field, count: int, path: Path) -> Generator[subprocess.Popen[bytes]]:
    """Run a process with *count* workers."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "tests.failures.host"),
            *(all_.server.target.safe, "b", str(count), str(path)),
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def started(path: Path) -> list[str]:
    """Return the ids of the tasks that a host has started."""
    return path.read_text().split() if path.exists() else []


async def test_blocking_task_runs_once(tmp_path: Path) -> None:
    """A handler that blocks its loop for twice the delivery lease has confirmed its task before."""
    async with field() as all_:
        # The first task of all: the server does not have the script that confirms.
        with worker(all_, tmp_path, "a") as a:
            await parked(all_, 1)
            await all_.board.submit(task("t", "block", 2 * DELIVERY_LEASE))
            await eventually(lambda: a.tasks("start"))
            async with all_.hand(name="b"):
                await all_.all_done(["t"])
            assert ["t"] == a.tasks("start")
        assert {} == all_.runs()
        assert all_.uncounted()
        assert not all_.account.count("undelivered")


async def test_killed_worker_gets_nothing_more(tmp_path: Path) -> None:
    """Nobody listens to a killed worker: its share goes to the others without a delay."""
    ids = [f"t{i}" for i in range(40)]
    async with field(max_crashes=0) as all_, all_.hand(name="b") as b:
        with worker(all_, tmp_path, "a") as a:
            await parked(all_, 2)
            a.signal(signal.SIGKILL)
            await all_.board.submit([task(i) for i in ids])
            # Its connection ends with it, so that the server knows at the next publishing.
            assert await all_.all_done(ids) < DELIVERY_LEASE
            assert [] == a.tasks("start")
        assert Counter(ids) == Counter(b.ended)
        assert all_.uncounted()


async def test_worker_killed_with_unread_deliveries(tmp_path: Path) -> None:
    """Its tasks lapse once without a count, and are late by the delivery lease + 2 s at most."""
    ids = [f"t{i}" for i in range(4)]
    async with field(max_crashes=0) as all_:
        with worker(all_, tmp_path, "a") as a:
            await parked(all_, 1)
            a.signal(signal.SIGSTOP)
            await all_.board.submit([task(i) for i in ids])
            await eventually(lambda: set(ids) <= all_.account.count("claimed").keys())
            async with all_.hand(name="b") as b:
                a.signal(signal.SIGKILL)
                assert await all_.all_done(ids) < DELIVERY_LEASE + 2 + NOISE
                assert Counter(ids) == Counter(b.ended)
            assert [] == a.tasks("start")
        assert Counter(ids) == all_.account.count("undelivered")
        assert all_.uncounted()


async def test_stopped_worker_starts_nothing_that_has_lapsed(tmp_path: Path) -> None:
    """It reads its deliveries when it goes on, asks before it starts them, and works on."""
    ids = [f"t{i}" for i in range(4)]
    async with field(max_crashes=0) as all_:
        with worker(all_, tmp_path, "a") as a:
            await parked(all_, 1)
            a.signal(signal.SIGSTOP)
            await all_.board.submit([task(i) for i in ids])
            async with all_.hand(name="b") as b:
                assert await all_.all_done(ids) < DELIVERY_LEASE + 2 + NOISE
                assert Counter(ids) == Counter(b.ended)
                a.signal(signal.SIGCONT)
                await b.stop()
                await all_.board.submit([task(f"more{i}") for i in range(40)])
                await eventually(lambda: all_.account.finished(f"more{i}" for i in range(40)))
            assert {f"more{i}" for i in range(40)} == set(a.tasks("start"))
        assert Counter(ids) == all_.account.count("undelivered")
        assert all_.uncounted()


async def test_worker_stopped_for_a_moment_keeps_its_tasks(tmp_path: Path) -> None:
    """A stop that is shorter than the delivery lease costs its own time, and nothing else."""
    async with field(max_crashes=0) as all_:
        with worker(all_, tmp_path, "a") as a:
            await parked(all_, 1)
            for n in range(10):
                a.signal(signal.SIGSTOP)
                await all_.board.submit([task(f"{n}-{i}") for i in range(3)])
                a.signal(signal.SIGCONT)
                ids = [f"{n}-{i}" for i in range(3)]
                await eventually(lambda: all_.account.finished(ids))  # noqa: B023
            assert max(Counter(a.tasks("start")).values()) == 1
        assert all_.uncounted()
        assert not all_.account.count("undelivered")


async def test_all_workers_of_a_host_die_at_once(tmp_path: Path) -> None:
    """Twenty are stopped, get tasks and are killed; none of these is late, or has a crash."""
    ids = [f"t{i}" for i in range(100)]
    path = tmp_path / "started"
    async with field(max_crashes=0) as all_, all_.hand(name="lives", lease=30.0) as lives:
        with host(all_, 20, path) as process:
            await parked(all_, 21)
            process.send_signal(signal.SIGSTOP)
            # Several submits, so that many of them get something.
            for at in range(0, 100, 5):
                await all_.board.submit([task(i) for i in ids[at : at + 5]])
            process.kill()
            assert await all_.all_done(ids) < DELIVERY_LEASE + 2 + NOISE
        assert [] == started(path)
        assert Counter(ids) == Counter(lives.ended)
        assert len(all_.account.count("undelivered")) > 20
        assert set(all_.account.count("undelivered").values()) == {1}
        assert all_.uncounted()


async def test_running_workers_of_a_host_die_at_once(tmp_path: Path) -> None:
    """Twenty are killed while tasks flow; what comes next is not late, and has no crash."""
    path = tmp_path / "started"
    async with field() as all_, all_.hand(name="lives", lease=30.0):
        with host(all_, 20, path) as process:
            await parked(all_, 21)
            submitted = 0
            while len(started(path)) < 100:
                await all_.board.submit([task(f"t{submitted + i}") for i in range(5)])
                submitted += 5
            process.kill()
            process.wait()
            before = submitted
            for _ in range(20):
                await all_.board.submit([task(f"t{submitted + i}") for i in range(5)])
                submitted += 5
            # What was running, or about to run, has a lease of 30 s.
            fresh = {f"t{i}" for i in range(before, submitted)}
            late = await eventually(lambda: all_.account.finished(fresh))
            assert late < DELIVERY_LEASE + 2 + NOISE
            unfinished = {f"t{i}" for i in range(before)} - all_.account.count("done").keys()
            assert len(unfinished) <= 20 * 4
        assert not all_.account.count("crashed", "retried", "dead")


async def test_task_that_kills_its_worker_on_arrival(tmp_path: Path) -> None:
    """It is dead after ``max_crashes`` and one worker more at most; those beside it are done."""
    others = [f"t{i}" for i in range(7)]
    async with field(max_crashes=2) as all_:
        joined: asyncio.Task[None] | None = None
        names = iter(range(1000))
        fleet: list[Worker] = []

        def victims() -> list[Worker]:
            return [each for each in fleet if each.process.poll() == 3]

        try:
            while joined is None or not joined.done():
                alive = [each for each in fleet if each.process.poll() is None]
                fleet += [
                    worker(all_, tmp_path, f"w{next(names)}", lease=1.0)
                    for _ in range(2 - len(alive))
                ]
                if joined is None:
                    await parked(all_, 2)
                    await all_.board.submit([task("poison", "exit"), *map(task, others)])
                    joined = asyncio.create_task(all_.board.join())
                await asyncio.wait({joined}, timeout=0.05)
            await all_.all_done(["poison", *others])
            starts = [i for each in fleet for i in each.tasks("start")]
            assert 3 <= starts.count("poison") == len(victims()) <= 4
        finally:
            for each in fleet:
                each.process.kill()
                each.process.wait()
        assert {"poison": 1} == all_.account.count("dead")
        assert 3 == all_.account.count("crashed")["poison"]
        # What has crashed twice runs alone.
        assert max(all_.account.count("crashed").get(i, 0) for i in others) <= 2

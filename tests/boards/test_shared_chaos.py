"""Processes that submit, claim, settle and die at random moments leave the board intact."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

import pytest

from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.boards.shm.storage import layout
from rxdispatch.claim import Settlement
from rxdispatch.errors import BoardFullError
from rxdispatch.task import Task
from tests.boards.shared_writes import states


async def toil(name: str, log: int, seed: int) -> None:
    """Submit, claim and settle without end, and log each task that is done."""
    board = SharedMemoryBoard[Any].attach(name)
    chance = random.Random(seed)
    for n in range(10**9):
        if chance.random() < 0.3:
            tasks = [
                Task(
                    "x" * chance.choice((1, 300)),
                    id=f"{seed}-{n}-{i}",
                    max_attempts=10**6,
                    kind=chance.choice(("default", "a", "b")),
                )
                for i in range(chance.randint(1, 8))
            ]
            # On a quick machine, tasks whose claims were dropped pile up until their leases lapse.
            with suppress(BoardFullError):
                await board.submit(tasks)
        settlements: list[Settlement] = []
        kinds = chance.choice((None, None, ["a"], ["default", "b"]))
        for claim in await board.claim(chance.randint(1, 12), kinds=kinds, lease=0.2):
            assert kinds is None or claim.task.kind in kinds
            draw = chance.random()
            if draw < 0.6:
                settlements.append(claim.done())
            elif draw < 0.8:
                settlements.append(claim.retry("e" * chance.choice((1, 300))))
            elif draw < 0.95:
                settlements.append(claim.release())
        answers = await board.settle(settlements)
        for settlement, held in zip(settlements, answers, strict=True):
            if held and settlement.kind == "done":
                os.write(log, f"{settlement.claim.task.id}\n".encode())


def child(name: str, log: int, seed: int) -> int:
    """Start a process that runs ``toil``."""
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(toil(name, log, seed))
        except BaseException:
            # Otherwise the parent learns only that the child has failed.
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(1)
    return pid


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_random_deaths(how: signal.Signals, tmp_path: Any) -> None:
    """No task is done twice, all tasks end, and no cell is lost."""
    seconds = float(os.environ.get("RXDISPATCH_CHAOS", "4"))
    name = f"chaos-{os.getpid()}-{how}"
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    chance, ends, deaths, seed = random.Random(1), time.monotonic() + seconds, 0, 0
    with SharedMemoryBoard[Any].create(name, capacity=3000, max_crashes=10**6) as board:
        pids: list[int] = []
        try:
            while time.monotonic() < ends:
                while len(pids) < 4:
                    seed += 1
                    pids.append(child(name, log, seed))
                time.sleep(chance.random() * 0.03)
                pid = pids.pop(chance.randrange(len(pids)))
                os.kill(pid, how)
                if how == signal.SIGSTOP:
                    time.sleep(chance.random() * 0.5)
                    os.kill(pid, signal.SIGCONT)
                    time.sleep(chance.random() * 0.02)
                    os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
                # A child that ended without the signal has failed.
                assert os.WIFSIGNALED(status)
                deaths += 1
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            board.unlink()

        async def drain() -> None:
            # The next submit clears what a dead submitter had not completed.
            await board.submit(Task(0, id="last"))
            for _ in range(8):
                board._shared.skew(30.0)
                while claims := await board.claim(500, lease=20.0):
                    assert all(await board.settle([claim.done() for claim in claims]))
            counts = await board.counts()
            assert (0, 0, 0, 0) == (counts.scheduled, counts.ready, counts.claimed, counts.dead)
            assert counts.done == board._shared.mapping.load(layout.STAGED_ACCEPTED)

        asyncio.run(drain())
        done = (tmp_path / "log").read_text().split()
        assert len(done) == len(set(done))
        assert {layout.FREE: board._shared.mapping.geometry.cells} == states(board), states(board)
        assert deaths > 3
    os.close(log)

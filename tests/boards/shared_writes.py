"""Processes that end or stop at a chosen write to shared memory, and what must hold afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from rxdispatch.boards.engine import Options
from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.boards.shm.engine import SharedEngine
from rxdispatch.boards.shm.local import ring_walk
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.mapping import Mapping
from rxdispatch.task import Task

__all__ = ["SCENES", "check", "check_empty", "fell", "prepare", "states", "stopped"]

F = TypeVar("F", bound=Callable[..., Any])
Board = SharedMemoryBoard[Any]
Scene = Callable[[Board], Coroutine[Any, Any, Any]]


class Stepped(Mapping):
    """Counts the writes of this process, and kills or stops it at a chosen one."""

    left = -2
    how = signal.SIGKILL
    writes = 0

    def step(self, write: F) -> F:
        """Return *write* with a counter, which stops the process before the chosen write."""

        def counted(*args: Any) -> Any:
            Stepped.writes += 1
            if Stepped.writes == Stepped.left + 1:
                os.kill(os.getpid(), Stepped.how)
            return write(*args)

        return counted  # type: ignore[return-value]


def opened(name: str) -> Board:
    """Attach to a board through a memory that counts writes."""
    return Board(name, SharedEngine(name, Stepped.attach(name), Options()), None)


async def submit(board: Board) -> None:
    """Submit plain, long, scheduled and prior tasks, and a duplicate."""
    await board.submit(
        [
            Task("plain", id="n1"),
            Task("x" * 500, id="n2", kind="new"),
            Task(0, id="n3", delay=30.0),
            Task(0, id="n4", priority=5, ttl=3000.0),
            Task(0, id="a"),
        ]
    )


async def claim(board: Board) -> None:
    """Claim some tasks, and one by its id."""
    await board.claim(3, lease=50.0)
    await board.claim(1, ids=["d"], lease=50.0)


async def renew(board: Board) -> None:
    """Claim some tasks, and renew their leases."""
    claims = await board.claim(2, lease=50.0)
    await board.renew(claims, 60.0)


async def done(board: Board) -> None:
    """Finish some tasks, with tails and without."""
    claims = await board.claim(5, lease=50.0)
    await board.settle([claim.done() for claim in claims])


async def settle(board: Board) -> None:
    """Settle in all other ways, with errors that need tails."""
    claims = await board.claim(5, lease=50.0)
    error = "e" * 400
    await board.settle(
        [
            claims[0].retry(error),
            claims[1].retry(error, 20.0),
            claims[2].release(),
            claims[3].release(20.0),
            claims[4].dead("unfit", error),
        ]
    )


async def cancel(board: Board) -> None:
    """Cancel a ready task, one with tails, and a claimed one."""
    await board.claim(1, lease=50.0)
    await board.cancel(["a", "b", "c"])


async def redrive(board: Board) -> None:
    """Redrive tasks that died with an error."""
    await board.redrive()


async def crash(board: Board) -> None:
    """Let leases lapse, so that tasks become ready again and one dies."""
    board._shared.skew(100.0)
    await board.claim(0)
    board._shared.skew(100.0)
    await board.claim(2, lease=50.0)


async def discard(board: Board) -> None:
    """Let more tasks die than the board keeps."""
    claims = await board.claim(4, lease=50.0)
    await board.settle([claim.dead("unfit", "e" * 300) for claim in claims])


async def kinds(board: Board) -> None:
    """Claim tasks of a kind from the middle of the ring, and give a new kind its number."""
    await board.claim(1, kinds=["k"], lease=50.0)
    await board.claim(9, kinds=["k", "none"], lease=50.0)
    board._shared._cells.kinds.registered("new")


async def crowd(board: Board) -> None:
    """Claim a task of a kind from a ring that counts as crowded, so that all tasks leave it."""
    ring_walk._CROWDED = 0.0
    await board.claim(1, kinds=["k"], lease=50.0)


async def pause(board: Board) -> None:
    """Pause a kind that the board has, one that it has not, and all; then resume them."""
    for kind in ("k", "new", None):
        await board.pause(kind=kind)
    await board.claim(9, lease=50.0)
    for kind in ("k", "new", None):
        await board.resume(kind=kind)


SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (
        submit,
        claim,
        renew,
        done,
        settle,
        cancel,
        redrive,
        crash,
        discard,
        kinds,
        crowd,
        pause,
    )
}


def fell(name: str, scene: str, writes: int) -> bool:
    """Play a scene in a child, killed after *writes* writes; return whether it got that far."""
    _, status = os.waitpid(_play(name, scene, writes, signal.SIGKILL), 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 7
    return os.WIFSIGNALED(status)


def stopped(name: str, scene: str, writes: int) -> int:
    """Play a scene in a child, stopped after *writes* writes; return its pid, or 0 if it ended."""
    child = _play(name, scene, writes, signal.SIGSTOP)
    _, status = os.waitpid(child, os.WUNTRACED)
    return child if os.WIFSTOPPED(status) else 0


def _play(name: str, scene: str, writes: int, how: signal.Signals) -> int:
    child = os.fork()
    if child == 0:
        try:
            board = opened(name)
            Stepped.left, Stepped.how, Stepped.writes = writes, how, 0
            asyncio.run(SCENES[scene](board))
        finally:
            os._exit(7)
    return child


async def prepare(board: Board) -> None:
    """Submit some tasks of each kind, for the scenes to act on."""
    await board.submit(
        [
            Task("1", id="a"),
            Task("y" * 600, id="b"),
            *(Task(0, id=i, kind="k" if i in "ce" else "default") for i in "cdef"),
            Task(0, id="dead1"),
            Task("z" * 400, id="dead2"),
        ]
    )
    claims = await board.claim(2, ids=["dead1", "dead2"])
    await board.settle([claim.dead("unfit", "e" * 300) for claim in claims])
    # One more crash kills this task.
    worn = await board.claim(1, ids=["f"], lease=10.0)
    board._shared.skew(20.0)
    assert 1 == len(worn)
    await board.claim(0)


def states(board: Board) -> dict[int, int]:
    """Return how many cells have each state."""
    geometry = board._shared.mapping.geometry
    base = geometry.marks >> 3
    found: dict[int, int] = {}
    for mark in board._shared.mapping.words[base : base + geometry.cells].tolist():
        found[mark >> layout.STATE_SHIFT] = found.get(mark >> layout.STATE_SHIFT, 0) + 1
    return found


async def check(board: Board, *, cleaned: bool = True) -> None:
    """Check that every task is in one place, can be finished once, and leaves nothing behind."""
    for kind in ("k", "new", None):
        await board.resume(kind=kind)
    await board.claim(0)
    board._shared.skew(2.0)  # so that the next claim scans all marks
    await board.claim(0)
    ids = [*"abcdef", "dead1", "dead2", "n1", "n2", "n3", "n4"]
    counts = await board.counts()
    known: dict[str, Any] = {i: await board.get(i) for i in ids}
    tally: dict[str, int] = {}
    for state in known.values():
        if state is not None:
            tally[state.status.value] = tally.get(state.status.value, 0) + 1
    expected = {
        "SCHEDULED": counts.scheduled,
        "READY": counts.ready,
        "CLAIMED": counts.claimed,
        "DEAD": counts.dead,
    }
    assert {k: v for k, v in expected.items() if v} == tally, (counts, known)
    new = [known[i] is not None for i in ("n1", "n2", "n3", "n4")]
    assert all(new) or not any(new)
    letters = [letter.task.id async for letter in board.dead_letters()]
    assert len(letters) == len(set(letters)) == counts.dead
    await board.redrive()
    left = {i for i, state in known.items() if state is not None}
    finished: set[str] = set()
    before = (await board.counts()).done
    for _ in range(6):
        board._shared.skew(5000.0)
        claims = await board.claim(100, lease=4000.0)
        for claim in claims:
            assert claim.task.id not in finished
        answers = await board.settle([claim.done() for claim in claims])
        assert all(answers)
        finished |= {claim.task.id for claim in claims}
        # By now, tasks that outlived their ttl or crashed too often are dead.
        await board.redrive()
    assert left == finished
    after = await board.counts()
    assert (0, 0, 0, 0) == (after.scheduled, after.ready, after.claimed, after.dead)
    assert before + len(left) == after.done
    await board.submit([Task(0, id=i) for i in ids])
    claims = await board.claim(100)
    assert sorted(ids) == sorted(claim.task.id for claim in claims)
    await board.settle([claim.done() for claim in claims])
    board._shared.skew(2.0)
    await board.claim(0)
    if cleaned:
        geometry = board._shared.mapping.geometry
        assert {layout.FREE: geometry.cells} == states(board), states(board)


async def check_empty(board: Board) -> None:
    """Check that no task has come back, and that all cells are free."""
    for _ in range(2):
        board._shared.skew(2.0)
        await board.claim(0)
    counts = await board.counts()
    assert (0, 0, 0, 0) == (counts.scheduled, counts.ready, counts.claimed, counts.dead)
    assert {layout.FREE: board._shared.mapping.geometry.cells} == states(board), states(board)

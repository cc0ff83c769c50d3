"""A process that is killed, or stopped forever, at any write leaves the board intact."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import count
from typing import Any

import pytest

from rxdispatch.boards.shm.board import SharedMemoryBoard
from tests.boards.shared_writes import SCENES, check, check_empty, fell, prepare, stopped

_names = count()


def play(scene: str, writes: int) -> bool:
    """Prepare a board, let a child die on it, and check it; return whether the child died."""
    name = f"deaths-{os.getpid()}-{next(_names)}"
    limit = 3 if scene == "discard" else None
    with SharedMemoryBoard[Any].create(name, capacity=60, max_crashes=1, dead_limit=limit) as board:
        try:
            with asyncio.Runner() as runner:
                runner.run(prepare(board))
                ended = fell(name, scene, writes)
                runner.run(check(board))
            return ended
        finally:
            board.unlink()


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_any_write(scene: str) -> None:
    """The kill comes before each write of each scene once."""
    writes = 0
    while play(scene, writes):
        writes += 1
    assert writes > 5


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene != "submit"])
def test_stopped_for_ever_at_any_write(scene: str) -> None:
    """
    Other processes go on without waiting; when the stopped one resumes, it changes nothing.

    A process that stops while it holds the submit lock blocks submitters, so the test has no
    scene that submits.
    """
    writes = 0
    while rest(scene, writes):
        writes += 1
    assert writes > 5


def rest(scene: str, writes: int) -> bool:
    """Prepare a board, stop a child on it, check it, resume the child, and check again."""
    name = f"deaths-{os.getpid()}-{next(_names)}"
    with SharedMemoryBoard[Any].create(name, capacity=60, max_crashes=1) as board:
        child = 0
        try:
            with asyncio.Runner() as runner:
                runner.run(prepare(board))
                child = stopped(name, scene, writes)
                if not child:
                    return False
                runner.run(check(board, cleaned=False))
                os.kill(child, signal.SIGCONT)
                os.waitpid(child, 0)
                child = 0
                board._shared.skew(200.0)
                runner.run(check_empty(board))
            return True
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
            board.unlink()

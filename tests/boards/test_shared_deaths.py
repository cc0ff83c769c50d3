"""A process that is killed, or stopped for ever, at any write leaves the board whole."""

from __future__ import annotations

import asyncio
import os
import signal
from itertools import count

import pytest

from rxdispatch.boards.shared import SharedMemoryBoard
from tests.boards.shared_writes import SCENES, check, fell, prepare

_names = count()


def play(scene: str, writes: int, how: signal.Signals) -> bool:
    """Prepare a board, let a child end on it, and check; False if the child came through."""
    name = f"deaths-{os.getpid()}-{next(_names)}"
    limit = 3 if scene == "discard" else None
    with SharedMemoryBoard.create(name, capacity=60, max_crashes=1, dead_limit=limit) as board:
        try:
            with asyncio.Runner() as runner:
                runner.run(prepare(board))
                ended = fell(name, scene, writes, how)
                runner.run(check(board))
            return ended
        finally:
            board.unlink()


@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_any_write(scene: str) -> None:
    """Each write of each step in turn is the one that is not made."""
    writes = 0
    while play(scene, writes, signal.SIGKILL):
        writes += 1
    assert writes > 5


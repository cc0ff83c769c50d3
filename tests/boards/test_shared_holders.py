"""The label of a worker in shared memory may be overwritten while another process reads it."""

from __future__ import annotations

import os
from typing import Any

from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.boards.shm.storage import layout
from rxdispatch.task import Task


async def test_a_label_that_is_cut_within_a_character() -> None:
    """The state of the task is returned nevertheless."""
    with SharedMemoryBoard[Any].create(f"holders-{os.getpid()}", capacity=100) as board:
        board.unlink()
        await board.submit(Task(1, id="a"))
        (claim,) = await board.claim(1, worker="aé")
        mapping = board._shared._mapping
        at = mapping.geometry.labels + mapping.seat * layout.LABELS * layout.LABEL
        assert b"\x03\x00a\xc3\xa9" == mapping.mmap[at : at + 5]
        mapping.put(at, b"\x02\x00")
        state = await board.get("a")
        assert state is not None
        assert "a\ufffd" == state.worker
        assert await board.settle(claim.done()) == [True]

"""Two processes that redrive all dead tasks of a shared-memory board at once leave none behind."""

from __future__ import annotations

import os
from typing import Any

import pytest

from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.task import Task

Board = SharedMemoryBoard[Any]


async def test_letters_that_another_process_redrives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call goes on until no dead task is left, whatever others take from it meanwhile."""
    with (
        Board.create(f"redrive-{os.getpid()}", capacity=5000) as board,
        Board.attach(board.name) as other,
    ):
        board.unlink()
        await board.submit(Task(n, id=str(n)) for n in range(2500))
        await board.cancel(str(n) for n in range(2500))
        letters, others = board._shared._dead_letters, other._shared._dead_letters
        found = letters.all

        def contested() -> list[tuple[int, int, int]]:
            """Return the letters; the other process redrives three of them right away."""
            known = found()
            for _, cell, mark in known[:3]:
                assert others.revive(cell, mark, 1) is not None
            return known

        monkeypatch.setattr(letters, "all", contested)
        assert 2500 - 3 * 3 == await board.redrive()
        counts = await board.counts()
        assert (2500, 0) == (counts.ready, counts.dead)

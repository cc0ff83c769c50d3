"""Streams of claims that were made but never run are reported, and no others."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops


def never(logs: list[Any]) -> list[Any]:
    """Return the matching log entries after a garbage collection."""
    gc.collect()
    return [entry for entry in logs if entry["event"] == "claims_never_subscribed"]


def work(task: rxd.Task[Any]) -> None:
    """Take a task."""
    assert task.id


@pytest.mark.parametrize("composed", [False, True])
async def test_a_forgotten_run(composed: bool) -> None:
    """The log entry has the board and the line, with or without operators behind the stream."""
    board: rxd.MemoryBoard[Any] = rxd.MemoryBoard("jobs")
    with capture_logs() as logs:
        if composed:
            board.claims().pipe(ops.execute(work), ops.settle(board))
        else:
            board.claims(until="joined")
        (entry,) = never(logs)
    assert ("warning", "jobs") == (entry["log_level"], entry["board"])
    path, _, line = entry["made_at"].rpartition(":")
    assert __file__ == path
    assert 0 < int(line)


async def test_streams_that_run() -> None:
    """Streams that run alone, combined, merged or repeatedly are not reported."""
    board: rxd.MemoryBoard[Any] = rxd.MemoryBoard("jobs")
    with capture_logs() as logs:
        board.claims().subscribe(print).dispose()
        claims = board.claims(until="joined")
        stream = claims.pipe(ops.execute(work), ops.settle(board))
        for _ in range(2):
            await rxd.run(stream)
        del claims, stream
        await rxd.run(reactivex.merge(board.claims(until="idle"), board.claims(until="idle")))
        await rxd.run(reactivex.empty().pipe(rx.concat(board.claims(until="idle"))))
        assert [] == never(logs)


async def test_what_is_refused() -> None:
    """A stream whose arguments are refused is not reported."""
    board: rxd.MemoryBoard[Any] = rxd.MemoryBoard("jobs")
    with capture_logs() as logs:
        with pytest.raises(rxd.ConfigError):
            board.claims(prefetch=0)
        assert [] == never(logs)


def test_the_end_of_the_interpreter() -> None:
    """Streams that a module keeps until its end are not reported."""
    script = (
        "import rxdispatch as rxd\n"
        "board = rxd.MemoryBoard('jobs')\n"
        "kept = board.claims()\n"
        "ring = [board.claims()]\n"
        "ring.append(ring)\n"
        "rxd.MemoryBoard('gone').claims()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert 1 == ended.stderr.count("claims_never_subscribed")
    assert "board=gone" in ended.stderr


def test_outside_of_a_loop() -> None:
    """A stream may be made before the loop runs."""
    board: rxd.MemoryBoard[Any] = rxd.MemoryBoard("jobs")
    stream = board.claims(until="joined")

    async def main() -> None:
        await rxd.run(stream)

    with capture_logs() as logs:
        asyncio.run(main())
        assert [] == never(logs)

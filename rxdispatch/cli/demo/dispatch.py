"""``dispatch``: the demo's pipeline, from submit to report."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs
from reactivex import operators as rx

from rxdispatch import operators as ops
from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import Board
from rxdispatch.cli.demo.ledger import Ledger
from rxdispatch.cli.demo.parse import count_file
from rxdispatch.cli.demo.progress import Progress
from rxdispatch.cli.demo.report import Report
from rxdispatch.cli.demo.tally import Tally
from rxdispatch.cli.demo.tree import Tree
from rxdispatch.cli.demo.workers import Workers
from rxdispatch.cli.interrupts import Interrupts
from rxdispatch.errors import ItemTimeoutError, StoreUnavailableError
from rxdispatch.streams import run
from rxdispatch.task import Task

__all__ = ["REMEMBER", "Job", "dispatch"]

LEASE: Final = 3.0
"""The lease in seconds; the next run waits that long for the tasks of a killed run."""

REMEMBER: Final = 7 * 86400.0
"""Seconds for which a kept board remembers the ids of done files."""

TRIES: Final = 3
BACKOFF: Final = Backoff(first=0.2, maximum=1.0)
LOOK: Final = 0.1
"""Seconds between two readings of the board for the progress bar."""


@attrs.frozen
class Job:
    """
    The settings of a run.

    Args:
        board: The name of the board, under which the ledger keeps the counts.
        tree: The files.
        ledger: The ledger, to read the counts.
        ledger_path: The path of the ledger, for the worker processes, which write the counts.
        workers: The number of worker processes.
        clear: Whether to remove the tasks and dead letters from the server at the end.
    """

    board: str
    tree: Tree
    ledger: Ledger
    ledger_path: Path
    workers: int
    clear: bool


async def dispatch(
    board: Board[bytes], job: Job, interrupts: Interrupts, progress: Progress
) -> Report:
    """
    Submit every file, run the tasks that are not done, and report on all files.

    Raises:
        StoreUnavailableError: If the server does not answer.
    """
    files = job.tree.files
    # Each run submits all files. A file that an earlier run has done or still holds is a duplicate.
    await board.submit(Task(path, id=name, max_attempts=TRIES) for name, path in files.items())
    counts = await board.counts()
    left = counts.scheduled + counts.ready + counts.claimed
    before = max(0, len(files) - left)
    tally = Tally()
    if left and interrupts.first is None:
        if before:
            progress.say(f"Continuing an earlier run: {before:,} files are done.")
        tally = await _pipeline(board, job, interrupts, progress, before)
    report = Report.of(
        job.tree,
        job.ledger.counts(job.board),
        [letter async for letter in board.dead_letters()],
        before=before,
        tally=tally,
        workers=job.workers,
        interrupted=interrupts.first is not None,
    )
    if job.clear:
        await _clear(board, list(files))
    return report


async def _pipeline(
    board: Board[bytes], job: Job, interrupts: Interrupts, progress: Progress, before: int
) -> Tally:
    with Workers(job.workers) as workers:
        await workers.ready()
        tally = Tally()
        handler = functools.partial(count_file, str(job.ledger_path), job.board)
        with _shown(board, progress, tally, len(job.tree.files), before):
            try:
                await run(
                    board.claims(until="joined", lease=LEASE).pipe(
                        interrupts.switch.gate(),
                        ops.execute(
                            handler,
                            executor=workers.pool,
                            max_concurrent=2 * job.workers,
                            backoff=BACKOFF,
                        ),
                        ops.settle(board),
                        ops.dead_letter(job.ledger_path.with_name("dead.jsonl")),
                        rx.do_action(tally.count),
                    )
                )
            except ItemTimeoutError:
                # Only the switch raises this error here: a task did not end within the grace.
                workers.kill()
                progress.say("Gave up on tasks that did not end in time; they are given back.")
        progress.show(await board.counts(), tally, last=True)
    return tally


@contextmanager
def _shown(
    board: Board[bytes], progress: Progress, tally: Tally, total: int, before: int
) -> Generator[None]:
    """Show progress while the block runs."""

    async def look() -> None:
        while True:
            try:
                progress.show(await board.counts(), tally)
            except StoreUnavailableError:
                pass  # the pipeline waits for the server too, and logs the failure
            await asyncio.sleep(LOOK)

    progress.begin(total, before)
    looking = asyncio.get_running_loop().create_task(look())
    try:
        yield
    finally:
        looking.cancel()


async def _clear(board: Board[Any], ids: list[str]) -> None:
    """Remove tasks and dead letters from the user's server: no later run could find them."""
    await board.cancel(ids)
    await board.redrive()
    while claims := await board.claim(1000):
        await board.settle([claim.done() for claim in claims])

"""``rxdispatch worker``: runs a handler for the tasks of a board."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import click

from rxdispatch.boards.base import Board
from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.checks import board_name
from rxdispatch.claim import Outcome
from rxdispatch.cli.exits import exit_codes
from rxdispatch.cli.interrupts import Interrupts
from rxdispatch.cli.leaving import leave, own_executor
from rxdispatch.cli.url_option import url_option
from rxdispatch.cli.worker.import_path import add_import_path
from rxdispatch.cli.worker.log import log_to_stderr, print_outcome
from rxdispatch.cli.worker.run import OutcomeCounts, Work, work
from rxdispatch.cli.worker.stage import work_stage
from rxdispatch.cli.worker.target import handler_of, pipeline_of
from rxdispatch.config import Settings
from rxdispatch.errors import ConfigError
from rxdispatch.hub import Hub, connect
from rxdispatch.pipelines.stages.pipeline import Pipeline
from rxdispatch.seconds import seconds
from rxdispatch.store.url import parse_url

__all__ = ["worker"]

Place = AbstractAsyncContextManager[Board[Any]]
#: Takes the signal handlers, an event that the first signal sets, and the counts of outcomes.
#: Returns False if work did not end in time.
Runner = Callable[[Interrupts, asyncio.Event, OutcomeCounts], Awaitable[bool]]


@click.command()
@click.argument("handler", metavar="MODULE:HANDLER")
@click.option("--board", metavar="NAME", help="The board on the server.")
@click.option(
    "--shm", metavar="NAME", help="A board in shared memory, instead of --board and --url."
)
@click.option(
    "--stage",
    metavar="NAME",
    help="A stage with a board, in the pipeline MODULE:HANDLER; instead of --board.",
)
@url_option("Server with the board: redis://, rediss:// or unix://")
@click.option(
    "--namespace", default="rxd", show_default=True, metavar="NAME", help="Prefix of the keys."
)
@click.option("--max-tasks", type=int, metavar="N", help="End after N tasks; not with --stage.")
@click.option(
    "--max-concurrent",
    type=int,
    metavar="N",
    help="Tasks that run at once; a stage has its own number.  [default: 16]",
)
@click.option(
    "--lease",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="Time after which the tasks of a dead worker run elsewhere.",
)
@click.option(
    "--grace",
    type=float,
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Time that running tasks get after the first signal.",
)
@click.option(
    "--app-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of MODULE, searched first.  [default: the current directory, searched last]",
)
@click.option("-v", "--verbose", is_flag=True, help="Print the outcome of each task.")
def worker(
    *,
    handler: str,
    board: str | None,
    shm: str | None,
    stage: str | None,
    url: str | None,
    namespace: str,
    max_tasks: int | None,
    max_concurrent: int | None,
    lease: float,
    grace: float,
    app_dir: Path | None,
    verbose: bool,
) -> None:
    """
    Run HANDLER of MODULE for each task of a board, until Ctrl-C or SIGTERM.

    A coroutine function runs on the loop, a plain function in threads. At the first signal, the
    worker finishes running tasks and gives the others back; a second signal aborts it. To use more
    processors, start several workers.

    With --stage, HANDLER is a pipeline. The worker runs that stage, and the stages after it up to
    the next stage with a board.
    """
    with exit_codes():
        if (board is None) + (shm is None) + (stage is None) != 2:
            raise ConfigError("worker must have one of --board, --shm and --stage")
        if shm is not None and url is not None:
            raise ConfigError("--shm must be given without --url")
        for option, value in (("--max-concurrent", max_concurrent), ("--max-tasks", max_tasks)):
            if stage is not None and value is not None:
                raise ConfigError(f"--stage must be given without {option}", value)
        url = None if shm is not None else url or os.environ.get("RXDISPATCH_URL") or None
        if board is not None:
            board_name("board", board)
        if shm is None and url is None:
            raise ConfigError("worker must have a server: give --url or set RXDISPATCH_URL")
        if url is not None and parse_url(url).scheme == "memory":
            raise ConfigError(
                "worker must have a server that other processes can reach", "memory://"
            )
        grace, lease = seconds("grace", grace), seconds("lease", lease, zero=False)
        add_import_path(app_dir)
        if stage is not None:
            pipeline = pipeline_of(handler)
            pipeline.stage(stage)
            hub = connect(url, namespace=namespace, settings=Settings(grace=grace))
            runner = _staging(hub, pipeline, stage, lease)
        else:
            slots = 16 if max_concurrent is None else max_concurrent
            job = Work(handler_of(handler), slots, lease, max_tasks)
            place = _in_memory(shm) if shm is not None else _on_server(board or "", url, namespace)
            where = f"board {shm or board!r} " + (
                "in shared memory" if url is None else f"on {parse_url(url).safe}"
            )
            runner = _claiming(place, where, handler, job)
        log_to_stderr(verbose=verbose)
        asyncio.run(_run(runner, grace, verbose=verbose))


def _claiming(place: Place, where: str, name: str, job: Work) -> Runner:
    """Return a function that runs a handler for the board of *place*."""

    async def runner(interrupts: Interrupts, _: asyncio.Event, settled: OutcomeCounts) -> bool:
        async with place as board:
            _say(f"Running {name} for {where}.")
            in_time = await work(board, job, interrupts, settled)
            if not in_time:
                _say("Gave up on tasks that did not end in time; they are given back.")
        return in_time

    return runner


def _staging(hub: Hub, pipeline: Pipeline, stage: str, lease: float) -> Runner:
    """Return a function that runs a stage of *pipeline*."""

    async def runner(_: Interrupts, stop: asyncio.Event, settled: OutcomeCounts) -> bool:
        _say(f"Running stage {stage!r}.")
        await work_stage(hub, pipeline, stage, lease, stop, settled)
        return True

    return runner


async def _run(runner: Runner, grace: float, *, verbose: bool) -> None:
    """Run *runner* until it ends or signals end it, and print the totals."""
    stop = asyncio.Event()

    def on_signal(_: signal.Signals) -> None:
        _say("Finishing running tasks; press Ctrl-C again to abort.")
        stop.set()

    def settle(outcome: Outcome[Any, Any]) -> None:
        if verbose:
            print_outcome(outcome)

    interrupts = Interrupts(grace, on_signal)
    settled = OutcomeCounts(settle)
    code, in_time = 0, True
    try:
        with interrupts, own_executor():
            in_time = await runner(interrupts, stop, settled)
    except asyncio.CancelledError:
        if interrupts.aborted is None:
            raise
        _say("Aborted.")
        code = 128 + interrupts.aborted
    _say(f"{settled}.")
    if code or not in_time:
        # A busy thread cannot be stopped, and Python would wait for it.
        leave(code)


@asynccontextmanager
async def _on_server(name: str, url: str | None, namespace: str) -> AsyncGenerator[Board[Any]]:
    # No grace here: by then the grace after a signal is over, or all tasks have ended.
    async with connect(url, namespace=namespace, settings=Settings(grace=0.0)) as hub:
        yield hub.board(name)


@asynccontextmanager
async def _in_memory(name: str) -> AsyncGenerator[Board[Any]]:
    with SharedMemoryBoard[Any].attach(name) as board:
        try:
            yield board
        finally:
            await board._intakes.drain(0.0, asyncio.Event())


def _say(text: str) -> None:
    click.echo(text, err=True)

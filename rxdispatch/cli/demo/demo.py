"""The demo: opens a board, runs the pipeline and prints the report."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from rich.console import Console

from rxdispatch.boards.base import Board
from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.cli.demo.dispatch import REMEMBER, Job, dispatch
from rxdispatch.cli.demo.ledger import Ledger
from rxdispatch.cli.demo.progress import Progress
from rxdispatch.cli.demo.report import Report
from rxdispatch.cli.demo.summary import print_summary
from rxdispatch.cli.demo.tree import find_files
from rxdispatch.cli.interrupts import Interrupts
from rxdispatch.cli.text import number
from rxdispatch.errors import ConfigError
from rxdispatch.files.private import PrivateDirectory
from rxdispatch.hub import connect
from rxdispatch.store.embedded.data_dir import make_private_folder
from rxdispatch.store.url import parse_url

__all__ = ["run_demo"]

GRACE = 5.0
"""Seconds that running tasks get after the first Ctrl-C."""

MOST_WORKERS = 256


def run_demo(
    path: Path | None,
    *,
    url: str | None,
    workers: int | None,
    data_dir: Path | None,
    board: str,
    as_json: bool,
) -> None:
    """
    Dispatch the files below *path* and print the report.

    Raises:
        ConfigError: If an argument breaks its rule.
        StoreUnavailableError: If the server does not answer.
        SystemExit: With 1 if files are missing at the end, with 128 plus the number of the signal
            after a second signal.
    """
    count = workers if workers is not None else min(os.cpu_count() or 1, MOST_WORKERS)
    if not 1 <= count <= MOST_WORKERS:
        raise ConfigError(f"workers must be from 1 to {MOST_WORKERS}", count)
    if board == "shm" and (url is not None or data_dir is not None):
        given = "--url" if url is not None else "--data-dir"
        raise ConfigError("--board shm must be given without --url and --data-dir", given)
    if url is None and data_dir is None and board == "server":
        url = os.environ.get("RXDISPATCH_URL") or None
    progress = Progress(Console(stderr=True))
    with _home(data_dir) as home:
        report = asyncio.run(_run(path, url, count, data_dir, board, home, progress))
    if as_json:
        print(json.dumps(report.document(), indent=2))
    else:
        # Output to a file or a pipe is not cut to the width of a screen.
        print_summary(report, Console(width=None if sys.stdout.isatty() else 1000))
    hint = _hint(report, data_dir)
    if hint:
        progress.say(hint)
    if report.state == "incomplete":
        sys.exit(1)


async def _run(
    path: Path | None,
    url: str | None,
    workers: int,
    data_dir: Path | None,
    kind: str,
    home: Path,
    progress: Progress,
) -> Report:
    def on_signal(_: signal.Signals) -> None:
        progress.say("Finishing running tasks; press Ctrl-C again to abort.")

    interrupts = Interrupts(GRACE, on_signal)
    try:
        with interrupts:
            # In a thread, because a large tree on a slow disk must not delay signals.
            tree = await asyncio.to_thread(find_files, path)
            with Ledger(home / "demo.sqlite3", create=True) as ledger:
                # A board for each tree and ledger: the results of done tasks must be in this
                # ledger, and another tree must not mix with this one.
                key = os.fsencode(tree.root) + ledger.identity.encode()
                name = f"demo-{hashlib.sha256(key).hexdigest()[:16]}"
                job = Job(
                    board=name,
                    tree=tree,
                    ledger=ledger,
                    ledger_path=home / "demo.sqlite3",
                    workers=workers,
                    clear=data_dir is None and url is not None,
                )
                if kind == "shm":
                    place, where = _in_memory(name, tree.files), "in shared memory"
                else:
                    place = _on_server(name, url, data_dir)
                    where = "on an embedded server" if url is None else f"on {parse_url(url).safe}"
                async with place as board:
                    progress.say(
                        f"Dispatching {number(len(tree.files), 'file')} of {tree.root} to"
                        f" {number(workers, 'worker process', 'worker processes')};"
                        f" the board is {where}."
                    )
                    return await dispatch(board, job, interrupts, progress)
    except asyncio.CancelledError:
        if interrupts.aborted is None:
            raise
        progress.say("Aborted.")
        sys.exit(128 + interrupts.aborted)
    finally:
        progress.end()


@asynccontextmanager
async def _on_server(
    name: str, url: str | None, data_dir: Path | None
) -> AsyncGenerator[Board[bytes]]:
    kept = data_dir if url is None else None
    async with connect(url, data_dir=kept) as hub:
        yield hub.board(name, remember=0.0 if data_dir is None else REMEMBER)


@asynccontextmanager
async def _in_memory(name: str, files: dict[str, bytes]) -> AsyncGenerator[Board[bytes]]:
    # Cells are small: a long path takes several, for the id and for the payload.
    cells = sum(1 + (len(os.fsencode(own)) + len(at)) // 100 for own, at in files.items())
    with SharedMemoryBoard[bytes].create(name, capacity=cells + 4096) as board:
        # No other process opens it by name; without a name, nothing remains when this one ends.
        board.unlink()
        yield board


@contextmanager
def _home(data_dir: Path | None) -> Generator[Path]:
    """Create and yield the folder of the ledger; without *data_dir*, a temporary folder."""
    if data_dir is None:
        private = PrivateDirectory.create()
        try:
            yield private.path
        finally:
            private.remove()
    else:
        os.close(make_private_folder(data_dir, what="data_dir"))
        yield data_dir.resolve()


def _hint(report: Report, data_dir: Path | None) -> str | None:
    """Return a hint for the next step, if any."""
    if report.state == "complete":
        if data_dir is not None and not report.tally.finished:
            return "Nothing was left to do; use another --data-dir to start over."
        return None
    if data_dir is not None:
        return "Run the same command again to finish the rest."
    if report.state == "interrupted":
        return "Nothing was kept; with --data-dir DIR the next run would finish the rest."
    return None

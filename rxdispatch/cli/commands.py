"""The ``rxdispatch`` command and its subcommands."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import click
import structlog

from rxdispatch.cli.demo.demo import run_demo
from rxdispatch.cli.exits import exit_codes, without_secrets
from rxdispatch.cli.nodes.command import nodes
from rxdispatch.cli.top.command import top
from rxdispatch.cli.url_option import url_option
from rxdispatch.cli.worker.command import worker

__all__ = ["rxdispatch"]


class _Commands(click.Group):
    """A group of commands whose usage errors hide the login in a URL."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            vars(error).update(message=without_secrets(error.message))
            raise


@click.group(cls=_Commands)
@click.version_option(package_name="rxdispatch")
def rxdispatch() -> None:
    """Reactive task dispatch on asyncio, RxPY and Redis."""
    # File names may hold characters that the terminal or its encoding cannot show.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if click.get_current_context().invoked_subcommand != "worker":
        # In the worker, the user's application may configure logging.
        _log_to_stderr()


_keys = structlog.processors.KeyValueRenderer(key_order=["level", "event"])


def _drop_reported(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> Any:
    """Drop the event for files that cannot be parsed, which the demo itself reports."""
    if entry["event"] == "attempt_failed":
        raise structlog.DropEvent
    return entry


def _line(logger: Any, method: str, entry: MutableMapping[str, Any]) -> str:
    """Return a log entry as one line, with its traceback below."""
    stack = entry.pop("stack", None)
    line = str(_keys(logger, method, entry))
    return line if stack is None else f"{line}\n{stack}"


def _log_to_stderr() -> None:
    structlog.configure(
        processors=[_drop_reported, structlog.processors.add_log_level, _line],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        # Looked up for each line, because a progress bar replaces stderr while it is shown.
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )


@rxdispatch.command()
@click.argument("path", required=False, type=click.Path(path_type=Path))
@url_option(
    "Server with the board: redis://, rediss://, unix:// or memory://",
    "$RXDISPATCH_URL, else an embedded server",
)
@click.option(
    "--workers",
    type=int,
    metavar="N",
    help="Number of worker processes.  [default: one for each CPU]",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep board, counts and dead letters in DIR, so that the next run can finish a run"
    " that was stopped or killed.",
)
@click.option(
    "--board",
    type=click.Choice(["server", "shm"]),
    default="server",
    show_default=True,
    help="Where the board is: on a server, or in shared memory.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def demo(
    path: Path | None,
    url: str | None,
    workers: int | None,
    data_dir: Path | None,
    board: str,
    as_json: bool,
) -> None:
    """
    Count functions, classes and lines of the Python files in PATH, in worker processes.

    PATH is a folder or a file; by default the standard library of this Python. Each file is a
    task. Files that cannot be read or parsed are retried, and then become dead letters.

    Ctrl-C finishes running tasks, gives the others back and shows the result so far; a second
    Ctrl-C aborts. With the same --data-dir, the command continues where the last run ended, even if
    that run was killed, and counts each file once. After a complete run, it only shows the result
    again. Use another directory to start over.
    """
    with exit_codes():
        run_demo(path, url=url, workers=workers, data_dir=data_dir, board=board, as_json=as_json)


rxdispatch.add_command(nodes)
rxdispatch.add_command(top)
rxdispatch.add_command(worker)

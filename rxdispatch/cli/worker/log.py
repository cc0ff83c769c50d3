"""The output of ``rxdispatch worker``: log entries with time stamps, and a line for each task."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

import click
import structlog

from rxdispatch.claim import Outcome
from rxdispatch.cli.text import visible
from rxdispatch.error_text import describe, traceback_text

__all__ = ["log_to_stderr", "one_line", "print_outcome", "print_traceback"]

_TIME: Final = "%Y-%m-%d %H:%M:%S"


def log_to_stderr(*, verbose: bool) -> None:
    """
    Print log entries on stderr, with the time.

    Does nothing if the application, which is imported by now, has configured structlog or logging.
    """
    root, ours = logging.getLogger(), logging.getLogger("rxdispatch")
    if structlog.is_configured() or root.handlers or ours.handlers or not ours.propagate:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s", _TIME))
    root.addHandler(handler)
    if verbose and ours.level == logging.NOTSET:
        ours.setLevel(logging.INFO)


def print_outcome(outcome: Outcome[Any, Any]) -> None:
    """Print the outcome of a task and the time of its handler in one line."""
    text = f"{outcome.status} {visible(outcome.claim.task.id)} in {outcome.duration:.3f} s"
    if outcome.error is not None:
        text += f": {one_line(outcome.error)}"
    click.echo(f"{time.strftime(_TIME)} {text}", err=True)


def one_line(error: BaseException) -> str:
    """Return type and message of *error* in one line, without terminal control characters."""
    return visible(" ".join(describe(error).split()).rstrip(":"))


def print_traceback(error: BaseException) -> None:
    """Print the traceback of *error*, starting in the application's own code."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        name = str(traceback.tb_frame.f_globals.get("__name__"))
        if not name.startswith(("rxdispatch.cli", "importlib")):
            break
        traceback = traceback.tb_next
    click.echo(_safe(traceback_text(error.with_traceback(traceback))), err=True)


class _Formatter(logging.Formatter):
    """The standard library's formatter, without terminal control characters."""

    def format(self, record: logging.LogRecord) -> str:
        return _safe(super().format(record))


def _safe(text: str) -> str:
    return "\n".join(map(visible, text.split("\n")))

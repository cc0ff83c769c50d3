"""The ``dead_letter`` operator: hand on what died in this stream."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from reactivex import Observable, abc
from reactivex import operators as rx

from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.task import Outcome

__all__ = ["dead_letter"]

log = get_logger(__name__)

Result = Outcome[Any, Any]


def dead_letter(
    sink: abc.ObserverBase[Result] | Callable[[Result], Any] | str | os.PathLike[str],
) -> Callable[[Observable[Result]], Observable[Result]]:
    """
    Pass outcomes on, and hand those with status ``dead`` to *sink* as well.

    ::

        --done--dead--retry--|
        [ dead_letter(sink)  ]
        --done--dead--retry--|      sink gets: dead

    Args:
        sink: A Subject or other observer, a callable, or the path of a file to which one line
            of JSON is appended for each.

    Raises:
        ConfigError: If *sink* is none of these, or the folder of the path does not exist.

    A sink that raises is logged and does not disturb the stream. The board keeps its own dead
    letters whatever the sink does. Put it after ``settle``: then what it is told is written.
    """
    given: Any = sink
    if isinstance(sink, (str, os.PathLike)):
        path = Path(given)
        if not path.parent.is_dir():
            raise ConfigError("sink must be a path in a folder that exists", str(path))
        hand_on: Callable[[Result], Any] = _Lines(path)
    elif isinstance(sink, abc.ObserverBase):
        hand_on = given.on_next
    elif callable(sink):
        hand_on = sink
    else:
        raise ConfigError("sink must be an observer, a callable or a path", sink)

    def look(outcome: Result) -> None:
        if outcome.status == "dead":
            try:
                hand_on(outcome)
            except Exception as error:
                log.error("dead_letter_sink_failed", task=outcome.claim.task.id, failure=error)

    return rx.do_action(look)


class _Lines:
    """Appends to a file; opened for each line, because deaths are few and files get rotated."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, outcome: Result) -> None:
        task, cause = outcome.claim.task, outcome.error
        if cause is not None and cause.__cause__ is not None:
            cause = cause.__cause__
        line = msgspec.json.encode(
            {
                "id": task.id.encode("utf-8", "replace").decode(),
                "kind": task.kind,
                "payload": task.payload,
                "reason": outcome.reason,
                "error": "" if cause is None else f"{type(cause).__name__}: {cause}",
                "attempts": outcome.claim.attempt,
                "crashes": outcome.claim.crashes,
            }
        )
        with self._path.open("ab") as file:
            file.write(line + b"\n")

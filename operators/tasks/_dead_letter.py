"""The ``dead_letter`` operator: hands the dead outcomes of a stream to a sink."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from reactivex import Observable, abc
from reactivex import operators as rx

from rxdispatch.claim import Outcome
from rxdispatch.errors import ConfigError
from rxdispatch.files.private_file import check_private, open_private
from rxdispatch.log import get_logger
from rxdispatch.payload_types import encode_hook

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
            of JSON is appended for each. A new file has mode 0600, as it holds payloads.

    Raises:
        ConfigError: If *sink* is none of these, the folder of the path does not exist, or the
            path is a link, or a file that another user may have created or can write.

    An error of the sink is logged and does not disturb the stream. The board keeps its own dead
    letters whatever the sink does. Put this operator after ``settle``: then the sink gets only
    outcomes that are written.
    """
    given: Any = sink
    if isinstance(sink, (str, os.PathLike)):
        path = Path(given)
        if not path.parent.is_dir():
            raise ConfigError("sink must be a path in a folder that exists", str(path))
        with suppress(FileNotFoundError):
            check_private(path.lstat(), path, what="sink")
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
    """Appends to a file. It opens the file for each line: letters are few, and files rotate."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, outcome: Result) -> None:
        task, settlement = outcome.claim.task, outcome.settlement()
        assert settlement is not None
        line = msgspec.json.encode(
            {
                "id": task.id.encode("utf-8", "replace").decode(),
                "kind": task.kind,
                "payload": task.payload,
                "reason": outcome.reason,
                "error": settlement.error,
                "traceback": settlement.traceback,
                "attempts": outcome.claim.attempt,
                "crashes": outcome.claim.crashes,
            },
            enc_hook=encode_hook,
        )
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with open(open_private(self._path, flags, what="sink"), "ab") as file:  # noqa: PTH123
            file.write(line + b"\n")

"""
Calls to another process, and their answers, as bytes.

``concurrent.futures`` breaks the whole pool when a call, a result or an error does not unpickle.
Here one side pickles each of them into bytes and the other unpickles it inside a ``try``, so that
only the item it belongs to fails.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any

from rxdispatch.error_text import ERROR_LIMIT, cut, message_of, traceback_text
from rxdispatch.errors import ProcessCallError
from rxdispatch.operators._start_times import StartKey, record_start

__all__ = ["RemoteTraceback", "pack_call", "run_packed_call", "unpack_answer"]

Answer = tuple[bytes | None, bytes | None, str, str, str]


class RemoteTraceback(Exception):  # noqa: N818 - named like the one of the standard library
    """The traceback of an error in another process, as text: the cause of the error here."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}\n"""'


def pack_call(fn: Callable[[Any], Any], item: Any) -> bytes:
    """
    Return the call of *fn* with *item* as bytes.

    Raises:
        Exception: Whatever pickling it raises.
    """
    return bytes(ForkingPickler.dumps((fn, item)))


def run_packed_call(data: bytes, key: StartKey) -> Answer:
    """Run the call in *data* and return its result or its error; called in the other process."""
    record_start(key)
    try:
        fn, item = pickle.loads(data)  # noqa: S301 - the parent made it a moment ago
        result = fn(item)
        return bytes(ForkingPickler.dumps(result)), None, "", "", ""
    except BaseException as error:
        return _failure(error)


def unpack_answer(answer: Answer) -> Any:
    """
    Return the result in *answer*, or raise its error.

    Raises:
        ProcessCallError: Instead of an error, or of a result, that does not unpickle here.
    """
    result, raised, kind, text, trace = answer
    if result is not None:
        try:
            return pickle.loads(result)  # noqa: S301 - our child process made it
        except BaseException as error:
            raise ProcessCallError(
                "PicklingError", "the result must be a value that unpickles"
            ) from error
    found = _unpickled(raised)
    if not isinstance(found, Exception):
        # An exception that ends the other process, such as SystemExit, must not end this one.
        found = ProcessCallError(kind, text)
    elif isinstance(found, StopIteration):
        # An asyncio future cannot hold it.
        found = RuntimeError("fn raised StopIteration")
    found.__cause__ = RemoteTraceback(trace)
    raise found


def _unpickled(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return pickle.loads(data)  # noqa: S301 - our child process made it
    except BaseException:
        return None


def _failure(error: BaseException) -> Answer:
    raised: bytes | None
    try:
        raised = bytes(ForkingPickler.dumps(error))
    except BaseException:
        raised = None
    text = cut(message_of(error), ERROR_LIMIT)
    return None, raised, type(error).__name__, text, traceback_text(error)

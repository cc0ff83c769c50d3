"""Ends the process even if a thread hangs; Python itself would wait for the thread forever."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final, NoReturn

__all__ = ["leave", "leave_in_time", "own_executor"]

LINGER: Final = 1.0
"""Seconds that threads get to end after everything else has ended."""


def leave(code: int) -> NoReturn:
    """End the process now, with the exit code *code*; flush the output if possible."""
    _end(_flusher(0.0), LINGER, code)


def leave_in_time(code: int) -> None:
    """Keep hanging threads from delaying the end of the process; its exit code is *code*."""
    me = threading.current_thread()
    if any(not thread.daemon and thread is not me for thread in threading.enumerate()):
        # Both start now: since Python 3.12 no thread can start once the interpreter shuts down.
        flushing = _flusher(LINGER)
        threading.Thread(
            target=_end, args=(flushing, 2 * LINGER, code), name="leaving", daemon=True
        ).start()


@contextmanager
def own_executor() -> Generator[None]:
    """Give the running loop an executor for ``asyncio.to_thread`` that it does not wait for."""
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(thread_name_prefix="to_thread")
    loop.set_default_executor(threads)
    try:
        yield
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        loop.set_default_executor(ThreadPoolExecutor(1))


def _end(flushing: threading.Thread, within: float, code: int) -> NoReturn:
    flushing.join(within)
    os._exit(code)


def _flusher(after: float) -> threading.Thread:
    """Flush the output in a thread: a hanging thread may hold the lock of a stream."""
    thread = threading.Thread(target=_flush, args=(after,), daemon=True)
    thread.start()
    return thread


def _flush(after: float) -> None:
    # Not time.sleep: the interpreter may have cleared the module time by then.
    threading.Event().wait(after)
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        with suppress(Exception):
            stream.flush()

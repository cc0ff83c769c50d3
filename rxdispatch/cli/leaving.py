"""Leaving the process although a thread hangs: Python itself would wait for it for ever."""

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
"""Seconds that threads get to end when everything else has."""


def leave(code: int) -> NoReturn:
    """End the process now, with *code*; what was printed is written out, if that can be done."""
    # In a thread: one that hangs may hold the lock of a stream.
    flushing = threading.Thread(target=_flush, daemon=True)
    flushing.start()
    flushing.join(LINGER)
    os._exit(code)


def leave_in_time(code: int) -> None:
    """Let the process, which is about to end with *code*, not wait for threads that hang."""
    me = threading.current_thread()
    if any(not thread.daemon and thread is not me for thread in threading.enumerate()):
        threading.Thread(target=_wait, args=(code,), name="leaving", daemon=True).start()


@contextmanager
def own_executor() -> Generator[None]:
    """Give the running loop threads for ``asyncio.to_thread`` that its end does not wait for."""
    loop = asyncio.get_running_loop()
    threads = ThreadPoolExecutor(thread_name_prefix="to_thread")
    loop.set_default_executor(threads)
    try:
        yield
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        loop.set_default_executor(ThreadPoolExecutor(1))


def _wait(code: int) -> None:
    # Not time.sleep: modules may be half taken down by then.
    threading.Event().wait(LINGER)
    leave(code)


def _flush() -> None:
    streams: list[Any] = [sys.stdout, sys.stderr]
    for stream in streams:
        with suppress(Exception):
            stream.flush()

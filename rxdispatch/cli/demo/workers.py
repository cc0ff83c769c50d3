"""``Workers``: a process pool that ends with this process, however this process ends."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import multiprocessing
import os
import signal
import sys
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import connection, resource_tracker
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self

__all__ = ["Workers"]

_PR_SET_PDEATHSIG: Final = 1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Workers:
    """
    A pool of worker processes for ``execute``; a context manager.

    The processes of a standard pool survive a killed owner, and wait for calls forever. The
    processes of this pool end with their owner. They also ignore Ctrl-C, which a terminal sends to
    all processes: the owner decides whether to finish or to abort.

    Create it in the main thread: on Linux a worker ends with the *thread* that started it.

    Args:
        count: The number of processes.
    """

    def __init__(self, count: int) -> None:
        # Spawned: a fork of a process with threads may hang, and inherits all open files.
        self.pool = ProcessPoolExecutor(
            count,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_begin,
            initargs=(os.getpid(),),
        )
        # The resource tracker starts first, because its start would unblock the signals.
        resource_tracker.ensure_running()
        # The workers start with these signals blocked, and then ignore them: a Ctrl-C during
        # their start would fill the screen with tracebacks.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            # The pool starts a process for each call that finds no idle one.
            self._started: list[Future[Any]] = [self.pool.submit(os.getpid) for _ in range(count)]
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    async def ready(self) -> None:
        """
        Wait until the processes have started.

        Raises:
            BrokenProcessPool: If a process cannot start.
        """
        await asyncio.gather(*map(asyncio.wrap_future, self._started))

    def kill(self) -> None:
        """Kill the processes now."""
        for process in multiprocessing.active_children():
            process.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self.kill()
        self.pool.shutdown(wait=True, cancel_futures=True)


def _begin(owner: int) -> None:
    """Make this worker end with its owner, and ignore Ctrl-C and SIGTERM."""
    # The garbage collector would take a fifth of the time; syntax trees have no cycles to collect.
    gc.disable()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    if sys.platform == "linux":
        die_with_parent()
    else:
        watch_parent()
    # The owner may have ended before the lines above took effect.
    if os.getppid() != owner:
        os._exit(1)


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the thread that started this process ends; Linux only."""
    if ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        watch_parent()


def watch_parent() -> None:
    """Wait in a thread for the end of a pipe that the parent holds, then end this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    Thread(target=watch, name="parent-watch", daemon=True).start()

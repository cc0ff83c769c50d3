"""Ends a process with its parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from typing import Final

__all__ = ["end_with_parent"]

_PR_SET_PDEATHSIG: Final = 1


def end_with_parent(by: int) -> None:
    """
    Have the kernel send this process that signal when its parent ends, however it ends.

    This process ignores SIGINT from then on: Ctrl-C reaches the parent too, which ends its
    children. On systems other than Linux there is no such signal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    # The parent may have ended already.
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid != os.getppid():
        raise SystemExit("the parent is gone")

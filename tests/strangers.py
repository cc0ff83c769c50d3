"""Another user of the same machine, for tests of planted files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["STRANGER", "as_user", "shared_folder"]

STRANGER = 54321
"""A user id without an account."""


def as_user(work: Callable[[], object], uid: int = STRANGER) -> int:
    """
    Run *work* in a forked child as another user; skip the test if that is not allowed.

    Returns:
        The exit status of the child: 0, or 1 after an exception.
    """
    if os.geteuid() != 0:
        pytest.skip("needs root, to act as another user")
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def shared_folder(mode: int = 0o777) -> Generator[Path]:
    """A folder that all users of the machine can reach."""
    folder = Path(tempfile.mkdtemp(prefix="rxd-shared-", dir="/tmp"))
    try:
        folder.chmod(mode)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

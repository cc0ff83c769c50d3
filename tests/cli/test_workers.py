"""Processes that end together with their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rxdispatch.cli.demo import workers
from tests.servers import alive, wait_until

ROOT = Path(__file__).parents[2]


def hold(how: str) -> None:
    """Print the process id, and wait until killed."""
    getattr(workers, how)()
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    while True:
        time.sleep(60)


def own(how: str) -> None:
    """Start such a process, and wait."""
    child = multiprocessing.get_context("spawn").Process(target=hold, args=(how,))
    child.start()
    child.join()


@pytest.mark.parametrize(
    "how",
    [
        pytest.param(
            "die_with_parent",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="needs the Linux kernel"),
        ),
        "watch_parent",
    ],
)
def test_ends_when_the_parent_is_killed(how: str) -> None:
    """The kernel, or the end of a pipe, ends the worker."""
    code = f"from tests.cli.test_workers import own; own({how!r})"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.send_signal(signal.SIGKILL)
        wait_until(lambda: not alive(pid))

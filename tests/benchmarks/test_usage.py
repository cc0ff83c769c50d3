"""The CPU and memory of a process and its descendants."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from benchmarks.support.usage import WINDOW, Watch, cpu_seconds, memory_mib, tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")

MIB = 1 << 20
HELD = f"""
import os, sys
print("new", flush=True)
sys.stdin.readline()
held = bytearray(b"x") * (32 * {MIB})
child = os.fork()
if child:
    print(child, flush=True)
sys.stdin.readline()
"""
BUSY = """
import sys
print("new", flush=True)
sys.stdin.readline()
while True:
    pass
"""


@contextmanager
def running(code: str) -> Generator[subprocess.Popen[str]]:
    """Run a program that prints a line when it has started, and continues after a line of input."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert "new\n" == hear(process)
            yield process
        finally:
            process.kill()


def hear(process: subprocess.Popen[str]) -> str:
    """Return the next line that the program prints."""
    assert process.stdout is not None
    return process.stdout.readline()


def go_on(process: subprocess.Popen[str]) -> None:
    """Make the program continue."""
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_tree_has_descendants() -> None:
    """A process comes before its own children."""
    with running(HELD) as process:
        assert [process.pid] == tree(process.pid)
        go_on(process)
        child = int(hear(process))
        assert [process.pid, child] == tree(process.pid)


def test_what_is_shared_grows_once() -> None:
    """Memory that a forked process shares with its parent is counted once."""
    with running(HELD) as process:
        watch = Watch(process.pid)
        go_on(process)
        hear(process)
        watch.find()
        watch.look()
        assert 32 <= watch.growth < 48


def test_growth_is_the_peak() -> None:
    """Memory that was returned still counts in the peak."""
    with running(HELD) as process:
        watch = Watch(process.pid)
        go_on(process)
        hear(process)
        watch.find()
        watch.look()
        most = watch.growth
    watch.look()
    assert most == watch.growth


def test_own_clock() -> None:
    """The clock is the one that the process itself can read."""
    before = time.process_time()
    seen = cpu_seconds(os.getpid())
    assert before <= seen <= time.process_time()


def test_nothing_of_one_that_is_gone() -> None:
    """A process that has ended has no descendants, no CPU time and no memory."""
    with running(HELD) as process:
        pid = process.pid
    assert ([], 0.0, 0.0) == (tree(pid), cpu_seconds(pid), memory_mib(pid))


@pytest.mark.serial
def test_busy_loop_takes_one_core() -> None:
    """A busy loop has a peak of one core, and a waiting program has none."""
    with running(BUSY) as process:
        watch = Watch(process.pid)
        time.sleep(2 * WINDOW)
        watch.look()
        assert 0 == pytest.approx(watch.cpu_peak, abs=10)
        go_on(process)
        peaks = list[float]()
        for _ in range(5):
            time.sleep(2 * WINDOW)
            watch.look()
            peaks.append(watch.cpu_peak)
        # Other processes may take time from the loop, but it cannot get more than one core.
        assert 20 < max(peaks) < 110
        watch.begin()
        assert 0 == watch.cpu_peak

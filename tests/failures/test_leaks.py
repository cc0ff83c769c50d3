"""What a process has open before and after it used hubs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.failures.fleet import ROOT
from tests.servers import valkey_server


def session(folder: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``session.py`` with every warning as an error, and its files in *folder*."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-m", "tests.failures.session", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": folder},
        capture_output=True,
        text=True,
        timeout=60.0,
        check=False,
    )


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
@pytest.mark.parametrize("where", ["embedded", "memory", "server"])
async def test_nothing_is_left_behind(where: str) -> None:
    """Hubs leave no task, descriptor, process, thread or file, and print nothing on stderr."""
    async with valkey_server() as server:
        urls = {"embedded": [], "memory": ["memory://"], "server": [server.target.safe]}
        with tempfile.TemporaryDirectory(prefix="rxd-fail-") as folder:
            done = session(folder, *urls[where])
            assert "" == done.stderr
            assert 0 == done.returncode
            found = json.loads(done.stdout)
            assert [] == found["tasks"]
            assert found["before"] == found["after"]
            assert [] == list(Path(folder).iterdir())

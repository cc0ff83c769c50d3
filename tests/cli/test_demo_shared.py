"""The demo with a board in shared memory: interrupted, aborted, killed, and on long paths."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.command import Command, expected, long_tree, part, run, stalled
from tests.servers import alive, wait_until

SHARED = ("--board", "shm")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return enough files for a run to be caught half-way."""
    root = tmp_path_factory.mktemp("shared") / "tree"
    long_tree(root)
    return root


@pytest.fixture
def passing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder below which the run keeps its ledger."""
    # Not pytest's folder, whose path may be too long for a private directory.
    with tempfile.TemporaryDirectory() as place:
        monkeypatch.setenv("TMPDIR", place)
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
        yield Path(place)


def home(command: Command, passing: Path) -> Path:
    """Wait for the ledger, and return its folder."""
    wait_until(lambda: list(passing.glob("*/demo.sqlite3")) or command.process.poll() is not None)
    (found,) = passing.glob("*/demo.sqlite3")
    return found.parent


def names(command: Command) -> int:
    """
    Return how many names the run's board has in shared memory; a nameless board leaves none.

    The function does not look for new names, as other tests may have boards at the same time.
    """
    if sys.platform != "linux":
        return 0
    found: list[int] = []
    for file in Path(f"/proc/{command.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # the file was closed meanwhile
            if "/dev/shm/" in str(file.readlink()):
                found.append(file.stat().st_nlink)
    assert found
    return max(found)


def test_interrupted(tree: Path, passing: Path) -> None:
    """Ctrl-C lets running tasks finish, and every file is counted, dead or remaining."""
    files = expected(tree)["files"]
    with Command(tree, "--json", "--workers", 2, *SHARED) as command:
        with stalled(command, home(command, passing)):
            # The board has no name, not even while it runs.
            assert 0 == names(command)
            # There are two workers and the helper of multiprocessing, but no server.
            assert len(command.family()) == 3
            command.process.send_signal(signal.SIGINT)
            command.read_until("again to abort")
        out, err = command.end()
    assert 0 == command.process.returncode, err
    assert "Traceback" not in err
    document: dict[str, Any] = json.loads(out)
    assert "interrupted" == document["state"]
    assert 0 < document["remaining"] < files
    assert files == document["counted"] + document["dead"] + document["remaining"]
    assert [] == list(passing.iterdir())


def test_aborted(tree: Path, passing: Path) -> None:
    """The second Ctrl-C does not wait for running tasks, and leaves no process and no file."""
    with (
        Command(tree, "--workers", 2, *SHARED) as command,
        stalled(command, home(command, passing)),
    ):
        assert 0 == names(command)
        command.process.send_signal(signal.SIGINT)
        command.read_until("again to abort")
        command.process.send_signal(signal.SIGINT)
        _, err = command.end()
    assert 128 + signal.SIGINT == command.process.returncode
    assert "Traceback" not in err


def test_killed(tree: Path, passing: Path) -> None:
    """SIGKILL ends the workers and the board too, as the board has no name that could stay."""
    with (
        Command(tree, "--workers", 2, *SHARED) as command,
        stalled(command, home(command, passing)),
    ):
        assert 0 == names(command)
        family = command.family()
        command.process.kill()
        command.end()
        assert not any(alive(pid) for pid in family)


def test_a_worker_is_killed(tree: Path, passing: Path) -> None:
    """The pool is replaced, and the numbers equal a direct count."""
    wanted = expected(tree)
    with Command(tree, "--json", "--workers", 2, *SHARED) as command:
        with stalled(command, home(command, passing)):
            worker, *_ = (
                child
                for child in psutil.Process(command.process.pid).children()
                if any("spawn_main" in word for word in child.cmdline())
            )
            assert 0 == names(command)
            worker.kill()
        out, err = command.end()
    assert 0 == command.process.returncode, err
    assert "process_pool_rebuilt" in err
    assert wanted == part(out, wanted)
    assert [] == list(passing.iterdir())


def test_long_paths(tmp_path: Path) -> None:
    """Long paths take several cells each, and all of them fit."""
    folder = tmp_path.joinpath("tree", *(("d" * 200,) * 8))
    folder.mkdir(parents=True)
    for i in range(1500):
        (folder / f"m{i}.py").write_text("x = 1\n")
    done = run(tmp_path / "tree", "--json", "--workers", 2, *SHARED)
    assert 0 == done.returncode, done.stderr
    wanted = {"files": 1500, "counted": 1500, "dead": 0, "remaining": 0, "state": "complete"}
    assert wanted == part(done.stdout, wanted)

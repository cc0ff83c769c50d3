"""Runs that are killed, interrupted or aborted, and the next run that finishes the work."""

from __future__ import annotations

import json
import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

import rxdispatch as rxd
from tests.cli.command import Command, expected, long_tree, part, run, stalled
from tests.servers import alive


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return enough files for a run to be caught half-way."""
    root = tmp_path_factory.mktemp("stopped") / "tree"
    long_tree(root)
    return root


@pytest.fixture(scope="module")
def wanted(tree: Path) -> dict[str, Any]:
    """The result of a complete run on these files."""
    return expected(tree)


def test_killed_and_started_again(tree: Path, wanted: dict[str, Any], tmp_path: Path) -> None:
    """SIGKILL ends workers and server too; the next run loses and repeats nothing."""
    home = tmp_path / "data"
    with Command(tree, "--json", "--workers", 2, "--data-dir", home) as command:
        with stalled(command, home) as counted:
            # The children are two workers, the helper of multiprocessing, and the server.
            assert len(command.family()) >= 4
            command.process.kill()
            command.end()
        assert not any(alive(pid) for pid in command.family(again=False))
    assert counted < wanted["counted"]

    done = run(tree, "--json", "--workers", 1, "--data-dir", home)
    assert 0 == done.returncode, done.stderr
    assert wanted == part(done.stdout, wanted)
    this: dict[str, Any] = json.loads(done.stdout)["run"]
    # Only files that were being counted at the kill are counted again.
    assert counted - 2 * 2 <= this["files_before"] <= counted + 1
    assert wanted["files"] == this["files_before"] + this["files"]
    assert "Continuing an earlier run" in done.stderr


async def test_interrupted_and_finished(tree: Path, wanted: dict[str, Any], tmp_path: Path) -> None:
    """Ctrl-C lets running tasks finish, gives the others back, and ends with 0."""
    home = tmp_path / "data"
    with Command(tree, "--json", "--workers", 2, "--data-dir", home) as command:
        with stalled(command, home):
            command.process.send_signal(signal.SIGINT)
            command.read_until("again to abort")
        out, err = command.end()
    assert 0 == command.process.returncode, err
    assert "Traceback" not in err
    assert "Run the same command again to finish the rest." in err
    document: dict[str, Any] = json.loads(out)
    assert "interrupted" == document["state"]
    assert 0 < document["remaining"] < wanted["files"]
    with sqlite3.connect(home / "demo.sqlite3") as db:
        ((name,),) = db.execute("SELECT DISTINCT board FROM counts")
    db.close()
    async with rxd.connect(data_dir=home) as hub:
        board: rxd.Board[Any] = hub.board(name)
        counts = await board.counts()
        assert 0 == counts.claimed
        assert document["remaining"] == counts.ready + counts.scheduled

    done = run(tree, "--json", "--workers", 1, "--data-dir", home)
    assert 0 == done.returncode, done.stderr
    assert wanted == part(done.stdout, wanted)


def test_second_signal_aborts(tree: Path, tmp_path: Path) -> None:
    """The second Ctrl-C does not wait for running tasks, and leaves no process."""
    home = tmp_path / "data"
    with (
        Command(tree, "--workers", 1, "--data-dir", home) as command,
        stalled(command, home),
    ):
        command.process.send_signal(signal.SIGINT)
        command.read_until("again to abort")
        command.process.send_signal(signal.SIGINT)
        _, err = command.end()
    assert 128 + signal.SIGINT == command.process.returncode
    assert "Aborted." in err
    assert "Traceback" not in err


def test_what_does_not_end_in_time_is_given_up(
    tree: Path, wanted: dict[str, Any], tmp_path: Path
) -> None:
    """After the grace, the workers are killed, and the run still ends with a result."""
    home = tmp_path / "data"
    with (
        Command(tree, "--json", "--workers", 1, "--data-dir", home) as command,
        stalled(command, home),
    ):
        command.process.send_signal(signal.SIGTERM)
        out, err = command.end()
    assert 0 == command.process.returncode, err
    assert "interrupted" == json.loads(out)["state"]
    assert "Gave up on tasks that did not end in time" in err
    assert "Traceback" not in err

    done = run(tree, "--json", "--workers", 1, "--data-dir", home)
    assert 0 == done.returncode, done.stderr
    assert wanted == part(done.stdout, wanted)

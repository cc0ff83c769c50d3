"""What the test suite reports about itself, and how it is repeated."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.stress import commands

ROOT = Path(__file__).parents[2]


def run(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a module of Python in the project's folder."""
    environment = {**os.environ, "PATH": os.environ["PATH"] if path is None else path}
    # Do not inherit settings from the run that this test is part of.
    environment.pop("PYTEST_XDIST_WORKER", None)
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_server_that_was_not_tested_is_named(tmp_path: Path) -> None:
    """The summary says how many tests need the server, and how to get it."""
    tests = ("tests/nodes/test_slots.py", "-k", "test_many_in_one_call", "-p", "no:cacheprovider")
    for more in ((), ("-n", "1")):
        done = run("pytest", "-q", *tests, *more, path=str(tmp_path))
        assert 0 == done.returncode, done.stdout
        assert "Redis was not tested: 1 tests need a redis-server on the PATH" in done.stdout


def test_stress_tells_what_failed_in_which_round(tmp_path: Path) -> None:
    """Every round runs to its end, and the burners end with the last one."""
    test = tmp_path / "test_it.py"
    test.write_text(
        "import pytest\n\n@pytest.mark.parametrize('n', [1, 2])\ndef test_a(n): assert n < 2\n"
    )
    done = run("tests.stress", "--rounds", "2", "--jobs", "0", "--", str(test))
    assert 1 == done.returncode
    last = done.stdout.splitlines()[-1]
    assert last.startswith("2 of 2: ")
    assert last.endswith("test_it.py::test_a[2]")
    test.write_text("def test_a(): pass\n")
    done = run("tests.stress", "--rounds", "1", "--jobs", "0", "--burners", "1", "--", str(test))
    assert (0, "") == (done.returncode, done.stderr)
    assert "round 1 of 1" in done.stdout.splitlines()[-1]


def test_stress_runs_what_make_test_runs() -> None:
    """Most tests run in parallel, and those that measure time run after them."""
    makefile = (ROOT / "Makefile").read_text()
    for command in commands(2, []):
        options = " ".join(command[command.index("no:cacheprovider") + 1 :])
        options = options.replace("-n 2", "-n $(JOBS)").replace("not serial", "'not serial'")
        assert f"-m pytest -q {options}" in makefile

"""
Run all tests again and again while other processes burn the cores.

``make stress`` calls it. Every round runs to its end; the failures of all rounds are listed last.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager

__all__ = ["main"]

_BURN = "while True: pass"
_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+)")
NO_TESTS = 5
"""The exit status of pytest when no test was selected."""


@contextmanager
def burning(count: int) -> Generator[None]:
    """Keep *count* processes busy, and end them in any case."""
    burners = [subprocess.Popen([sys.executable, "-c", _BURN]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def commands(jobs: int, tests: Sequence[str]) -> list[list[str]]:
    """Return the pytest commands of one round; they are the same as those of ``make test``."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    if jobs == 0:
        return [pytest]
    side_by_side = ["-n", str(jobs), "--dist", "loadfile", "-m", "not serial"]
    return [[*pytest, *side_by_side], [*pytest, "-m", "serial"]]


def run(command: list[str], failures: Counter[str]) -> bool:
    """Run *command*, print its output, count failed tests; return whether all passed."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                if found := _FAILED.match(line):
                    failures[found[1]] += 1
        except BaseException:
            # After Ctrl-C: the tests run in a session of their own, and end with what they
            # started.
            os.killpg(process.pid, signal.SIGTERM)
            raise
    return process.returncode in {0, NO_TESTS}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rounds; return 1 if a test failed in any of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.stress", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--burners", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("tests", nargs="*")
    options = parser.parse_args(argv)
    failures: Counter[str] = Counter()
    red = 0
    with burning(options.burners):
        for number in range(1, options.rounds + 1):
            began = time.monotonic()
            passed = [run(c, failures) for c in commands(options.jobs, options.tests)]
            red += not all(passed)
            took = time.monotonic() - began
            print(
                f"== round {number} of {options.rounds}: {took:.0f} s, {red} red so far", flush=True
            )
    for test, count in failures.most_common():
        print(f"{count} of {options.rounds}: {test}")
    return 1 if red else 0


if __name__ == "__main__":
    sys.exit(main())

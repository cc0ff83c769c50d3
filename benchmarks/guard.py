"""
Checks that nothing has become slower against its baseline: ``python -m benchmarks.guard``.

It measures the cases of ``guard_cases.py`` and compares their ratios with those in
``baseline.json``. It compares no times, because a ratio hardly depends on the machine. A case whose
median is out of bounds is measured for twice as many further rounds, and the median of all rounds
counts. ``--store`` replaces the baseline.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from benchmarks.guard_cases import GuardCase, cases

__all__ = ["BASELINE", "TOLERANCE", "Bound", "failures", "load", "main", "store"]

BASELINE: Final = Path(__file__).parent / "baseline.json"
#: How many times worse a ratio may become, unless the baseline says otherwise.
TOLERANCE: Final = 1.8
ROUNDS: Final = 7


@attrs.frozen
class Bound:
    """
    The stored ratio of a case, and its bound.

    Attributes:
        ratio: Our time divided by the baseline's, when the ratio was stored.
        tolerance: The factor by which a measured ratio may exceed the stored one.
    """

    ratio: float
    tolerance: float = TOLERANCE

    @property
    def most(self) -> float:
        """The largest allowed ratio."""
        return self.ratio * self.tolerance


def failures(measured: Mapping[str, float], stored: Mapping[str, Bound]) -> dict[str, str]:
    """Return the failures by case: too slow, not stored, or no longer measured."""
    wrong: dict[str, str] = {}
    for case, ratio in measured.items():
        bound = stored.get(case)
        if bound is None:
            wrong[case] = f"{case}: not in the baseline; store it"
        elif ratio > bound.most:
            wrong[case] = (
                f"{case}: {ratio:.2f} x its baseline, {ratio / bound.ratio:.2f} times the stored"
                f" {bound.ratio:.2f}; at most {bound.most:.2f} is allowed"
            )
    for case in stored:
        if case not in measured:
            wrong[case] = f"{case}: in the baseline, but no longer measured"
    return wrong


def load(path: Path = BASELINE) -> dict[str, Bound]:
    """Return the stored bounds."""
    return {case: Bound(**bound) for case, bound in json.loads(path.read_text()).items()}


def store(measured: Mapping[str, float], path: Path = BASELINE) -> None:
    """Write ratios; a case keeps the tolerance that the file has for it."""
    before = load(path) if path.exists() else {}
    kept = {
        case: attrs.asdict(Bound(round(ratio, 3), before.get(case, Bound(0)).tolerance))
        for case, ratio in measured.items()
    }
    path.write_text(json.dumps(kept, indent=1) + "\n")


async def measure(chosen: Iterable[GuardCase], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Return the ratios of the rounds, ours and baseline in turn."""
    found: dict[str, list[float]] = {}
    for case in chosen:
        await case.ours()
        await case.base()
        found[case.name] = [await case.ours() / await case.base() for _ in range(rounds)]
    return found


async def run(storing: bool) -> int:
    """Measure, then compare or store; return the exit status."""
    async with cases() as all_cases:
        rounds = await measure(all_cases)
        measured = {case: statistics.median(ratios) for case, ratios in rounds.items()}
        if storing:
            store(measured)
        stored = load()
        for case, ratio in measured.items():
            bound = stored.get(case)
            print(f"{case:<56} {ratio:7.2f} x" + (f", stored {bound.ratio:.2f}" if bound else ""))
        again = [case for case in all_cases if case.name in failures(measured, stored)]
        for case, ratios in (await measure(again, 2 * ROUNDS)).items():
            measured[case] = statistics.median(rounds[case] + ratios)
            print(f"{case}: {measured[case]:.2f} x in {3 * ROUNDS} rounds")
    wrong = failures(measured, stored)
    for line in wrong.values():
        print(line, file=sys.stderr)
    return 1 if wrong else 0


def main() -> None:
    """Exit with 1 if anything became slower."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", action="store_true", help="replace the baseline")
    sys.exit(asyncio.run(run(parser.parse_args().store)))


if __name__ == "__main__":
    main()

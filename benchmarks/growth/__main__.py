"""
Where does a single server end, and what carries a million nodes or a thousand workers?

What calls cost is measured on a real server; the scenarios that fit this machine are then run and
simulated, and both printed; last, those are simulated that do not fit::

    python -m benchmarks.growth                                # all of it
    python -m benchmarks.growth --costs benchmarks/results/growth.json    # the last part alone
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import rxdispatch as rxd
from benchmarks.figures.machine import server_version
from benchmarks.figures.record import Record
from benchmarks.growth.costs import Costs
from benchmarks.growth.curves import draw
from benchmarks.growth.measure import Server, measure
from benchmarks.growth.validation import TOLERANCE, validate


async def measured(record: Record) -> Costs:
    """Measure on a server of our own, and see whether the simulation holds."""
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=20.0, attempt_timeout=10.0))
    async with rxd.connect(settings=settings) as hub:
        server = Server(hub)
        record.note(server=server_version(await server.redis.info("server")))
        costs = await measure(server, record)
        worst = await validate(server, costs, record)
    record.add("largest error of a rate", worst, "", group="simulated beside measured",
               budget=f"<= {TOLERANCE:g}")  # fmt: skip
    return costs


def main() -> None:
    """Run what was asked for, and keep it."""
    question, _, rest = (__doc__ or "").strip().partition("\n\n")
    parser = argparse.ArgumentParser(description=question, epilog=rest)
    parser.add_argument("--costs", type=Path, help="a growth.json: its costs, nothing is measured")
    path: Path | None = parser.parse_args().costs
    with Record("growth", question) as record:
        costs = Costs.load(path) if path else asyncio.run(measured(record))
        record.note(costs=costs.as_dict(), measured=path is None)
        draw(costs, record)
        if path:
            # What was measured with these costs stays beside them.
            record.rows.clear()


if __name__ == "__main__":
    main()

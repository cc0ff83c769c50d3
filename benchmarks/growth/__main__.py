"""
What do the calls cost a server, and what does one server carry?

It measures the costs, and one to eight real workers, on a server of its own. From the costs,
formulas compute the load of a thousand workers or a million nodes::

    python -m benchmarks.growth                                # all of it
    python -m benchmarks.growth --costs benchmarks/results/growth.json    # the formulas alone
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.growth.board_costs import measure_board
from benchmarks.growth.costs import Costs
from benchmarks.growth.fleet_costs import measure_fleet
from benchmarks.growth.formulas import add_formulas
from benchmarks.growth.server import MeasuredServer
from benchmarks.growth.workers import compare, measure_workers
from benchmarks.nodes.fleet import note_server


async def measured(record: FigureRecord) -> Costs:
    """Measure on an embedded server, and compare real workers with the formula."""
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=20.0, attempt_timeout=10.0))
    async with rxd.connect(settings=settings) as hub:
        server = MeasuredServer(hub)
        await note_server(record, hub)
        found = await measure_board(server, record)
        found |= await measure_workers(server, record, found)
        costs = Costs(**(found | await measure_fleet(server, record)))
        await compare(server, costs, record)
    return costs


def main() -> None:
    """Measure unless costs are given, compute, and record the figures."""
    question, _, rest = (__doc__ or "").strip().partition("\n\n")
    parser = argparse.ArgumentParser(description=question, epilog=rest)
    parser.add_argument(
        "--costs", type=Path, help="take the costs from this growth.json, and measure nothing"
    )
    path: Path | None = parser.parse_args().costs
    record = FigureRecord("growth", question)
    costs = Costs.load(path) if path else asyncio.run(measured(record))
    record.note(costs=costs.as_dict())
    add_formulas(costs, record)
    if path is None:
        # Computed figures alone must not replace the figures that were measured with the costs.
        record.save()


if __name__ == "__main__":
    main()

"""
A process that runs a stage of a pipeline; arguments: the server's URL, a stage, a journal.

Each stage appends a line to the journal, which shows how often it ran.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import rxdispatch as rxd
from tests.failures.handlers import note


def pipeline(path: str, hub: Any = None) -> rxd.Pipeline:
    """Return a pipeline in which all stages but the first run behind two boards."""

    async def begin(n: int) -> list[str]:
        return [f"item {n}"]

    def step(name: str) -> Any:
        async def work(marks: list[str]) -> list[str]:
            await asyncio.sleep(0.003)
            note(path, f"{name} {marks[0]}")
            return [*marks, name]

        return work

    async def store(lists: list[list[str]]) -> list[None]:
        await asyncio.sleep(0.003)
        for marks in lists:
            note(path, "stored " + " ".join(marks))
        return [None] * len(lists)

    return rxd.Pipeline(
        rxd.stage(begin),
        rxd.stage(step("enrich"), name="enrich", board="enriching", max_concurrent=4),
        rxd.stage(step("polish"), name="polish", max_concurrent=4),
        rxd.stage(store, board="storing", batch=(5, 0.01), max_concurrent=2),
        boards=None if hub is None else hub.board,
    )


async def main() -> None:
    """Run the stage until killed."""
    url, stage, path = sys.argv[1:]
    async with rxd.connect(url) as hub:
        await rxd.run(pipeline(path).worker(stage, hub.board, lease=0.4))


if __name__ == "__main__":
    asyncio.run(main())

"""
A process that runs workflows from a board; arguments: the server's URL, a label, a journal.

Each state appends a line to the journal, which shows how often it ran.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import rxdispatch as rxd
from tests.failures.handlers import note

STATES = 12


def machine(hub: rxd.Hub, path: str, label: str) -> rxd.Workflow:
    """Return a chain of states, each of which records that it ran, and in which process."""
    workflow = rxd.Workflow(
        "s0",
        board=hub.board("flows", max_crashes=1000),
        journal=hub.board("flows.journal", max_crashes=1000),
    )

    def state(number: int) -> Any:
        async def process(data: list[str]) -> rxd.Move:
            note(path, f"s{number}")
            await asyncio.sleep(0.02)
            # The data shows which of two processes recorded the transition first.
            return rxd.Move(f"by {label}", [*data, f"s{number} {label}"])

        return process

    for number in range(STATES):
        workflow.define_state(f"s{number}", state(number), next_states=[(bool, f"s{number + 1}")])
    workflow.define_state(f"s{STATES}")
    return workflow


async def main() -> None:
    """Run workflows until killed."""
    url, label, path = sys.argv[1:]
    async with rxd.connect(url) as hub:
        await rxd.run(machine(hub, path, label).worker(lease=0.4, max_concurrent=8))


if __name__ == "__main__":
    asyncio.run(main())

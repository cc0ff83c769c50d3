"""
A process that spills, and records which items are on disk, until killed: ``path journal``.

Memory is full of items, as there is no subscriber, so each new item goes to the disk.
"""

from __future__ import annotations

import asyncio
import sys

import rxdispatch as rxd
from tests.failures.handlers import note


async def main() -> None:
    """Put numbers, ten at a time."""
    path, journal = sys.argv[1], sys.argv[2]
    async with rxd.SpillingIngress[int](path, size=1) as ingress:
        await ingress.put(-1)
        number = 0
        while True:
            await asyncio.gather(*(ingress.put(n) for n in range(number, number + 10)))
            number += 10
            note(journal, str(number))


if __name__ == "__main__":
    asyncio.run(main())

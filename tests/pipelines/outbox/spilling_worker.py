"""
A process that spills, and notes what is known to be on disk, until killed: ``path journal``.

Memory is full of items without a subscriber, so every item that is put goes to the disk.
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

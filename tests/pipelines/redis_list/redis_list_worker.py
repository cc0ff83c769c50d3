"""A process that takes entries from a list, and either holds them or records and settles them."""

from __future__ import annotations

import asyncio
import sys

import rxdispatch as rxd
from rxdispatch import operators as ops


async def main(url: str, held: str) -> None:
    """Take entries until killed."""

    async def handle(item: rxd.ListItem) -> None:
        sys.stdout.write(f"{item.value.decode()}\n")
        sys.stdout.flush()
        if held == "hold":
            await asyncio.sleep(900)
        await item.done()

    await rxd.run(
        rxd.from_redis_list(url, "work", lease=0.6).pipe(ops.map_async(handle, max_concurrent=8))
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

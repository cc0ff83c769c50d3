"""The load that an idle worker puts on the server, and the delay from a lost hint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.store.url import Target
from tests.failures.fleet import NOISE, eventually, subscribed
from tests.servers import valkey_server

Board = rxd.Board[Any]


@asynccontextmanager
async def monitored(target: Target) -> AsyncGenerator[list[str]]:
    """Collect each command that a client sends, but not those that scripts send."""
    commands: list[str] = []
    reader, writer = await asyncio.open_unix_connection(target.path)

    async def reading() -> None:
        while line := (await reader.readline()).decode():
            # A line is +1700000000.123456 [0 unix:/path] "EVALSHA" ...; a script has "lua" as the
            # client.
            if "[" in line and " lua]" not in line.split('"')[0]:
                commands.append(line.split('"')[1].upper())

    writer.write(b"MONITOR\r\n")
    assert b"+OK\r\n" == await reader.readline()
    task = asyncio.create_task(reading())
    try:
        yield commands
    finally:
        task.cancel()
        await asyncio.wait({task})
        writer.close()
        await writer.wait_closed()


async def handler(_: rxd.Task[int]) -> None:
    """Do nothing."""


async def test_idle_workers_send_two_commands_a_second() -> None:
    """An idle worker sends two commands a second at the most, both before and after some work."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: Board = hub.board("b")
        pipeline = asyncio.create_task(
            rxd.run(board.claims().pipe(ops.execute(handler), ops.settle(board)))
        )
        # Skip the start of the worker.
        await asyncio.sleep(0.3)
        for _ in range(2):
            async with monitored(server.target) as commands:
                start = time.monotonic()
                await asyncio.sleep(3.0)
                seconds = time.monotonic() - start
            assert commands, "no command was sent, not even a poll"
            assert len(commands) <= 2.0 * seconds, commands
            await board.submit([rxd.Task(i) for i in range(10)])
            await board.join()
        pipeline.cancel()
        await asyncio.wait({pipeline})


async def test_lost_wakeup_costs_one_poll() -> None:
    """A worker finds tasks within 2 s even if the board does not know that it waits."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: Board = hub.board("b")
        engine: Any = board._engine
        parked = engine._keys.key("parked")
        started: dict[str, float] = {}

        async def notes(task: rxd.Task[int]) -> None:
            started[task.id] = time.monotonic()

        async with subscribed(hub, board):
            pipeline = asyncio.create_task(
                rxd.run(board.claims().pipe(ops.execute(notes), ops.settle(board)))
            )
            await asyncio.sleep(0.3)

            async def delay(task_id: str) -> float:
                start = time.monotonic()
                await board.submit(rxd.Task(0, id=task_id))
                await eventually(lambda: task_id in started)
                return started[task_id] - start

            for i in range(2):
                assert 1 == await hub.client.call("spoil", "DEL", parked)
                assert await delay(f"lost{i}") < 2.0 + NOISE / 2
            # For comparison, a task that is handed over.
            assert await delay("handed") < 0.5
            pipeline.cancel()
            await asyncio.wait({pipeline})

"""Dispatch by boards: in process, in shared memory, and on a server."""

from __future__ import annotations

import asyncio
import os
from typing import ClassVar

import rxdispatch as rxd
from benchmarks.dispatch_ways.dispatch_way import DispatchWay
from benchmarks.dispatch_ways.runs import Payload, Runs, payload
from benchmarks.dispatch_ways.timed_turn import TimedTurn
from rxdispatch import operators as ops
from rxdispatch.boards.base import Board
from rxdispatch.store.embedded.server import EmbeddedServer

__all__ = ["CLAIMED", "InMemory", "InSharedMemory", "OnRedis"]

CLAIMED = 256
WIDTH = 64
NAME = "dispatch-ways"


async def fill(board: Board[Payload], count: int) -> None:
    """Submit *count* tasks."""
    await board.submit(rxd.Task(payload(number)) for number in range(count))


async def take(board: Board[Payload], turn: TimedTurn, runs: Runs) -> None:
    """Claim and settle until the board is empty."""
    did = runs.did
    with turn:
        while claims := await board.claim(CLAIMED):
            for claim in claims:
                did(claim.task.payload)
            await board.settle([claim.done() for claim in claims])


class InMemory(DispatchWay):
    """``claims() | execute(handler) | settle()`` on a ``MemoryBoard``, all in one process."""

    workers: ClassVar[int] = 0

    def fill(self) -> None:
        """Submit the tasks."""
        self._board = rxd.MemoryBoard[Payload](NAME)
        asyncio.run(fill(self._board, self.count))

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Run the pipeline."""
        asyncio.run(self._drain(turn, runs))

    async def _drain(self, turn: TimedTurn, runs: Runs) -> None:
        async def handler(task: rxd.Task[Payload]) -> None:
            runs.did(task.payload)

        with turn:
            await rxd.run(
                self._board.claims(until="joined").pipe(
                    ops.execute(handler, max_concurrent=WIDTH), ops.settle(self._board)
                )
            )


class InSharedMemory(DispatchWay):
    """``claim`` and ``settle`` on a ``SharedMemoryBoard``."""

    _board: rxd.SharedMemoryBoard[Payload] | None = None

    def prepare(self) -> None:
        """Make the board."""
        self._name = f"{NAME}-{os.getpid()}"
        self._board = rxd.SharedMemoryBoard[Payload].create(self._name, capacity=self.count)

    def fill(self) -> None:
        """Submit the tasks; all processes have opened the board by now, so its name can go."""
        assert self._board is not None
        self._board.unlink()
        asyncio.run(fill(self._board, self.count))

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Claim and settle."""
        with rxd.SharedMemoryBoard[Payload].attach(self._name) as board:
            asyncio.run(take(board, turn, runs))

    def close(self) -> None:
        """Remove the board."""
        if self._board is not None:
            self._board.unlink()
            self._board.close()


class OnRedis(DispatchWay):
    """``claim`` and ``settle`` on a board of an embedded server."""

    _server: EmbeddedServer | None = None

    def prepare(self) -> None:
        """Start the server."""
        self._server = asyncio.run(EmbeddedServer.start())
        self._url = f"unix://{self._server.socket_path}"

    def fill(self) -> None:
        """Submit the tasks."""
        asyncio.run(self._fill())

    async def _fill(self) -> None:
        async with rxd.connect(self._url) as hub:
            await fill(hub.board(NAME), self.count)

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Claim and settle."""
        asyncio.run(self._take(turn, runs))

    async def _take(self, turn: TimedTurn, runs: Runs) -> None:
        async with rxd.connect(self._url) as hub:
            board = hub.board(NAME)
            await board.counts()
            await take(board, turn, runs)

    def servers(self) -> list[int]:
        """Return the server's process."""
        assert self._server is not None
        return [self._server.pid]

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            asyncio.run(self._server.stop())

"""Runs drivers as processes; each answer has a time limit, and no process is left behind."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final

from benchmarks.peers.systems import ROOT, System

__all__ = ["Driver", "PeerError", "ask", "driver"]

# One line holds the starts and payloads of all tasks that a worker has handled.
_LONGEST: Final = 1 << 28


class PeerError(Exception):
    """A system did not do what was asked; the message says what."""


class Driver:
    """A running driver process."""

    def __init__(self, process: asyncio.subprocess.Process, words: str) -> None:
        self._process = process
        self._words = words
        self._errors = ""
        self._reading = asyncio.create_task(self._read())

    async def answer(self, seconds: float) -> dict[str, Any]:
        """
        Return what it prints next.

        Raises:
            PeerError: If it ends instead, or does not answer in time.
        """
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise PeerError(f"{self._words}: no answer within {seconds:g} s") from None
        if not line:
            await asyncio.wait([self._reading], timeout=1.0)
            raise PeerError(f"{self._words} ended: {self._errors or 'silently'}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def tell(self, number: int, seconds: float) -> dict[str, Any]:
        """Ask a worker for its next *number* tasks."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % number)
        return await self.answer(seconds)

    async def stop(self) -> None:
        """End it by closing its stdin, and by force if that is not enough."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(2.0):
                await self._process.wait()
        except TimeoutError:
            await self.kill()

    async def kill(self) -> None:
        """End it now, if it has not ended, and wait for its end."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode(errors="replace").strip()
            if text:
                self._errors = text[:300]


@asynccontextmanager
async def driver(system: System, *words: object) -> AsyncGenerator[Driver]:
    """
    Run a driver for the length of the block.

    Raises:
        PeerError: If the runtime that it needs is missing.
    """
    try:
        command = system.command()
    except LookupError as error:
        raise PeerError(str(error)) from error
    process = await asyncio.create_subprocess_exec(
        *command,
        *map(str, words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=_LONGEST,
        cwd=ROOT,
        env=os.environ | system.env,
    )
    running = Driver(process, str(words[0]))
    try:
        yield running
        await running.stop()
    finally:
        await running.kill()


async def ask(system: System, *words: object, seconds: float) -> dict[str, Any]:
    """Run a driver to its end, and return its one answer."""
    async with driver(system, *words) as running:
        return await running.answer(seconds)

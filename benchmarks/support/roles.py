"""Starts another process that runs a module of the benchmarks in a given role."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Final

__all__ = ["ROOT", "role", "start_role"]

ROOT: Final = Path(__file__).parents[2]
"""The directory in which ``python -m`` finds the benchmarks."""


def role(module: str, *arguments: object) -> tuple[str, ...]:
    """Return the command; run it in :data:`ROOT`."""
    return (sys.executable, "-m", module, *map(str, arguments))


async def start_role(module: str, *arguments: object) -> Process:
    """Start the process, with pipes to its standard input and output, and wait for a first line."""
    process = await asyncio.create_subprocess_exec(
        *role(module, *arguments), stdin=PIPE, stdout=PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    await process.stdout.readline()
    return process

"""A loop, a server and a record for the benchmarks of pytest."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import rxdispatch as rxd
from benchmarks.machine import server_version
from benchmarks.record import Record

_records: list[Record] = []


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for the module."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def hub(runner: asyncio.Runner, record: Record) -> Iterator[rxd.Hub]:
    """One embedded server for the module."""
    hub = rxd.connect()
    runner.run(hub.__aenter__())
    record.note(server=runner.run(_version(hub)))
    yield hub
    runner.run(hub.__aexit__(None, None, None))


async def _version(hub: rxd.Hub) -> str:
    redis: Any = hub.client.redis  # The types of redis-py's commands are partial.
    return server_version(await redis.info("server"))


@pytest.fixture(scope="module")
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """What the module measures; its question is the first sentence of the module's docstring."""
    text = ast.get_docstring(ast.parse(request.path.read_text())) or ""
    question = " ".join(text.partition("\n\n")[0].split())
    with Record(request.path.stem, question, quiet=True) as record:
        yield record
    _records.append(record)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, each figure beside what it is compared with."""
    for record in _records:
        terminalreporter.section(record.question)
        group = ""
        for row in record.rows:
            if row.group != group:
                group = row.group
                terminalreporter.write_line(f"-- {group}")
            terminalreporter.write_line(str(row))

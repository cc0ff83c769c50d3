"""A loop, a server and a record for the benchmarks of pytest."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator

import pytest

import rxdispatch as rxd
from benchmarks.figures.record import Record, by_group
from benchmarks.nodes.fleet import note_server

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
    runner.run(note_server(record, hub))
    yield hub
    runner.run(hub.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """What the module measures; its question is the first paragraph of the module's docstring."""
    text = ast.get_docstring(ast.parse(request.path.read_text())) or ""
    record = Record(request.path.stem, text, quiet=True)
    failed = request.session.testsfailed
    yield record
    # Half a suite must not take the place of what a whole one kept.
    if record.rows and request.session.testsfailed == failed:
        record.save()
    _records.append(record)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured, each figure beside what it is compared with."""
    for record in _records:
        if record.rows:
            terminalreporter.section(record.question)
        for group, rows in by_group(record.rows).items():
            if group:
                terminalreporter.write_line(f"-- {group}")
            for row in rows:
                terminalreporter.write_line(str(row))

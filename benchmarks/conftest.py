"""The fixtures of all suites: a loop, a server, a record of the figures, and a size."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import rxdispatch as rxd
from benchmarks.figures.machine import versions
from benchmarks.figures.record import FigureRecord, by_group
from benchmarks.nodes.fleet import note_server

_records: list[FigureRecord] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--size``."""
    text = "the number of items, tasks, nodes or messages, in suites that use a size"
    parser.addoption("--size", type=int, default=None, help=text)


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> int | None:
    """The size asked for; None leaves each suite its own."""
    asked: int | None = request.config.getoption("--size")
    return asked


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for the module."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def hub(runner: asyncio.Runner, record: FigureRecord) -> Iterator[rxd.Hub]:
    """One embedded server for the module."""
    hub = rxd.connect()
    runner.run(hub.__aenter__())
    runner.run(note_server(record, hub))
    yield hub
    runner.run(hub.__aexit__(None, None, None))


@pytest.fixture(scope="module")
def record(request: pytest.FixtureRequest) -> Iterator[FigureRecord]:
    """
    The figures of the module.

    Its question is the first paragraph of the module's docstring; ``PACKAGES`` names distributions
    whose versions matter, besides the dependencies of rxdispatch.
    """
    text = ast.get_docstring(ast.parse(request.path.read_text())) or ""
    record = FigureRecord(request.path.stem, text, quiet=True)
    asked: Any = request  # Its module has no type.
    record.note_versions(versions(*getattr(asked.module, "PACKAGES", ())))
    failed = request.session.testsfailed
    yield record
    # The figures of a failed run must not replace those of a complete run.
    if record.rows and request.session.testsfailed == failed:
        record.save()
    _records.append(record)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print each figure beside its baseline."""
    for record in _records:
        if record.rows:
            terminalreporter.section(record.question)
        for group, rows in by_group(record.rows).items():
            if group:
                terminalreporter.write_line(f"-- {group}")
            for row in rows:
                terminalreporter.write_line(str(row))

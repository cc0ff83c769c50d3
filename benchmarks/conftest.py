"""A loop and a server for the benchmarks of pytest."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import rxdispatch as rxd


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """One loop for the module."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def hub(runner: asyncio.Runner) -> Iterator[rxd.Hub]:
    """One embedded server for the module."""
    hub = rxd.connect()
    runner.run(hub.__aenter__())
    yield hub
    runner.run(hub.__aexit__(None, None, None))

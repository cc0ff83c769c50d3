"""
Fixtures for pytest.

Put ``pytest_plugins = ["rxdispatch.testing.plugin"]`` into the top-level ``conftest.py``, or
import the fixtures that you need there. No other module of rxdispatch imports pytest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from rxdispatch.testing._leaks import no_leaks
from rxdispatch.testing._loop import VirtualTimeLoop, run_virtual

__all__ = ["run_leak_free", "virtual_loop"]


@pytest.fixture
def virtual_loop() -> Iterator[VirtualTimeLoop]:
    """
    Return a ``VirtualTimeLoop``, for ``virtual_loop.run_until_complete(...)``.

    At the end of the test the fixture cancels its remaining tasks and closes it.
    """
    made: list[VirtualTimeLoop] = []

    def make() -> VirtualTimeLoop:
        made.append(VirtualTimeLoop())
        return made[0]

    with asyncio.Runner(loop_factory=make) as runner:
        runner.get_loop()
        yield made[0]


@pytest.fixture
def run_leak_free() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """
    Return a function that runs a coroutine on virtual time and returns its result.

    It raises ``AssertionError`` if the coroutine leaks a timer, a task, a subscription or a valve.
    """

    async def checked(main: Coroutine[Any, Any, Any]) -> Any:
        async with no_leaks():
            return await main

    return lambda main: run_virtual(checked(main))

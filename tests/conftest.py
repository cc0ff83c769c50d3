"""Runs coroutine test functions, and fails a test that leaves something running."""

from __future__ import annotations

import asyncio
import inspect
import signal
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest
import structlog
from hypothesis import settings

from tests.servers import NO_REDIS, other_ca, throwaway_ca

__all__ = ["other_ca", "throwaway_ca"]

# The time that an example takes depends on how busy the machine is.
settings.register_profile("rxdispatch", deadline=None)
settings.load_profile("rxdispatch")


async def _checked(test: Coroutine[Any, Any, None]) -> None:
    trouble: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: trouble.append(context))
    await test
    # Cancelled and closed objects need a few turns of the loop to end.
    for _ in range(3):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks left behind: {left}"
    assert not trouble, f"errors in the loop: {trouble}"


@pytest.fixture(autouse=True)
def _structlog_as_it_comes() -> Iterator[None]:
    """A test that captures logs configures structlog; reset it for the next test."""
    yield
    structlog.reset_defaults()


def pytest_configure() -> None:
    # A shell starts a command in the background with SIGINT ignored, and processes inherit that.
    # Tests interrupt processes.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = terminalreporter.getreports("skipped")
    missing = sum(NO_REDIS in str(report.longrepr) for report in skipped)
    if missing:
        terminalreporter.write_line(
            f"Redis was not tested: {missing} tests need a redis-server on the PATH, such as that"
            " of 'apt-get install redis-server' or 'brew install redis'. Valkey was tested."
        )


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    # A fixture with the name ``loop_factory`` gives the test a loop of another kind.
    factory: Any = pyfuncitem.funcargs.get("loop_factory")
    with asyncio.Runner(debug=False, loop_factory=factory) as runner:
        runner.run(_checked(pyfuncitem.obj(**arguments)))
    return True

"""``no_leaks`` and the fixtures of the plugin."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject

from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.streams import run
from rxdispatch.testing import Supply, no_leaks, run_virtual

ROOT = Path(__file__).parents[2]


async def later(item: int) -> int:
    """Return the item after a second."""
    await asyncio.sleep(1)
    return item


def leaked(leave: Callable[[], Any]) -> str:
    """Return the error that ``no_leaks`` raises after *leave*, whose result is kept until then."""

    async def main() -> str:
        kept: Any = None
        try:
            async with no_leaks():
                kept = leave()
        except AssertionError as error:
            return str(error)
        finally:
            del kept
        return ""

    return run_virtual(main())


def test_a_stream_that_ended_leaves_nothing() -> None:
    """The stream may complete, fail, be disposed or be cancelled."""

    async def fails(item: int) -> int:
        await asyncio.sleep(1)
        raise ValueError(item)

    async def main() -> None:
        async with no_leaks():
            await run(Supply(range(9)).pipe(map_async(later, max_concurrent=2), batch(2, 5.0)))
            with pytest.raises(ValueError, match="0"):
                await run(Supply(range(9)).pipe(map_async(fails)))
            Supply(range(9)).pipe(map_async(later), batch(2, 5.0)).subscribe().dispose()
            task = asyncio.create_task(run(Supply(range(9)).pipe(map_async(later), rx.share())))
            await asyncio.sleep(0.5)
            task.cancel()

    run_virtual(main())


def test_a_task_that_runs_on_is_told() -> None:
    """The error names the task."""
    said = leaked(lambda: asyncio.create_task(asyncio.sleep(9), name="sleeper"))
    assert "got 1 task: sleeper; 1 timer: " in said


def test_a_timer_that_is_set_is_told() -> None:
    """A cancelled timer is not a leak."""
    assert "got 1 timer: " in leaked(lambda: asyncio.get_running_loop().call_later(9, print))
    assert "" == leaked(lambda: asyncio.get_running_loop().call_later(9, print).cancel())


def test_a_subscription_that_was_not_disposed_is_told() -> None:
    """Subscriptions to RxPY's operators count while something refers to them."""
    source: Subject[int] = Subject()
    assert "got 2 subscriptions: " in leaked(lambda: source.pipe(rx.map(str)).subscribe(print))
    said = leaked(lambda: source.pipe(batch(2, 1.0)).subscribe(print))
    assert "2 subscriptions: " in said
    assert "1 valve: " in said
    assert "" == leaked(lambda: reactivex.empty().subscribe(print))
    assert "1 subscription: " in leaked(lambda: reactivex.never().subscribe(print))


def test_a_valve_of_retry_backoff_that_is_left_is_told() -> None:
    """The gate of an operator that holds no items counts too."""
    source: Subject[int] = Subject()
    said = leaked(lambda: source.pipe(retry_backoff()).subscribe(print))
    assert "1 valve: " in said
    assert "_stop" in said
    assert "" == leaked(lambda: source.pipe(retry_backoff()).subscribe(print).dispose())


def test_what_was_there_before_is_not_told() -> None:
    """Only leaks of the block count."""

    async def main() -> None:
        source: Subject[int] = Subject()
        subscription = source.pipe(batch(2, 5.0)).subscribe()
        source.on_next(1)
        task = asyncio.create_task(asyncio.sleep(9))
        await asyncio.sleep(0)
        async with no_leaks():
            await asyncio.sleep(1)
        subscription.dispose()
        task.cancel()

    run_virtual(main())


def test_an_error_of_the_block_comes_first() -> None:
    """Leaks do not replace the error of the block."""

    async def main() -> None:
        async with no_leaks():
            task = asyncio.create_task(asyncio.sleep(9))
            raise KeyError(task.get_name())

    with pytest.raises(KeyError):
        run_virtual(main())


def test_the_fixtures_work_in_a_project_of_its_own(tmp_path: Path) -> None:
    """A ``conftest.py`` that names the plugin is enough."""
    tmp_path.joinpath("conftest.py").write_text('pytest_plugins = ["rxdispatch.testing.plugin"]\n')
    tmp_path.joinpath("test_it.py").write_text(
        """
import asyncio, pytest

def test_loop(virtual_loop):
    virtual_loop.run_until_complete(asyncio.sleep(3600))
    assert virtual_loop.time() == 3600.0

def test_clean(run_leak_free):
    assert run_leak_free(asyncio.sleep(5, "done")) == "done"

def test_leak(run_leak_free):
    async def main():
        asyncio.get_running_loop().call_later(9, print)
    with pytest.raises(AssertionError, match="1 timer"):
        run_leak_free(main())
"""
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "3 passed" in done.stdout, done.stdout


def test_nothing_needs_pytest_but_the_plugin() -> None:
    """The tools work without pytest."""
    code = "import sys, rxdispatch.testing; assert 'pytest' not in sys.modules"
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        check=True,
    )

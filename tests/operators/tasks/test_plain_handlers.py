"""Plain functions as handlers, which misbehave in real threads and processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest
from structlog.testing import capture_logs

from rxdispatch.errors import ItemTimeoutError
from rxdispatch.operators.tasks import _stuck_slots
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.task import Task
from rxdispatch.testing import Probe
from tests.operators.flow.runs import to_list
from tests.operators.tasks.places import Board, Result, filled, marks
from tests.operators.tasks.test_hostile_handlers import ERRORS


@pytest.fixture(autouse=True)
def loop_factory() -> None:
    """Use real time, as threads and processes do."""


async def ends(board: Board, handler: Any, **options: Any) -> list[Result]:
    """Run *handler* for the ready tasks of *board*; return the outcomes."""
    with capture_logs():
        stream = board.claims(until="idle").pipe(execute(handler, **options), settle(board))
        return list(await to_list(stream))


@pytest.mark.parametrize("name", [*ERRORS, "keyboard interrupt"])
async def test_whatever_a_function_in_a_thread_raises_is_a_failed_attempt(name: str) -> None:
    """The slot is free, and the loop goes on."""
    board, _ = await filled(4, max_attempts=1)
    raises: Callable[[], BaseException] = {**ERRORS, "keyboard interrupt": KeyboardInterrupt}[name]

    def handler(task: Task[Any]) -> None:
        if task.payload == 0:
            raise raises()

    found = await ends(board, handler, max_concurrent=1)
    assert ["dead", "done", "done", "done"] == [o.status for o in found]


def interrupts(task: Task[Any]) -> None:
    """Raise, in another process, an exception that would end this one."""
    if task.payload == 0:
        raise KeyboardInterrupt
    if task.payload == 1:
        raise GeneratorExit


async def test_a_keyboard_interrupt_in_a_process_is_a_failed_attempt() -> None:
    """The error is not taken for an interrupt of this process."""
    board, _ = await filled(4, max_attempts=1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = await ends(board, interrupts, executor=pool)
    assert ["dead", "dead", "done", "done"] == sorted(o.status for o in found)
    letters = [letter.error async for letter in board.dead_letters()]
    assert ["RuntimeError: handler raised KeyboardInterrupt"] == letters[:1]


async def test_the_limit_holds_for_what_a_function_returns_to_await() -> None:
    """The limit is for the whole attempt, including the time of the function."""
    board, _ = await filled(1, max_attempts=1, timeout=0.2)

    async def slow() -> None:
        await asyncio.sleep(60)

    def starts(_: Task[Any]) -> Any:
        return slow()

    (outcome,) = await ends(board, starts)
    assert outcome.error is not None
    error = outcome.error.__cause__
    assert isinstance(error, ItemTimeoutError)
    assert 0.2 == error.seconds
    assert 0.15 < outcome.duration < 30


async def test_a_generator_or_a_coroutine_is_no_result() -> None:
    """Nothing of a generator ran; a coroutine that a plain function returns is awaited, however."""
    board, _ = await filled(6, max_attempts=1)

    async def inner() -> int:
        return 5

    async def outer() -> Any:
        return inner()

    def numbers() -> Any:
        yield 1

    async def letters() -> Any:
        yield "a"

    makers: list[Callable[[], Any]] = [numbers, letters, outer, inner, int, dict]

    def makes(task: Task[Any]) -> Any:
        number: int = task.payload
        return makers[number]()

    found = await ends(board, makes, max_concurrent=1)
    assert ["dead", "dead", "dead", "done", "done", "done"] == [o.status for o in found]
    assert [5, 0, {}] == [o.result for o in found[3:]]
    said = [letter.error async for letter in board.dead_letters()]
    rule = "TypeError: handler must return a result, got "
    assert [
        rule + "a generator that has not run",
        rule + "an async generator that has not run",
        rule + "a coroutine that has not run",
    ] == said


async def test_all_slots_stuck_is_said_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The warnings name the handler, and stop when one has returned."""
    monkeypatch.setattr(_stuck_slots, "AGAIN", 0.05)
    go = threading.Event()
    board, _ = await filled(5, max_attempts=1, timeout=0.05)

    def hangs(task: Task[Any]) -> None:
        if task.payload < 2:
            go.wait()

    with capture_logs() as logs:
        subscription = (
            board.claims().pipe(execute(hangs, max_concurrent=2), settle(board)).subscribe(Probe())
        )
        while sum(entry["event"] == "slots_stuck" for entry in logs) < 3:
            await asyncio.sleep(0.01)
        assert 2 == (await board.counts()).dead
        go.set()
        await board.join()
        said = len(logs)
        await asyncio.sleep(0.2)
        assert said == len(logs)
        subscription.dispose()
    warnings = [entry for entry in logs if entry["event"] == "slots_stuck"]
    assert {("warning", 2)} == {(entry["log_level"], entry["slots"]) for entry in warnings}
    assert all("hangs" in entry["handlers"] for entry in warnings)
    assert (0, 0, 0, 3, 2) == await marks(board)


async def test_a_loop_of_its_own_in_a_handler() -> None:
    """A plain handler may run a loop; in a coroutine function that fails the attempt."""
    board, _ = await filled(1, max_attempts=1)

    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    def runs(_: Task[Any]) -> int:
        return asyncio.run(work())

    (outcome,) = await ends(board, runs)
    assert 7 == outcome.result

    async def handler(_: Task[Any]) -> None:
        coroutine = work()
        try:
            asyncio.run(coroutine)
        finally:
            coroutine.close()

    board, _ = await filled(1, max_attempts=1)
    (outcome,) = await ends(board, handler)
    assert "dead" == outcome.status

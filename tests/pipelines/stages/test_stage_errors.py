"""Whatever a user's function raises or is, only its item fails."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from tests.pipelines.stages.test_stage import AT_ONCE, through


class PanicError(BaseException):
    """An error that bindings to other languages raise."""


class SilentError(Exception):
    """An error without a usable message."""

    def __str__(self) -> str:
        raise KeyError("code")


ERRORS = [
    (SystemExit(3), SystemExit, SystemExit),
    (GeneratorExit(), GeneratorExit, GeneratorExit),
    (PanicError("rust"), PanicError, PanicError),
    (StopIteration(), RuntimeError, RuntimeError),
    (asyncio.CancelledError(), asyncio.CancelledError, asyncio.CancelledError),
    (BaseExceptionGroup("two", [PanicError()]), BaseExceptionGroup, BaseExceptionGroup),
    (SilentError(), SilentError, SilentError),
]


@pytest.mark.parametrize("retry", [None, AT_ONCE])
@pytest.mark.parametrize("kind", ["plain", "coroutine", "graph"])
@pytest.mark.parametrize(("error", "in_thread", "on_loop"), ERRORS)
async def test_an_item_fails_whatever_its_function_raises(
    error: BaseException, in_thread: type, on_loop: type, kind: str, retry: Any
) -> None:
    """The other items come through, and the slot is free."""

    def plain(n: int) -> int:
        if n == 0:
            raise error
        return n

    async def coroutine(n: int) -> int:
        return plain(n)

    if kind == "graph":
        got, failed = await through_graph(coroutine, retry)
    else:
        fn = plain if kind == "plain" else coroutine
        got, failed, _ = await through(rxd.stage(fn, max_concurrent=1, backoff=retry), range(3))
    assert [1, 2] == got
    assert [in_thread if kind == "plain" else on_loop] == [type(f.__cause__) for f in failed]


async def through_graph(fn: Any, retry: Any) -> tuple[list[Any], list[rxd.StageError]]:
    """Send three items through a graph of one node."""
    graph, got, failed = rxd.Graph(), list[Any](), list[rxd.StageError]()
    graph.add_node("n", fn, backoff=retry)
    async with graph.run() as run:
        run.results("n").subscribe(got.append)
        run.failures.subscribe(failed.append)
        for n in range(3):
            await run.submit("n", n)
    return got, failed


def test_a_keyboard_interrupt_of_a_coroutine_is_for_the_process_too() -> None:
    """The item fails first, and then the error ends the process."""
    failed: list[rxd.StageError] = []

    async def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        async with rxd.Pipeline(rxd.stage(interrupted)) as p:
            p.failures.subscribe(failed.append)
            await p.submit(1)

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert [KeyboardInterrupt] == [type(failure.__cause__) for failure in failed]


async def test_a_keyboard_interrupt_in_a_thread_is_a_failure() -> None:
    """An interrupt from the keyboard never reaches a thread, so the error is the function's own."""

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    _, failed, _ = await through(rxd.stage(interrupted), [1])
    assert ["fn raised KeyboardInterrupt"] == [str(failure.__cause__) for failure in failed]


async def test_what_on_error_raises_is_the_failure() -> None:
    """Any error of ``on_error`` becomes the failure."""

    def replaced(item: int, error: BaseException) -> int:
        raise SystemExit(item)

    def fail(n: int) -> int:
        return 1 // n

    stage = rxd.stage(fail, on_error=replaced)
    got, failed, _ = await through(stage, [0, 1])
    assert [1] == got
    assert [SystemExit] == [type(failure.__cause__) for failure in failed]


async def test_a_dead_letter_of_a_stage_says_why() -> None:
    """The dead letter has the error of the function."""

    async def same(n: int) -> int:
        return n

    async def mail(_: int) -> None:
        raise ValueError("customer 4711 has no address")

    async with rxd.connect("memory://") as hub:
        stages = (rxd.stage(same), rxd.stage(mail, board="mails"))
        async with rxd.Pipeline(*stages, boards=hub.board) as p:
            await p.submit(1, id="a")
        with capture_logs():
            await rxd.run(rxd.Pipeline(*stages).worker("mail", hub.board, until="joined"))
        letters = [letter async for letter in hub.board("mails").dead_letters()]
    assert ["ValueError: customer 4711 has no address"] == [letter.error for letter in letters]


def rows(item: Any) -> Any:
    """A generator function, which runs nothing when called."""
    yield item


async def arows(item: Any) -> Any:
    """An async generator function, which runs nothing when called."""
    yield item


@pytest.mark.parametrize("fn", [rows, arows])
def test_generator_functions_are_refused(fn: Any) -> None:
    """The stage refuses them when it is made, as nothing of them would run."""
    rule = "must not be a generator function"
    with pytest.raises(rxd.ConfigError, match=f"fn {rule}"):
        rxd.stage(fn)
    with pytest.raises(rxd.ConfigError, match=f"fn {rule}"):
        rxd.Graph().add_node("n", fn)


def test_a_keyboard_interrupt_of_a_claimed_item_lets_its_lease_lapse() -> None:
    """The task is neither dead nor released: the lapse counts as a crash."""
    states: list[Any] = []

    async def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        board = rxd.MemoryBoard[Any]("b")
        await board.submit(rxd.Task(1, id="a"))
        p = rxd.Pipeline(rxd.stage(interrupted, board=board))
        try:
            await rxd.run(p.worker("interrupted", until="joined"))
        finally:
            states.append(await board.get("a"))

    with capture_logs(), pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert [("CLAIMED", 0)] == [(state.status.value, state.crashes) for state in states]

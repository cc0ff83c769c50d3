"""``execute`` with handlers that raise, cancel or return what they should not."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Generator
from typing import Any

import pytest
from structlog.testing import capture_logs

from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.streams import run
from rxdispatch.task import Task
from rxdispatch.testing import Probe
from tests.operators.tasks.places import Board, Result, filled, marks, place, turns


class Panic(BaseException):
    """An error like those of extensions that are written in Rust."""


class MuteError(Exception):
    """An error that cannot be printed, compared, pickled, or asked for its class."""

    def __str__(self) -> str:
        raise KeyError("code")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise KeyError("code")

    __hash__ = None  # type: ignore[assignment]

    @property  # type: ignore[misc]
    def __class__(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise KeyError("code")

    def __reduce__(self) -> Any:
        raise KeyError("code")


def silent(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Replace the exception handler of a loop by one that does nothing."""
    del loop, context


def cyclic() -> Exception:
    """Return an error that is its own cause."""
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


def deep() -> Exception:
    """Return an error with a very long chain of causes."""
    error = ValueError("0")
    for n in range(5000):
        following = ValueError(str(n))
        following.__cause__ = error
        error = following
    return error


ERRORS: dict[str, Callable[[], BaseException]] = {
    "panic": Panic,
    "mute": MuteError,
    "system exit": SystemExit,
    "generator exit": GeneratorExit,
    "stop iteration": lambda: StopIteration(5),
    "stop async iteration": StopAsyncIteration,
    "cancelled": asyncio.CancelledError,
    "group": lambda: BaseExceptionGroup("g", [Panic(), ValueError("x")]),
    "cyclic": cyclic,
    "deep": deep,
    "long": lambda: ValueError("x" * 5_000_000),
    "surrogate": lambda: ValueError("\udcff\x1b[2J"),
}


async def ends(board: Board, handler: Any, **options: Any) -> list[Result]:
    """Run *handler* on *board* until no task remains; return the outcomes."""
    log = Probe()
    board.claims(until="joined", lease=30.0).pipe(
        execute(handler, **options), settle(board)
    ).subscribe(log)
    with capture_logs():
        async with asyncio.timeout(5000):
            while not log.notifications or log.notifications[-1] != "|":
                await asyncio.sleep(10)
    return log.notifications[:-1]


@pytest.mark.parametrize("name", ERRORS)
@pytest.mark.parametrize("where", ["at once", "later", "in finally", "in a child"])
async def test_whatever_a_handler_raises_is_a_failed_attempt(name: str, where: str) -> None:
    """The slot is free, and the only worker goes on."""
    board, _ = await filled(5, max_attempts=2, timeout=5.0)
    raises = ERRORS[name]

    async def child() -> None:
        await asyncio.sleep(1)
        raise raises()

    async def handler(task: Task[Any]) -> None:
        if task.payload != 0:
            return
        if where == "at once":
            raise raises()
        try:
            await asyncio.sleep(1 if where == "later" else 100)
        finally:
            # The limit of the attempt cancels this wait too.
            raise raises()

    async def gathers(task: Task[Any]) -> None:
        if task.payload == 0:
            await asyncio.gather(child())

    if where == "in a child" and name in {"system exit", "generator exit"}:
        pytest.skip("asyncio itself ends the loop, or the task, of such a child")
    found = await ends(board, gathers if where == "in a child" else handler, max_concurrent=1)
    assert ["dead", "done", "done", "done", "done", "retry"] == sorted(o.status for o in found)
    assert (0, 0, 0, 4, 1) == await marks(board)
    (letter,) = [letter async for letter in board.dead_letters()]
    assert ("failed", 2) == (letter.reason, letter.attempts)


async def test_an_error_without_words_does_not_end_the_stream() -> None:
    """The dead letter says that the error has no text."""
    board, _ = await filled(2, max_attempts=1)

    async def handler(task: Task[Any]) -> None:
        if task.payload == 0:
            raise MuteError

    await ends(board, handler)
    (letter,) = [letter async for letter in board.dead_letters()]
    assert "MuteError: <no message: KeyError>" == letter.error


# ---------------------------------------------------------------- cancellations


async def test_an_idle_worker_that_is_cancelled_is_no_loss() -> None:
    """A handler kept a reference to its asyncio task, which is cancelled after the attempt."""
    board, _ = place()
    given: list[asyncio.Task[Any]] = []

    async def handler(task: Task[Any]) -> None:
        given.append(asyncio.current_task())  # type: ignore[arg-type]
        await asyncio.sleep(0.02)

    subscription = board.claims(lease=1.0).pipe(execute(handler), settle(board)).subscribe(Probe())
    await board.submit(Task(0))
    await asyncio.sleep(1)
    for again in range(3):
        given[0].cancel()
        if again == 1:
            await asyncio.sleep(1)  # or just when it gets the next claim
        await board.submit(Task(n) for n in range(10))
        await asyncio.sleep(2)
        assert (0, 0, 0, 1 + 10 * (again + 1), 0) == await marks(board)
    subscription.dispose()


@pytest.mark.parametrize("turns_later", range(6))
async def test_a_worker_that_is_cancelled_on_its_way_is_no_loss(turns_later: int) -> None:
    """All tasks are done, in whichever turn of the loop the cancellation comes."""
    board, _ = place()
    given: list[asyncio.Task[Any]] = []

    async def handler(task: Task[Any]) -> None:
        given.append(asyncio.current_task())  # type: ignore[arg-type]
        await asyncio.sleep(0.02)

    subscription = (
        board.claims(lease=1.0).pipe(execute(handler, max_concurrent=2), settle(board))
    ).subscribe(Probe())
    with capture_logs():
        await board.submit(Task(n) for n in range(4))
        await asyncio.sleep(1)
        await board.submit(Task(n, max_attempts=99) for n in range(4))
        await turns(turns_later)
        for task in set(given):
            task.cancel()
        await asyncio.sleep(50)
        assert (0, 0, 0, 8, 0) == await marks(board)
    subscription.dispose()


@pytest.mark.parametrize("how", ["self", "other", "uncancelled", "late", "swallowed"])
async def test_a_handler_that_cancels_a_worker_has_failed(how: str) -> None:
    """Only the attempt that was cancelled fails, whether its own or another one."""
    board, _ = await filled(8, max_attempts=3)
    running: dict[int, asyncio.Task[Any]] = {}
    innocent: list[BaseException] = []

    async def handler(task: Task[Any]) -> None:
        me: Any = asyncio.current_task()
        running[task.payload] = me
        if task.payload == 0:
            if how == "other":
                await asyncio.sleep(1)
                running[1].cancel()
                return
            if how == "swallowed":
                me.cancel()
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    return
            me.cancel()
            if how == "uncancelled":
                me.uncancel()
                return
            if how == "late":
                return
        elif task.payload == 1 and how == "other":
            await asyncio.sleep(2)
            return
        try:
            await asyncio.sleep(0.5)
        except asyncio.CancelledError as error:
            if task.payload != 0:
                innocent.append(error)
            raise

    found = await ends(board, handler, max_concurrent=2)
    counts = {"self": (7, 1, 2), "other": (8, 0, 1)}.get(how, (8, 0, 0))
    statuses = [o.status for o in found]
    assert counts == tuple(statuses.count(s) for s in ("done", "dead", "retry"))
    assert [] == innocent


async def test_all_tasks_cancelled_and_the_loop_goes_on() -> None:
    """Some frameworks cancel all tasks to reset; claims, workers and writes recover."""
    board, engine = await filled(20, max_attempts=9)
    engine.after["settle"] = 0.2
    engine.before["claim"] = 0.05

    async def handler(task: Task[Any]) -> None:
        await asyncio.sleep(0.1)

    subscription = (
        board.claims(lease=5.0)
        .pipe(execute(handler, max_concurrent=2), settle(board, count=2))
        .subscribe(Probe())
    )
    me = asyncio.current_task()
    with capture_logs():
        for wait in (0.0, 0.02, 0.07, 0.13, 0.2, 0.31, 0.4):
            await asyncio.sleep(wait)
            for task in asyncio.all_tasks() - {me}:
                task.cancel()
        await asyncio.sleep(60)
    assert (0, 0, 0, 20, 0) == await marks(board)
    subscription.dispose()
    await asyncio.sleep(1)  # a poll may be on its way


# ---------------------------------------------------------------- the end of the process


@pytest.mark.parametrize("later", [False, True])
def test_keyboard_interrupt_counts_as_a_crash(later: bool) -> None:
    """The error ends the loop; the lease of this claim lapses, while the others go back."""

    async def handler(task: Task[Any]) -> None:
        if task.payload == 0:
            if later:
                await asyncio.sleep(0.001)
            raise KeyboardInterrupt
        await asyncio.sleep(100)

    async def main() -> None:
        with capture_logs():
            try:
                await run(
                    board.claims(lease=0.2).pipe(execute(handler, max_concurrent=3), settle(board))
                )
            finally:
                await board._intakes.drain(0.0, asyncio.Event())

    async def after() -> tuple[int, ...]:
        await asyncio.sleep(0.3)
        await board.claim(0)
        state = await board.get("0")
        assert state is not None
        return state.attempts, state.crashes, (await board.counts()).ready

    board, _ = asyncio.run(filled(3))
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())
    assert (0, 1, 3) == asyncio.run(after())


def test_a_worker_that_is_thrown_away_with_its_loop_ends_its_handler() -> None:
    """The handler's ``finally`` runs, and nothing is logged."""
    ended: list[str] = []

    async def handler(task: Task[Any]) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(task.id)

    async def start() -> Board:
        board, _ = await filled(2)
        board.claims().pipe(execute(handler), settle(board)).subscribe(Probe())
        await turns(20)
        return board

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(silent)
    loop.run_until_complete(start())
    loop.close()
    gc.collect()
    assert ["0", "1"] == sorted(ended)


# ---------------------------------------------------------------- strange awaitables


class Garbage:
    """An awaitable that yields something other than a future."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield "garbage"


class Raises:
    """An awaitable that raises."""

    def __await__(self) -> Generator[Any, Any, None]:
        raise Panic


class NoIterator:
    """An awaitable whose ``__await__`` returns no iterator."""

    def __await__(self) -> Any:
        return 5


@pytest.mark.parametrize("kind", [Garbage, Raises, NoIterator])
async def test_strange_awaitables_fail_their_attempt(kind: Any) -> None:
    """A coroutine function awaits them."""
    board, _ = await filled(4, max_attempts=1)

    async def awaits(task: Task[Any]) -> None:
        if task.payload == 0:
            await kind()

    found = await ends(board, awaits, max_concurrent=1)
    assert ["dead", "done", "done", "done"] == sorted(o.status for o in found)


async def test_no_claim_is_held_by_the_error_of_its_attempt() -> None:
    """A failed outcome that is dropped is noticed at once, without the garbage collector."""
    board, _ = await filled(1)

    async def handler(task: Task[Any]) -> None:
        raise ValueError("x")

    gc.disable()
    try:
        with capture_logs() as logs:
            stream = board.claims(lease=5.0).pipe(execute(handler))
            subscription = stream.subscribe(lambda _: None)
            await turns(20)
            subscription.dispose()
        assert ["attempt_failed", "outcomes_dropped"] == [entry["event"] for entry in logs]
    finally:
        gc.enable()

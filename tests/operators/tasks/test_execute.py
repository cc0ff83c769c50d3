"""``execute``: the outcomes of claims, the handlers, and the asyncio tasks that run them."""

from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from structlog.testing import capture_logs

from rxdispatch.backoff import Backoff
from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.errors import ConfigError, ItemTimeoutError, TaskExecutionError
from rxdispatch.operators.tasks._current_claim import current_claim
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._execution import BURST
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.streams import run
from rxdispatch.task import Task
from rxdispatch.testing import Probe
from tests.operators.flow.runs import to_list
from tests.operators.tasks.places import (
    Board,
    Hand,
    Result,
    filled,
    ids,
    marks,
    place,
    turns,
)

FLAT = Backoff(first=2.0, factor=3.0, maximum=100.0, jitter=0.0)


async def outcomes(board: Board, handler: Any, **options: Any) -> list[Result]:
    """Run *handler* for the ready tasks of *board* and return the outcomes."""
    return list(await to_list(board.claims(until="idle").pipe(execute(handler, **options))))


async def sleeps(task: Task[Any]) -> Any:
    """Sleep as many seconds as the payload says."""
    await asyncio.sleep(task.payload)
    return task.payload


# ---------------------------------------------------------------- values


async def test_results_are_emitted_as_they_come() -> None:
    """Each outcome has the duration of its attempt."""
    board, _ = place()
    await board.submit([Task(3.0, id="slow"), Task(1.0, id="fast")])
    log = Probe()
    board.claims(until="idle").pipe(execute(sleeps)).subscribe(log)
    await asyncio.sleep(9)
    assert [1.0, 3.0, 3.0] == [when for when, _ in log.timeline]
    fast, slow, end = log.notifications
    assert (["fast", "slow"], "|") == (ids([fast, slow]), end)
    assert [("done", 1.0, 1.0, None), ("done", 3.0, 3.0, None)] == [
        (o.status, o.result, o.duration, o.error) for o in (fast, slow)
    ]


async def test_a_failure_is_retried_after_the_backoff() -> None:
    """The error of the outcome wraps the handler's own."""
    board, _ = await filled(1)
    cause = ValueError("x")

    async def handler(task: Task[Any]) -> None:
        await asyncio.sleep(1)
        raise cause

    attempts: list[Result] = []
    stream = board.claims(until="joined").pipe(execute(handler, backoff=FLAT), settle(board))
    log = Probe()
    stream.subscribe(log)
    await asyncio.sleep(2000)
    attempts = log.notifications[:-1]
    assert ["retry"] * 4 + ["dead"] == [o.status for o in attempts]
    assert [2.0, 6.0, 18.0, 54.0, 0.0] == [o.delay for o in attempts]
    assert [1, 2, 3, 4, 5] == [o.claim.attempt for o in attempts]
    assert ["", "", "", "", "failed"] == [o.reason for o in attempts]
    for n, outcome in enumerate(attempts, 1):
        error = outcome.error
        assert isinstance(error, TaskExecutionError)
        assert ("0", n) == (error.task_id, error.attempt)
        assert cause is error.__cause__
    letters = [letter async for letter in board.dead_letters()]
    assert [("failed", "ValueError: x", 5)] == [(d.reason, d.error, d.attempts) for d in letters]


async def test_the_last_attempt_is_dead_at_once() -> None:
    """With one attempt there is no retry."""
    board, _ = await filled(1, max_attempts=1)

    async def handler(_: Task[Any]) -> None:
        raise ValueError("x")

    (outcome,) = await outcomes(board, handler)
    assert ("dead", "failed", 0.0) == (outcome.status, outcome.reason, outcome.delay)


async def test_a_handler_that_cancels_itself_has_failed() -> None:
    """The attempt fails, whether or not the handler has waited before; the worker goes on."""
    board, _ = await filled(4)

    async def handler(task: Task[Any]) -> str:
        if task.payload in {1, 2}:
            await asyncio.sleep(task.payload - 1)
            raise asyncio.CancelledError
        if task.payload == 0:
            raise asyncio.CancelledError
        return "fine"

    found = await outcomes(board, handler, max_concurrent=1)
    assert ["retry", "retry", "retry", "done"] == [o.status for o in found]
    errors = [o.error.__cause__ for o in found[:3] if o.error is not None]
    assert [asyncio.CancelledError] * 3 == [type(error) for error in errors]


async def test_a_callable_object_and_a_partial_are_coroutine_functions_too() -> None:
    """They count as coroutine functions if they call one."""

    class Doubles:
        async def __call__(self, task: Task[Any]) -> int:
            return int(task.payload) * 2

    async def adds(number: int, task: Task[Any]) -> int:
        return int(task.payload) + number

    for handler in (Doubles(), functools.partial(adds, 7), Doubles().__call__):
        board, _ = await filled(3)
        found = await outcomes(board, handler)
        assert {"done"} == {o.status for o in found}
        with pytest.raises(ConfigError, match="executor must be None"):
            execute(handler, executor=ThreadPoolExecutor(1))


# ---------------------------------------------------------------- concurrency


@pytest.mark.parametrize("most", [1, 3, 16])
async def test_so_many_run_at_a_time_and_no_more(most: int) -> None:
    """The number is reached as long as there is work."""
    board, _ = await filled(50)
    running: list[int] = []
    now = 0

    async def handler(task: Task[Any]) -> None:
        nonlocal now
        now += 1
        running.append(now)
        await asyncio.sleep(1 + task.payload % 3)
        now -= 1

    await outcomes(board, handler, max_concurrent=most)
    assert most == max(running)
    assert 50 == len(running)


async def test_handlers_start_in_order() -> None:
    """Handlers start in the order in which their claims came."""
    board, _ = await filled(20)
    started: list[str] = []

    async def handler(task: Task[Any]) -> None:
        started.append(task.id)
        await asyncio.sleep(1)

    await outcomes(board, handler, max_concurrent=4)
    assert [str(n) for n in range(20)] == started


async def test_handlers_that_never_wait_leave_others_a_turn() -> None:
    """The loop gets a turn after at most 64 of them."""
    board, _ = await filled(1000)
    ran = 0
    seen: list[int] = []

    async def handler(_: Task[Any]) -> None:
        nonlocal ran
        ran += 1

    async def watch() -> None:
        while ran < 1000:
            seen.append(ran)
            await asyncio.sleep(0)

    watcher = asyncio.create_task(watch())
    await outcomes(board, handler, max_concurrent=2000)
    await watcher
    assert max(b - a for a, b in zip(seen, [*seen[1:], 1000], strict=True)) <= 2 * 64


async def test_no_task_is_left_at_the_end() -> None:
    """Neither waiting workers nor those that ran leave an asyncio task."""
    before = asyncio.all_tasks()
    board, _ = await filled(30)
    await outcomes(board, sleeps, max_concurrent=8)
    await turns()
    assert before == asyncio.all_tasks()
    board, _ = await filled(5)
    assert (await run(board.claims().pipe(execute(sleeps), rx.take(1)))) is not None
    await turns()
    assert before == asyncio.all_tasks()


# ---------------------------------------------------------------- context

MARK: ContextVar[str] = ContextVar("mark", default="none")


async def test_each_attempt_has_a_context_of_its_own() -> None:
    """A handler keeps the variables that it sets, and other handlers do not see them."""
    board, _ = await filled(6)
    seen: list[tuple[str, str]] = []

    async def handler(task: Task[Any]) -> None:
        before = MARK.get()
        MARK.set(task.id)
        await asyncio.sleep(1)
        seen.append((before, MARK.get()))

    await outcomes(board, handler, max_concurrent=2)
    assert [("none", str(n)) for n in range(6)] == seen
    assert "none" == MARK.get()


async def test_current_claim_works_inside() -> None:
    """``current_claim`` works after a wait and in a handler's own tasks, but not outside."""
    board, _ = await filled(4)

    async def inner() -> int:
        return current_claim().token

    async def handler(_: Task[Any]) -> Any:
        first = current_claim()
        await asyncio.sleep(1)
        assert first.token == await asyncio.create_task(inner())
        return current_claim()

    found = await outcomes(board, handler, max_concurrent=2)
    assert [o.claim for o in found] == [o.result for o in found]
    with pytest.raises(LookupError) as caught:
        current_claim()
    assert "current_claim() must be called from within a handler" == str(caught.value)


# ---------------------------------------------------------------- time limits


async def test_an_attempt_that_takes_too_long_has_failed() -> None:
    """The handler is cancelled exactly when its limit has passed."""
    board, _ = place()
    await board.submit([Task(9.0, id="slow"), Task(1.0, id="fast")])
    fast, slow = await outcomes(board, sleeps, timeout=timedelta(seconds=2))
    assert ("done", "retry", 2.0) == (fast.status, slow.status, slow.duration)
    assert slow.error is not None
    cause = slow.error.__cause__
    assert isinstance(cause, ItemTimeoutError)
    assert (2.0, "slow") == (cause.seconds, cause.item)


async def test_the_limit_of_the_task_beats_the_operators() -> None:
    """The task's limit applies, be it shorter or longer, or the only one."""
    board, _ = place()
    await board.submit([Task(9.0, id="a", timeout=1.0), Task(5.0, id="b", timeout=6.0)])
    a, b = await outcomes(board, sleeps, timeout=3.0)
    assert [("a", "retry", 1.0), ("b", "done", 5.0)] == [
        (o.claim.task.id, o.status, o.duration) for o in (a, b)
    ]
    await board.submit(Task(9.0, id="c", timeout=4.0))
    (c,) = await outcomes(board, sleeps)
    assert ("retry", 4.0) == (c.status, c.duration)


async def test_a_time_out_of_the_handlers_own_is_its_error() -> None:
    """The error is not taken for the operator's limit."""
    board, _ = await filled(1)

    async def handler(_: Task[Any]) -> None:
        async with asyncio.timeout(1.0):
            await asyncio.sleep(9)

    (outcome,) = await outcomes(board, handler, timeout=5.0)
    assert outcome.error is not None
    assert TimeoutError is type(outcome.error.__cause__)
    assert 1.0 == outcome.duration


# ---------------------------------------------------------------- lost claims


async def test_a_lost_claim_cancels_its_handler() -> None:
    """The outcome is lost; the other attempts and the worker go on."""
    board, engine = await filled(3)
    other: Board = MemoryBoard("b", engine=engine)
    ended: list[tuple[str, float]] = []
    loop = asyncio.get_running_loop()

    async def handler(task: Task[Any]) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.append((task.id, loop.time()))
            raise

    log = Probe()
    stream = board.claims(until="idle", lease=6.0).pipe(
        execute(handler, max_concurrent=2), settle(board)
    )
    stream.subscribe(log)
    with capture_logs():
        await asyncio.sleep(1)
        await other.cancel("0")
        await asyncio.sleep(99)
    assert [("0", 1.0)] == ended
    assert [("0", "lost"), ("1", "done"), ("2", "done")] == [
        (o.claim.task.id, o.status) for o in log.notifications[:-1]
    ]
    assert (0, 0, 0, 2, 1) == await marks(board)


async def test_a_lost_claim_does_not_start() -> None:
    """A claim that is lost while it waits for a slot does not start."""
    board, _ = await filled(3)
    claims = await board.claim(3)
    ran: list[str] = []

    async def handler(task: Task[Any]) -> None:
        ran.append(task.id)
        await asyncio.sleep(1)

    hand, log = Hand(), Probe()
    hand.stream().pipe(execute(handler, max_concurrent=1)).subscribe(log)
    claims[1]._lose()
    with capture_logs():
        hand.push(*claims)
        await turns()
    claims[2]._lose()
    await asyncio.sleep(5)
    assert ["0"] == ran
    assert {"0": "done", "1": "lost", "2": "lost"} == {
        o.claim.task.id: o.status for o in log.notifications
    }
    hand.complete()
    await turns()
    assert "|" == log.notifications[-1]


async def test_a_handler_that_ends_after_its_cancellation_is_lost_too() -> None:
    """The handler caught the cancellation, but its result can no longer be written."""
    board, _ = await filled(2)
    claims = await board.claim(2)

    async def handler(task: Task[Any]) -> str:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            pass
        return "late"

    hand, log = Hand(), Probe()
    hand.stream().pipe(execute(handler, max_concurrent=1)).subscribe(log)
    hand.push(claims[0])
    await turns()
    claims[0]._lose()
    hand.push(claims[1])
    await asyncio.sleep(5)
    assert ["0", "1"] == ids(log.notifications)
    assert "done" == log.notifications[1].status
    hand.complete()
    await turns()


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("error", [None, OSError("x")])
async def test_the_end_of_the_source_waits_for_what_runs(error: Exception | None) -> None:
    """Both completion and errors wait."""
    board, _ = await filled(3)
    hand, log = Hand(), Probe()
    hand.stream().pipe(execute(sleeps)).subscribe(log)
    hand.push(*await board.claim(3))
    await turns()
    if error is None:
        hand.complete()
    else:
        hand.fail(error)
    await asyncio.sleep(9)
    assert [(0.0, "0"), (1.0, "1"), (2.0, "2")] == [
        (when, o.claim.task.id) for when, o in log.timeline[:-1]
    ]
    assert (2.0, error or "|") == log.timeline[-1]


async def test_the_end_comes_although_a_worker_that_was_woken_found_nothing() -> None:
    """The last attempt ends while another worker has just been woken."""

    async def handler(_: Task[Any]) -> None:
        pass

    board, _ = await filled(BURST + 2)
    claims = await board.claim(BURST + 2)
    hand, log = Hand(), Probe()
    hand.stream().pipe(execute(handler, max_concurrent=BURST + 2)).subscribe(log)
    hand.push(*claims[:-1])
    await asyncio.sleep(0)  # the first worker has run a burst, and gives the loop a turn
    hand.push(claims[-1])  # wakes a second worker
    hand.complete()
    await turns()
    assert ["|"] == log.notifications[BURST + 2 :]


async def test_an_empty_source_ends_at_once() -> None:
    """Nothing is started for such a source."""
    log = Probe()
    reactivex.empty().pipe(execute(sleeps)).subscribe(log)
    assert ["|"] == log.notifications
    assert {asyncio.current_task()} == asyncio.all_tasks()


async def test_the_valve_can_end_the_stream() -> None:
    """A drain that ran out of time does so: handlers are cancelled, and tasks go back."""
    board, _ = await filled(3)
    error = TimeoutError("x")
    hand, log = Hand(), Probe()
    hand.stream().pipe(execute(sleeps, max_concurrent=2)).subscribe(log)
    gate = hand.gate
    hand.push(*(await board.claim(3))[1:])
    await turns()
    assert gate.fail(error)
    await asyncio.sleep(9)
    assert [error] == log.notifications
    assert 2 == (await board.counts()).ready


# ---------------------------------------------------------------- disposal


async def test_disposal_cancels_and_gives_back() -> None:
    """Running and waiting claims go back, and nothing is emitted."""
    board, _ = await filled(5)
    cancelled: list[str] = []

    async def handler(task: Task[Any]) -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cancelled.append(task.id)
            raise

    hand, log = Hand(), Probe()
    subscription = hand.stream().pipe(execute(handler, max_concurrent=2)).subscribe(log)
    with capture_logs() as logs:
        hand.push(*await board.claim(5))
    assert ["no_demand"] == [entry["event"] for entry in logs]
    await asyncio.sleep(1)
    subscription.dispose()
    subscription.dispose()
    await turns()
    assert ["0", "1"] == sorted(cancelled)
    assert [] == log.notifications
    assert (0, 5, 0, 0, 0) == await marks(board)
    assert {asyncio.current_task()} == asyncio.all_tasks()
    assert [0] * 5 == [(await board.claim(1))[0].attempt - 1 for _ in range(5)]


async def test_disposal_before_anything_ran_starts_nothing() -> None:
    """A worker that was just started finds nothing to do."""
    board, _ = await filled(2)
    ran: list[str] = []

    async def handler(task: Task[Any]) -> None:
        ran.append(task.id)

    hand = Hand()
    subscription = hand.stream().pipe(execute(handler)).subscribe(Probe())
    hand.push(*await board.claim(2))
    subscription.dispose()
    await turns()
    assert [] == ran
    assert (0, 2, 0, 0, 0) == await marks(board)


async def test_disposal_from_within() -> None:
    """The first outcome is taken, and the other running tasks go back."""
    board, _ = await filled(9)
    last = await run(board.claims().pipe(execute(sleeps, max_concurrent=3), rx.take(1)))
    await turns()
    assert last is not None
    assert "0" == last.claim.task.id
    assert (0, 8, 1, 0, 0) == await marks(board)


async def test_a_claim_that_comes_after_disposal_goes_back() -> None:
    """The source may be in the middle of emitting."""
    board, _ = await filled(3)
    claims = await board.claim(3)
    done: list[Result] = []

    async def handler(task: Task[Any]) -> None:
        del task

    hand = Hand()
    stream = hand.stream().pipe(execute(handler), rx.do_action(done.append))
    subscription = stream.subscribe(Probe())
    observers = list(hand.subject.observers)
    hand.push(claims[0])
    await turns()
    subscription.dispose()
    for observer in observers:
        observer.on_next(claims[1])
    await turns()
    assert 1 == len(done)


async def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription has its own slots."""
    operator = execute(sleeps, max_concurrent=1)
    for _ in range(2):
        one, _ = await filled(3)
        two, _ = await filled(3)
        start = asyncio.get_running_loop().time()
        found = await asyncio.gather(
            *(to_list(board.claims(until="idle").pipe(operator)) for board in (one, two))
        )
        assert [["0", "1", "2"]] * 2 == [ids(items) for items in found]
        # 0 + 1 + 2 seconds, for each subscription at the same time.
        assert start + 3.0 == asyncio.get_running_loop().time()


async def test_a_subscriber_that_raises_does_not_stop_other_handlers() -> None:
    """The loop gets the error, and the other handlers go on."""
    board, _ = await filled(3)
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append((context["message"], str(context["exception"])))
    )
    ended: list[str] = []

    async def handler(task: Task[Any]) -> None:
        await asyncio.sleep(task.payload)
        ended.append(task.id)

    class Raises(Probe):
        def on_next(self, value: Any) -> None:
            raise ValueError(value.claim.task.id)

    board.claims().pipe(execute(handler), settle(board)).subscribe(Raises())
    hand = Hand()
    execution: Any = execute(handler)(hand.stream())
    raising = Raises()
    raw = execution._subscribe_core(raising)  # without RxPY's handling of subscribers that raise
    await board.submit([Task(n, id=f"x{n}") for n in range(2)])
    hand.push(*await board.claim(2, ids=["x0", "x1"]))
    await asyncio.sleep(9)
    assert {"x0", "x1"} <= set(ended)
    assert ("a subscriber of execute() raised", "x0") in told
    assert ("a subscriber of execute() raised", "x1") in told
    raw.dispose()


async def test_a_loop_that_is_closed_gives_tasks_back() -> None:
    """All asyncio tasks are cancelled then; no handler has failed, and no worker lives on."""
    board, _ = await filled(1)
    log = Probe()
    hand = Hand()
    before = asyncio.all_tasks()
    subscription = hand.stream().pipe(execute(sleeps)).subscribe(log)
    await board.submit(Task(9.0, id="slow"))
    hand.push(*await board.claim(1, ids=["slow"]))
    await turns()
    cancelled = asyncio.all_tasks() - before
    for task in cancelled:
        task.cancel()
    await turns()
    assert ["released"] == [o.status for o in log.notifications]
    assert {True} == {task.cancelled() for task in cancelled}
    subscription.dispose()


# ---------------------------------------------------------------- demand


async def test_its_valve_has_as_much_room_as_it_has_slots() -> None:
    """No more tasks are claimed from the board than there are slots."""
    board, _ = await filled(20)
    with board.claims().pipe(execute(sleeps, max_concurrent=3)).subscribe(Probe()) as _:
        await turns()
        assert 3 == (await board.counts()).claimed


async def test_no_room_below_starts_nothing() -> None:
    """Handlers start when there is room."""
    board, _ = await filled(5)
    probe = Probe(room=0)
    probe.watch(board.claims().pipe(execute(sleeps)))
    await asyncio.sleep(5)
    assert (0, 5, 0, 0, 0) == await marks(board)
    probe.open(2)
    await asyncio.sleep(5)
    assert probe.notifications
    probe.dispose()
    await turns()


async def test_a_source_that_cannot_wait_is_warned_of_once() -> None:
    """The claims that it pushed run nevertheless."""
    board, _ = await filled(6)
    hand, log = Hand(), Probe()
    hand.stream().pipe(execute(sleeps, max_concurrent=2)).subscribe(log)
    claims = await board.claim(6)
    with capture_logs() as logs:
        hand.push(*claims[:2])
        assert [] == logs
        hand.push(*claims[2:])
    warning = {
        "event": "no_demand",
        "operator": "execute",
        "limit": 2,
        "log_level": "warning",
    }
    assert [warning] == logs
    await asyncio.sleep(99)
    assert 6 == len(log.notifications)
    hand.complete()
    await turns()


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"handler": 5}, "handler must be callable, got 5"),
        ({"handler": None}, "handler must be callable, got None"),
        ({"max_concurrent": 0}, "max_concurrent must be an int >= 1, got 0"),
        ({"max_concurrent": True}, "max_concurrent must be an int >= 1, got True"),
        ({"timeout": 0}, "timeout must be a finite number of seconds > 0, got 0"),
        ({"timeout": "1"}, "timeout must be a finite number of seconds > 0, got '1'"),
        ({"executor": 4}, "executor must be a concurrent.futures.Executor, got 4"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    """Bad arguments are refused when the operator is made."""
    given: dict[str, Any] = {"handler": sleeps, **options}
    with pytest.raises(ConfigError) as caught:
        execute(given.pop("handler"), **given)
    assert message == str(caught.value)


def test_a_coroutine_function_needs_no_executor() -> None:
    """A coroutine function runs on the loop."""
    with ThreadPoolExecutor(1) as executor, pytest.raises(ConfigError) as caught:
        execute(sleeps, executor=executor)
    rule = "executor must be None for a coroutine function, got <"
    assert str(caught.value).startswith(rule)


def test_threads_are_not_made_before_they_are_needed() -> None:
    """Making the operator starts no thread."""
    before = threading.active_count()
    execute(lambda task: None)
    assert before == threading.active_count()

"""``submit``: batches, their order, and what happens if one cannot be written."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.errors import BoardFullError, CodecError, ConfigError, StoreUnavailableError
from rxdispatch.operators.tasks._submit import submit
from rxdispatch.results import SubmitResult
from rxdispatch.streams import run
from rxdispatch.task import Task
from rxdispatch.testing import Probe, Supply
from tests.operators.tasks.places import Hand, filled, ids, marks, place, tasks


def accepted(results: list[Any]) -> list[tuple[str, ...]]:
    """Return the accepted ids of each result."""
    return [item.accepted for item in results if isinstance(item, SubmitResult)]


# ---------------------------------------------------------------- values


async def test_tasks_keep_their_order_over_batches() -> None:
    """There is one result for each batch, and the board has the tasks in their order."""
    board, engine = place()
    log = Probe()
    reactivex.from_iterable(tasks(10)).pipe(submit(board, count=4)).subscribe(log)
    await asyncio.sleep(1)
    assert [("0", "1", "2", "3"), ("4", "5", "6", "7"), ("8", "9")] == accepted(log.notifications)
    assert "|" == log.notifications[-1]
    assert [4, 4, 2] == engine.sizes("submit")
    assert [str(n) for n in range(10)] == ids(await board.claim(99))


async def test_known_ids_are_reported() -> None:
    """Duplicates are no error."""
    board, _ = await filled(2)
    result = await run(reactivex.from_iterable(tasks(4)).pipe(submit(board)))
    assert SubmitResult(("2", "3"), ("0", "1")) == result


async def test_a_batch_goes_when_its_first_task_has_waited() -> None:
    """The time runs from the first task of each batch."""
    board, engine = place()
    hand, log = Hand(), Probe()
    hand.stream().pipe(submit(board, timespan=timedelta(seconds=2))).subscribe(log)
    a, b, c = tasks(3)
    hand.push(a)
    await asyncio.sleep(0.5)
    hand.push(b)
    await asyncio.sleep(2.5)
    hand.push(c)
    await asyncio.sleep(9)
    assert [2.0, 5.0] == engine.times("submit") == [when for when, _ in log.timeline]
    assert [("0", "1"), ("2",)] == accepted(log.notifications)


async def test_batches_are_written_one_after_the_other() -> None:
    """Tasks that come during a write wait for it, even if they fill a batch."""
    board, engine = place()
    engine.before["submit"] = 5.0
    hand, log = Hand(), Probe()
    hand.stream().pipe(submit(board, count=3, timespan=1.0)).subscribe(log)
    hand.push(*tasks(7)[:4])
    await asyncio.sleep(1)
    hand.push(*tasks(7)[4:])
    await asyncio.sleep(60)
    assert 1 == engine.most_running
    assert [(0.0, 3), (5.0, 3), (10.0, 1)] == [(c.at, c.size) for c in engine.named("submit")]
    assert [5.0, 10.0, 15.0] == [when for when, _ in log.timeline]
    assert [str(n) for n in range(7)] == ids(await board.claim(99))


async def test_what_ripens_during_a_write_goes_right_after_it() -> None:
    """A batch that becomes due meanwhile is written even if it is not full."""
    board, engine = place()
    engine.before["submit"] = 5.0
    hand, log = Hand(), Probe()
    hand.stream().pipe(submit(board, count=2, timespan=1.0)).subscribe(log)
    a, b, c = tasks(3)
    hand.push(a, b)
    await asyncio.sleep(2)
    hand.push(c)
    await asyncio.sleep(60)
    assert [(0.0, 2), (5.0, 1)] == [(call.at, call.size) for call in engine.named("submit")]


# ---------------------------------------------------------------- the end


async def test_completion_writes_what_is_held_first() -> None:
    """The held tasks are written at once, before their time."""
    board, engine = place()
    engine.after["submit"] = 1.0
    hand, log = Hand(), Probe()
    hand.stream().pipe(submit(board, timespan=60.0)).subscribe(log)
    hand.push(*tasks(2))
    hand.complete()
    await asyncio.sleep(99)
    assert [(1.0, SubmitResult(("0", "1"), ())), (1.0, "|")] == log.timeline
    assert [0.0] == engine.times("submit")


async def test_an_empty_source_completes_at_once() -> None:
    """Nothing is written for such a source."""
    board, engine = place()
    log = Probe()
    reactivex.empty().pipe(submit(board)).subscribe(log)
    assert ["|"] == log.notifications
    assert [] == engine.calls


async def test_an_error_of_the_source_comes_after_what_is_held() -> None:
    """The tasks before the error are on the board."""
    board, _ = place()
    error = OSError("x")
    hand, log = Hand(), Probe()
    hand.stream().pipe(submit(board, count=2)).subscribe(log)
    hand.push(*tasks(3))
    hand.fail(error)
    await asyncio.sleep(1)
    assert [SubmitResult(("0", "1"), ()), SubmitResult(("2",), ()), error] == log.notifications


@pytest.mark.parametrize(
    "fault", [BoardFullError("b"), StoreUnavailableError("submit"), RuntimeError("x")]
)
async def test_a_write_that_fails_ends_the_stream(fault: Exception) -> None:
    """The stream ends with the error, the source is disposed, and nothing more is written."""
    board, engine = place()
    engine.faults["submit"].append(fault)
    hand, log = Hand(), Probe()
    hand.stream().pipe(submit(board, count=2)).subscribe(log)
    hand.push(*tasks(5))
    await asyncio.sleep(1)
    assert [fault] == log.notifications
    assert 1 == hand.disposed
    assert [2] == engine.sizes("submit")
    assert hand.gate.closed


async def test_a_task_that_cannot_be_stored_ends_the_stream() -> None:
    """Its batch is refused as a whole; earlier batches remain."""
    board, _ = place()
    log = Probe()
    bad: list[Task[Any]] = [*tasks(3), Task(float("nan"), id="bad")]
    reactivex.from_iterable(bad).pipe(submit(board, count=2)).subscribe(log)
    await asyncio.sleep(1)
    result, error = log.notifications
    assert SubmitResult(("0", "1"), ()) == result
    assert isinstance(error, CodecError)
    assert "bad" == error.task_id
    assert (0, 2, 0, 0, 0) == await marks(board)


async def test_the_valve_can_end_the_stream() -> None:
    """A drain that ran out of time does so, once."""
    board, engine = place()
    error = TimeoutError("x")
    hand, log = Hand(), Probe()
    hand.stream().pipe(submit(board)).subscribe(log)
    gate = hand.gate
    hand.push(*tasks(2))
    assert gate.fail(error)
    assert not gate.fail(error)
    await asyncio.sleep(1)
    assert [error] == log.notifications
    assert [] == engine.calls


# ---------------------------------------------------------------- disposal


async def test_disposal_drops_what_is_not_written() -> None:
    """Neither the batch nor its timer is left."""
    board, engine = place()
    hand, log = Hand(), Probe()
    subscription = hand.stream().pipe(submit(board, timespan=1.0)).subscribe(log)
    hand.push(*tasks(2))
    subscription.dispose()
    assert 1 == hand.disposed
    await asyncio.sleep(9)
    assert ([], []) == (log.notifications, engine.calls)


@pytest.mark.parametrize("fault", [None, RuntimeError("x")])
async def test_disposal_cancels_a_write(fault: Exception | None) -> None:
    """The result or error of the write is ignored."""
    board, engine = place()
    engine.before["submit"] = 1.0
    if fault is not None:
        engine.faults["submit"].append(fault)
    hand, log = Hand(), Probe()
    subscription = hand.stream().pipe(submit(board, count=2)).subscribe(log)
    hand.push(*tasks(4))
    await asyncio.sleep(0.5)
    subscription.dispose()
    await asyncio.sleep(9)
    assert [] == log.notifications
    assert (0, 0, 0, 0, 0) == await marks(board)


async def test_disposal_as_a_write_ends() -> None:
    """The disposal comes between the reply and its delivery."""
    board, engine = place()
    for fault in (None, RuntimeError("x")):
        hand, log = Hand(), Probe()
        if fault is not None:
            engine.faults["submit"].append(fault)
        subscription = hand.stream().pipe(submit(board, count=1)).subscribe(log)
        hand.push(Task(0))
        # The write runs first, and its end is reported one turn later.
        asyncio.get_running_loop().call_soon(subscription.dispose)
        await asyncio.sleep(1)
        assert [] == log.notifications


async def test_disposal_from_within() -> None:
    """Nothing more is written after the first result."""
    board, engine = place()
    result = await run(reactivex.from_iterable(tasks(9)).pipe(submit(board, count=2), rx.take(1)))
    await asyncio.sleep(1)
    assert SubmitResult(("0", "1"), ()) == result
    assert [2] == engine.sizes("submit")


async def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription has its own batch, whether they run together or one after the other."""
    board, _ = place()
    operator = submit(board, timespan=1.0)
    hands, logs = [Hand(), Hand()], [Probe(), Probe()]
    for hand, log in zip(hands, logs, strict=True):
        hand.stream().pipe(operator).subscribe(log)
    for task in tasks(4):
        hands[int(task.id) % 2].push(task)
    await asyncio.sleep(2)
    assert [[("0", "2")], [("1", "3")]] == [accepted(log.notifications) for log in logs]
    again = reactivex.of(Task(0, id="x")).pipe(operator)
    assert SubmitResult(("x",), ()) == await run(again)
    assert SubmitResult((), ("x",)) == await run(again)


# ---------------------------------------------------------------- demand


async def test_the_valve_holds_four_batches() -> None:
    """The source goes on as batches are written."""
    board, engine = place()
    engine.before["submit"] = 1.0
    supply, probe = Supply(tasks(50)), Probe(room=99)
    probe.watch(supply.pipe(submit(board, count=3, timespan=1.0)))
    assert (12, 12) == (supply.sent, supply.most_room)
    for n in range(1, 9):
        await asyncio.sleep(1)
        assert 12 + 3 * n - 3 <= supply.sent <= 12 + 3 * n
    await asyncio.sleep(99)
    assert "|" == probe.notifications[-1]
    assert 50 == sum(len(batch) for batch in accepted(probe.notifications))


async def test_no_room_below_closes_the_valve() -> None:
    """A subscriber that takes nothing stops the source."""
    board, _ = place()
    supply, probe = Supply(tasks(5)), Probe(room=0)
    probe.watch(supply.pipe(submit(board)))
    await asyncio.sleep(1)
    assert 0 == supply.sent
    probe.open(1)
    await asyncio.sleep(1)
    assert [("0", "1", "2", "3", "4")] == accepted(probe.notifications)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be an int >= 1, got 0"),
        ({"count": True}, "count must be an int >= 1, got True"),
        ({"count": 2.0}, "count must be an int >= 1, got 2.0"),
        ({"timespan": 0}, "timespan must be a finite number of seconds > 0, got 0"),
        ({"timespan": -1.0}, "timespan must be a finite number of seconds > 0, got -1.0"),
        ({"timespan": "1"}, "timespan must be a finite number of seconds > 0, got '1'"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    """Bad arguments are refused when the operator is made."""
    board, _ = place()
    with pytest.raises(ConfigError) as caught:
        submit(board, **options)
    assert message == str(caught.value)


async def test_a_source_that_cannot_wait_is_warned_of_once() -> None:
    """Everything is kept, and the log says why it accumulates."""
    board = MemoryBoard("jobs")
    source: Subject[Task[Any]] = Subject()
    with capture_logs() as logs:
        running = source.pipe(submit(board, count=1)).subscribe()
        for number in range(20):
            source.on_next(Task(number))
        source.on_completed()
        await asyncio.sleep(1)
        running.dispose()
    assert [("no_demand", "submit")] == [(entry["event"], entry["operator"]) for entry in logs]
    assert 20 == (await board.counts()).ready

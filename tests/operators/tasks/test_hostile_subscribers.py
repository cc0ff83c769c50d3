"""A subscriber that raises harms no other item: what waits behind goes on, and the end comes."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import pytest
import reactivex
from reactivex import Observable

from rxdispatch.claim import Outcome
from rxdispatch.clock import LoopScheduler
from rxdispatch.node import Node, NodeChange, Slot
from rxdispatch.operators.tasks._assign import assign
from rxdispatch.operators.tasks._claim import claim
from rxdispatch.operators.tasks._claim_each import claim_each
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.operators.tasks._submit import submit
from rxdispatch.valve import Gate
from tests.operators.tasks.places import Board, Hand, filled, ids, marks, place, tasks, turns


class Stop(BaseException):
    """An error that is no ``Exception``."""


class Raising:
    """A subscriber with a valve that raises *errors*, one at each item, while there are any."""

    def __init__(self, *errors: BaseException, room: int = 0) -> None:
        self.errors = list(errors)
        self.room = room
        self.gate = Gate(lambda: self.room, None)
        self.items: list[Any] = []
        self.ends: list[Any] = []

    def subscribe_to(self, stream: Observable[Any], *, valve: bool = True) -> Any:
        """Subscribe, with the valve or without one."""
        loop = asyncio.get_running_loop()
        return stream.subscribe(
            self.on_next,
            self.ends.append,
            lambda: self.ends.append("|"),
            scheduler=LoopScheduler(loop, valve=self.gate if valve else None),
        )

    def on_next(self, item: Any) -> None:
        """Keep the item, then perhaps raise."""
        self.room -= 1
        self.items.append(item)
        if self.errors:
            raise self.errors.pop(0)

    def open(self, items: int) -> None:
        """Make room."""
        self.room += items
        self.gate.opened()


@contextmanager
def reported() -> Generator[list[Any]]:
    """Collect the errors that the loop reports."""
    loop = asyncio.get_running_loop()
    before, found = loop.get_exception_handler(), list[Any]()
    loop.set_exception_handler(lambda _, context: found.append(context["exception"]))
    try:
        yield found
    finally:
        loop.set_exception_handler(before)


Make = Callable[[Board], Callable[[Observable[Any]], Observable[Any]]]
CLAIMING: dict[str, Make] = {"claim": claim, "claim_each": claim_each}


ERRORS = [ValueError("x"), Stop(), asyncio.CancelledError()]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", CLAIMING)
async def test_claims_behind_an_error_at_a_reply_go_back(name: str, error: BaseException) -> None:
    """The stream ends with the error, and other workers may have the claims that wait."""
    board, _ = await filled(3)
    hand, one = Hand(), Raising(error, room=100)
    one.subscribe_to(hand.stream().pipe(CLAIMING[name](board)), valve=False)
    hand.push("0", "1", "2")
    await asyncio.sleep(9)
    assert (["0"], [error]) == (ids(one.items), one.ends)
    assert (0, 2, 1, 0, 0) == await marks(board)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", CLAIMING)
async def test_claims_behind_an_error_where_room_opens_go_back(
    name: str, error: BaseException
) -> None:
    """So they do if the valve below opens; what opens it does not see the error."""
    board, engine = await filled(3)
    engine.after["claim"] = 1.0
    hand, one = Hand(), Raising(error, room=3)
    one.subscribe_to(hand.stream().pipe(CLAIMING[name](board)))
    hand.push("0", "1", "2")
    await asyncio.sleep(0.5)
    one.room = 0
    await asyncio.sleep(1)
    assert (0, 0, 3, 0, 0) == await marks(board)
    one.open(3)
    await asyncio.sleep(9)
    assert (["0"], [error]) == (ids(one.items), one.ends)
    assert (0, 2, 1, 0, 0) == await marks(board)


class Nodes:
    """A feed with a node that always has room."""

    def __init__(self) -> None:
        self.changes: Observable[NodeChange] = reactivex.never()
        self.released: list[str] = []
        self._numbers = itertools.count()

    def criteria(self, **_: Any) -> None:
        """Accept any criteria."""

    async def reserve_many(self, count: int, **_: Any) -> list[Slot]:
        """Return as many slots as are asked for."""
        return [Slot(f"{next(self._numbers)}", Node("n", capacity=99)) for _ in range(count)]

    def release_later(self, slots: Iterable[Slot]) -> None:
        """Keep the ids of the slots."""
        self.released += [slot.id for slot in slots]


async def test_assignments_behind_the_error_go_on() -> None:
    """``assign`` emits what has a slot already, in the next turn, and completes."""
    board, _ = await filled(4)
    nodes = Nodes()
    error = ValueError("x")
    hand, one = Hand(), Raising(error, room=4)
    with reported() as trouble:
        one.subscribe_to(hand.stream().pipe(assign(nodes)))
        hand.push(*await board.claim(3))
        await turns()
        assert (3, [error]) == (len(one.items), trouble)
        hand.push(*await board.claim(1))
        hand.complete()
        await turns()
    assert (["0", "1", "2", "3"], ["|"]) == (ids(one.items), one.ends)


async def test_a_subscriber_that_cancels_the_current_task() -> None:
    """``settle`` emits the rest of the batch, and completes."""
    board, _ = await filled(3)
    got: list[Any] = []

    def cancel(outcome: Any) -> None:
        got.append(outcome)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    claims = await board.claim(3)
    hand, ends = Hand(), list[Any]()
    hand.stream().pipe(settle(board)).subscribe(cancel, ends.append, lambda: ends.append("|"))
    hand.push(*(Outcome(claim, "done") for claim in claims))
    hand.complete()
    await asyncio.sleep(1)
    assert (["0", "1", "2"], ["|"]) == (ids(got), ends)


async def test_results_behind_the_error_go_on() -> None:
    """``submit`` writes what it holds, and completes."""
    board, engine = place()
    engine.after["submit"] = 1.0
    error = ValueError("x")
    hand, one = Hand(), Raising(error, room=100)
    with reported() as trouble:
        one.subscribe_to(hand.stream().pipe(submit(board, count=2)), valve=False)
        hand.push(*tasks(5))
        hand.complete()
        await asyncio.sleep(9)
    assert [error] == trouble
    assert [(0, 5, 0, 0, 0), 3, ["|"]] == [await marks(board), len(one.items), one.ends]

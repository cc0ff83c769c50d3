"""Boards and claims as a user's type checker sees them; mypy and pyright check this file too."""

from __future__ import annotations

from typing import Any, assert_type

import attrs
from reactivex import Observable

import rxdispatch as rxd
from rxdispatch import operators as ops


@attrs.frozen
class Thumb:
    """A payload."""

    url: str


@attrs.frozen
class Large(Thumb):
    """A payload that is also a Thumb."""


async def render(task: rxd.Task[Thumb]) -> bytes:
    """Handle a task in the loop."""
    return task.payload.url.encode()


def measure(task: rxd.Task[Thumb]) -> int:
    """Handle a task in a thread."""
    return len(task.payload.url)


async def submitting(board: rxd.Board[Thumb]) -> None:
    """A board takes one task or many with its type of payload, or with a subclass of it."""
    one = rxd.Task(Thumb("a"))
    assert_type(await board.submit(one), rxd.SubmitResult)
    await board.submit([one, rxd.Task(Thumb("b"))])
    await board.submit(rxd.Task(Large("c")))
    assert_type(await board.peek(one.id), list[Thumb | None])


async def streaming(board: rxd.Board[Thumb]) -> None:
    """The type of the payload is known through all operators."""
    claims = assert_type(board.claims(until="idle"), Observable[rxd.Claim[Thumb]])
    outcomes = claims.pipe(ops.execute(render))
    assert_type(outcomes, Observable[rxd.Outcome[Thumb, Any]])
    settled = outcomes.pipe(ops.settle(board))
    assert_type(settled, Observable[rxd.Outcome[Thumb, Any]])
    chained = board.claims(until="idle").pipe(ops.execute(measure), ops.settle(board))
    assert_type(chained, Observable[rxd.Outcome[Thumb, Any]])
    last = assert_type(await rxd.run(chained), rxd.Outcome[Thumb, Any] | None)
    assert last is not None
    assert_type(last.claim.task.payload, Thumb)


async def count(task: rxd.Task[Any]) -> int:
    """Handle a task of any payload."""
    return len(str(task.payload))


async def anything(board: rxd.Board[Any]) -> None:
    """A board without a type takes any payload."""
    await board.submit([rxd.Task(1), rxd.Task("two")])
    outcomes = board.claims(until="idle").pipe(ops.execute(count), ops.settle(board))
    assert_type(outcomes, Observable[rxd.Outcome[Any, Any]])


async def test_as_it_is_typed() -> None:
    """The objects have the types that the checkers were told."""
    thumbs = rxd.MemoryBoard("thumbs", payload=Thumb)
    await submitting(thumbs)
    await streaming(thumbs)
    await anything(rxd.MemoryBoard("anything"))
    assert 3 == (await thumbs.counts()).done


async def test_another_payload_is_refused_by_the_checkers() -> None:
    """The checkers report a task with another payload; the board notices it when it decodes."""
    board = rxd.MemoryBoard("thumbs", payload=Thumb)
    await board.submit(rxd.Task("x"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert [] == await board.claim(1)
